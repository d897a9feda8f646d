"""Builds the embedded tokenizer: Phi-3's kind of BPE, learned from the texts that ship with us.

Same layout as Phi-3's own file (ids 0-2 control, 3-258 bytes, then pieces, then `<|endoftext|>`
and the template's tokens), so that everything that works on one works on the other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.prompts import axes, templates

CONTROL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
# Phi-3's order; only <|endoftext|> leaves the white space behind it alone.
TEMPLATE = [
    "<|endoftext|>",
    "<|assistant|>",
    *(f"<|placeholder{n}|>" for n in (1, 2, 3, 4)),
    "<|system|>",
    "<|end|>",
    *(f"<|placeholder{n}|>" for n in (5, 6)),
    "<|user|>",
]
# Characters with a piece of their own; rarer ones are spelled in bytes, as most emoji in Phi-3.
ASCII = {chr(code) for code in range(0x21, 0x7F)}
OFTEN = 8


def run(*, out: Path, vocab_size: int = 4096) -> None:
    """Learns the pieces and writes `out`, a tokenizer.json, atomically.

    Args:
      vocab_size: ids in all, control, byte and template tokens included.

    Raises:
      ConfigError: fewer ids than those tokens.
    """
    least = len(CONTROL) + len(BYTES) + len(TEMPLATE)
    if vocab_size < least:
        raise ConfigError(
            f"a vocabulary of {vocab_size}; control, byte and template tokens alone are {least}"
        )
    storage.write_text(out, train(texts(), vocab_size).to_str() + "\n")


def texts() -> Iterator[str]:
    """What ships for training: the bank of posts, the templates, the recorded answers.

    The bundled evaluation sets are left out: the student shall not know their words beforehand.
    """
    yield from (post.text for post in axes.load().posts)
    yield from (template.text for template in templates.TEMPLATES)
    for row in storage.read_jsonl(axes.ASSETS / "recorded.jsonl"):
        yield row["response"]


def train(corpus: Iterator[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of Phi-3's kind with `vocab_size` ids."""
    learner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]  # pyright: ignore[reportArgumentType]
    )
    learner.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    # Only while learning: no piece may cross words, digits or punctuation. What was never merged
    # cannot be merged later, so the finished file needs no pre-tokenizer, like Phi-3's.
    learner.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    lines = list(corpus)
    counts = Counter("".join(lines))
    # Given in full: the trainer breaks ties among rare characters by chance.
    alphabet = sorted(ASCII | {c for c, n in counts.items() if n >= OFTEN and not c.isspace()})
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(TEMPLATE),
        special_tokens=CONTROL + BYTES,
        initial_alphabet=["▁", *alphabet],
        limit_alphabet=len(alphabet) + 1,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(lines, trainer)
    learner.pre_tokenizer = None  # pyright: ignore[reportAttributeAccessIssue]
    return _finish(learner, normalizer)


def _finish(learner: Tokenizer, normalizer: normalizers.Normalizer) -> Tokenizer:
    """The learned pieces with Phi-3's added tokens, decoder, and bytes that are no added tokens."""
    model = json.loads(learner.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    finished = Tokenizer(
        models.BPE(
            vocab=model["vocab"],
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    finished.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    finished.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    finished.add_special_tokens([AddedToken(name, normalized=False) for name in CONTROL])
    finished.add_special_tokens(
        [AddedToken(name, normalized=False, rstrip=name != "<|endoftext|>") for name in TEMPLATE]
    )
    return finished
