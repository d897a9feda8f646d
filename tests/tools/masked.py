"""Masked examples for the tests of `inspect`: made by hand, of posts that mean harm."""

from pathlib import Path

import numpy as np

from opengrok_jax import chance, masked_file, tokenizer
from opengrok_jax.masking import keep
from opengrok_jax.records import MaskedExample, Message

HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> \x1b[31mred\x1b]0;t\x07 "
    "\u202eevil\u202c {{7*7}} & \"q\" 'q' 😂 👨‍👩‍👧 مرحبا"
)
POSTS = ("what a day", HOSTILE, "I love the old song 😀", "ok", "no way!! #fail")
ANSWERS = ("joy", "</div><b>sad</b>\x1b[2J", "joy and more of it", "a\nb", "anger")

MADE_WITH = {
    "tokenizer": "", "vocab_size": tokenizer.load().vocab_size, "preset": "", "alpha": 2.0,
    "beta": 1.0, "gamma": 0.5, "delta": 1.0, "bias": -0.75, "target_keep_rate": None, "seed": 3,
    "scope": "prompt+response", "pipeline": "en_x 1.0", "pos_tags": ["NOUN", "VERB"],
    "relations": ["root"], "max_tokens": 512,
}  # fmt: skip


def example(number: int, made_with: dict = MADE_WITH) -> MaskedExample:
    """The formula, written out again."""
    chat = tokenizer.load()
    post, answer = POSTS[number % len(POSTS)], ANSWERS[number % len(ANSWERS)]
    encoded = chat.encode_chat((Message(role="user", content=post),), answer)
    name, count = f"{number:04x}abcdef012345", len(encoded.tokens)
    rng = np.random.Generator(np.random.Philox(number))
    content = (encoded.roles > 0) & ~encoded.special
    tfidf = np.where(content, np.round(rng.random(count), 3), 0).astype(np.float32)
    pos, dep = ((content & (rng.random(count) < 0.5)).astype(np.float32) for _ in range(2))
    random = chance.of_tokens(made_with["seed"], [name], "random", np.array([count]))
    total = 2.0 * tfidf.astype(float) + pos + 0.5 * dep + random - 0.75
    free = keep.maskable(encoded.roles, made_with["scope"])
    keep_prob = np.where(free, 1 / (1 + np.exp(-total)), 1).astype(np.float32)
    u = chance.of_tokens(made_with["seed"], [name], "draw", np.array([count]))
    return MaskedExample(
        id=name, split="valid" if number % 5 == 4 else "train", tokens=encoded.tokens,
        roles=encoded.roles, tfidf=tfidf, pos=pos, dep=dep, random=random, keep_prob=keep_prob,
        key_mask=(u < keep_prob) | ~free,
    )  # fmt: skip


def folder(at: Path, count: int, rows_per_part: int = 4) -> Path:
    """A run folder with so many examples; answers that of the masked ones."""
    path = at / "masking" / "masked.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    examples = [example(number) for number in range(count)]
    masked_file.write_masked(path, examples, MADE_WITH, rows_per_part=rows_per_part)
    return path
