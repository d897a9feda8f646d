"""`opengrok generate`: a student's answer to a prompt, piece by piece as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from opengrok_jax import hub
from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import ConfigError
from opengrok_jax.model import generate
from opengrok_jax.model.opening import open_model
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sampling import Sampling
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import ChatTokenizer

_BROKEN = "\ufffd"  # what the bytes of a character become before the last of them is there


def run(
    *,
    student: str | Path,
    prompt: str,
    tokenizer: str = "",
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """The answer to one user turn; the pieces joined are its text.

    Args:
      student: a folder by `opengrok finetune`, or one of Hugging Face: config.json, safetensors;
        a `str` may also be a name on the hub.
      tokenizer: a tokenizer.json or its folder; "" = the one in the student's folder, or else the
        small one that ships with us, if the student is of its size.
      max_new_tokens: the answer is cut after as many, if `<|end|>` did not come before.
      temperature, top_p, seed: see `Sampling`.

    Raises:
      ConfigError: an argument, or a prompt that does not fit into the context.
      DataError: the tokenizer cannot be read.
      CheckpointError: no student in the folder, or a broken one.
    """
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={max_new_tokens}: expected at least 1")
    folder = hub.folder_of(student)
    tokenizer = tokenizers.beside(folder, tokenizer)
    opened = tokenizers.load(tokenizer)
    model = open_model(folder)
    check_tokenizer(opened, model, chosen=bool(tokenizer))
    encoded = opened.encode_chat((Message(role="user", content=prompt),))
    ids = generate.stream(
        model,
        encoded.tokens,
        stop_ids=(opened.end_id, opened.eos_id),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
    )
    return pieces(opened, ids)


def check_tokenizer(tokenizer: ChatTokenizer, model: Phi3, *, chosen: bool) -> None:
    """Raises ConfigError for a tokenizer that cannot be the student's.

    A model may have up to 63 rows more than its tokenizer has ids (they are rounded up to a
    multiple of 64). A file that the user named is taken whenever its ids fit; the one that nobody
    `chosen` only if it is of that size, since any ids would give some text.
    """
    ids, rows = tokenizer.vocab_size, model.config.vocab_size
    if ids > rows or (not chosen and ids <= rows - 64):
        whose = "the tokenizer" if chosen else "the tokenizer that ships with opengrok"
        raise ConfigError(
            f"{whose} has {ids} ids and the student {rows} rows; give --tokenizer the file that "
            "this student was trained with"
        )


def pieces(tokenizer: ChatTokenizer, ids: Iterator[int]) -> Iterator[str]:
    """The text of the ids as it grows; a character of several byte tokens comes whole.

    ids      H  i  <0xF0> <0x9F> <0x98> <0x80>  !
    pieces   H  i                       😀      !
    """
    seen: list[int] = []
    said = text = ""
    for token in ids:
        seen.append(token)
        text = tokenizer.decode(seen)
        whole = text.rstrip(_BROKEN)
        if len(whole) > len(said):
            yield whole[len(said) :]
            said = whole
    if rest := text[len(said) :]:
        yield rest
