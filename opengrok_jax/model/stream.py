"""`opengrok generate`: a student's answer to a prompt, piece by piece as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from opengrok_jax import hub, storage
from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import CheckpointError, ConfigError, DataError
from opengrok_jax.model import generate
from opengrok_jax.model.opening import open_model
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sampling import Sampling
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import ChatTokenizer

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
GENERATION = "generation_config.json"
_BROKEN = "\ufffd"  # what the bytes of a character become before the last of them is there


def run(
    *,
    checkpoint: str | Path,
    prompt: str,
    system: str = "",
    tokenizer: str = "",
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    dtype: str = "float32",
) -> Iterator[str]:
    """The answer to one user turn; the pieces joined are its text.

    Args:
      checkpoint: a folder by `opengrok finetune`, or one of Hugging Face: config.json, safetensors;
        a `str` may also be a name on the hub.
      system: what stands in the system turn before; "" = there is none.
      tokenizer: a tokenizer.json or its folder; "" = the one in the checkpoint's folder, or else
        the small one that ships with us, if the student is of its size.
      max_new_tokens: the answer is cut after as many, if no stop id came before.
      temperature, top_p, seed: see `Sampling`.
      dtype: "float32" or "bfloat16", what parameters and cache are held and multiplied in.

    Raises:
      ConfigError: an argument, or a prompt that does not fit into the context.
      DataError: the tokenizer cannot be read.
      CheckpointError: no student in the folder, or a broken one.
    """
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={max_new_tokens}: expected at least 1")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is unknown; choose one of {list(DTYPES)}")
    messages = chat(prompt, system)
    folder = hub.folder_of(checkpoint)
    tokenizer = tokenizers.beside(folder, tokenizer)
    opened = tokenizers.load(tokenizer)
    model = open_model(folder, DTYPES[dtype], dtype=DTYPES[dtype])
    check_tokenizer(opened, model, chosen=bool(tokenizer))
    encoded = opened.encode_chat(messages)
    ids = generate.stream(
        model,
        encoded.tokens,
        stop_ids=stop_ids(opened, model, folder),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
    )
    return pieces(opened, ids)


def chat(prompt: str, system: str = "") -> tuple[Message, ...]:
    """The turns before the answer. Raises ConfigError for a prompt that is empty or not text."""
    if not prompt.strip():
        raise ConfigError("the prompt is empty; give --prompt a text, or - for standard input")
    user = Message(role="user", content=prompt)
    turns = (Message(role="system", content=system), user) if system else (user,)
    for turn in turns:
        try:
            turn.content.encode()
        except UnicodeEncodeError as error:  # a byte of the command line that is no UTF-8
            raise ConfigError(
                f"the {turn.role} turn is not text at character {error.start}; give it in UTF-8"
            ) from None
    return turns


def stop_ids(tokenizer: ChatTokenizer, model: Phi3, folder: Path) -> tuple[int, ...]:
    """What ends an answer: `<|end|>`, `<|endoftext|>`, and what the checkpoint names as such.

    The latter are `eos_token_id`, one or several, of config.json and of generation_config.json,
    if that stands in the folder; Phi-3's published ones are 32000, 32001 and 32007. One that the
    model has no row for can never come.

    Raises:
      CheckpointError: generation_config.json cannot be read or has something else there.
    """
    ids = {tokenizer.end_id, tokenizer.eos_id, *_ids(model.config.eos_token_id)}
    path = folder / GENERATION
    if path.exists():
        try:
            found = storage.read_json(path)
        except DataError as error:
            raise CheckpointError(
                f"{error}; copy the checkpoint anew, or remove the file"
            ) from None
        named = found.get("eos_token_id") if isinstance(found, dict) else "missing"
        if any(type(i) is not int for i in _ids(named)):
            raise CheckpointError(
                f"{path}: eos_token_id is {named!r}; a token id or a list of them was expected"
            )
        ids |= {*_ids(named)}
    return tuple(sorted(i for i in ids if 0 <= i < model.config.vocab_size))


def _ids(eos: Any) -> tuple[Any, ...]:
    return () if eos is None else tuple(eos) if isinstance(eos, list | tuple) else (eos,)


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
