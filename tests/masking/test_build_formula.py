"""The whole formula again from what a build leaves on disk, by nothing of ours.

Parquet is read by pyarrow alone; logistic function, Threefry (from its authors' paper) and which
tokens may be hidden are written out here once more, as simply as can be.
"""

import hashlib
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from opengrok_jax.masking import build

MASK = 0xFFFFFFFF
TEMPLATE, PROMPT, RESPONSE = 0, 1, 2


def threefry(key: tuple[int, int], counter: tuple[int, int]) -> int:
    """The first word of Threefry-2x32 with 20 rounds; Salmon et al., SC11, section 4.2."""
    subkeys = (*key, 0x1BD11BDA ^ key[0] ^ key[1])
    rotate = (13, 15, 26, 6, 17, 29, 16, 24)
    left, right = counter
    for number in range(20):
        if number % 4 == 0:
            left = (left + subkeys[number // 4 % 3]) & MASK
            right = (right + subkeys[(number // 4 + 1) % 3] + number // 4) & MASK
        left = (left + right) & MASK
        by = rotate[number % 8]
        right = ((right << by | right >> (32 - by)) & MASK) ^ left
    return (left + subkeys[5 % 3]) & MASK


def uniforms(seed: int, name: str, purpose: str, count: int) -> list[float]:
    spelled = json.dumps([seed, name, purpose], ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(spelled.encode()).digest()
    key = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
    return [(threefry(key, (token, 0)) >> 8) / 2**24 for token in range(count)]


def may_be_hidden(roles: list[int], scope: str) -> list[bool]:
    chosen = {"prompt": {PROMPT}, "prompt+response": {PROMPT, RESPONSE}}[scope]
    inside = range(1, len(roles) - 1)
    return [at in inside and role in chosen for at, role in enumerate(roles)]


def written(folder) -> tuple[list[dict], dict]:
    rows: list[dict] = []
    provenance: dict = {}
    for path in sorted((folder / "masked.parquet").glob("part-*.parquet")):
        table = pq.read_table(path)
        provenance = json.loads(table.schema.metadata[b"opengrok"])
        rows += table.to_pylist()
    return rows, provenance


POSTS = (
    ("my cat sat on the new keyboard 😹 #caturday", "It is amused: the cat won."),
    ("@ada the train is late again!! http://t.co/x", "Trains late, users cross."),
    ("gr8 match 👨‍👩‍👧 watched together 🇺🇸", "Sports. A family enjoys the match."),
    ("مباراة رائعة اليوم", "A great match today."),
    ("東京は雨です ☔", "Rain in Tokyo."),
    ("", "Nothing was said."),
    ("say nothing", ""),
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formula")
    rows = [
        {
            "id": f"é{number}",
            "messages": [{"role": "user", "content": post}],
            "response": answer,
            "split": "train",
            "cell": {"intent": "test"},
            "label": "",
            "source": "labelled",
            "model_served": "hand",
            "rights": "own",
        }
        for number, (post, answer) in enumerate(POSTS)
    ]
    path = folder / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 0},
        {"preset": "paper", "seed": 7},
        {
            "alpha": -1.5,
            "beta": 0.3,
            "gamma": 2.5,
            "delta": 6.0,
            "target_keep_rate": 0.4,
            "scope": "prompt",
            "seed": 2**40,
        },
        {"alpha": 900.0, "bias": -500.0, "target_keep_rate": None},
    ],
)
def test_keep_prob_and_mask_follow_from_the_stored_factors(examples, settings):
    out = examples.parent / "out"  # the factors are made once, the masks anew
    build.run(examples_file=examples, out=out, workers=1, **settings)
    rows, told = written(out)
    assert [row["id"] for row in rows] == [f"é{number}" for number in range(len(POSTS))]
    chances = []
    for row in rows:
        count = len(row["tokens"])
        random = uniforms(told["seed"], row["id"], "random", count)
        draw = uniforms(told["seed"], row["id"], "draw", count)
        assert row["random"] == random
        free = may_be_hidden(row["roles"], told["scope"])
        for at in range(count):
            total = (
                told["alpha"] * row["tfidf"][at]
                + told["beta"] * row["pos"][at]
                + told["gamma"] * row["dep"][at]
                + told["delta"] * random[at]
                + told["bias"]
            )
            keep = 1 / (1 + math.exp(-total)) if total > -700 else 0.0
            keep = keep if free[at] else 1.0
            assert row["keep_prob"][at] == pytest.approx(keep, rel=1e-6, abs=1e-37)
            assert row["key_mask"][at] == (draw[at] < row["keep_prob"][at])
            assert 0 <= row["tfidf"][at] <= 1
            assert row["pos"][at] in (0, 1)
            assert row["dep"][at] in (0, 1)
        chances += [p for p, may in zip(row["keep_prob"], free, strict=True) if may]
    if told["target_keep_rate"] is not None:
        assert np.mean(chances) == pytest.approx(told["target_keep_rate"], abs=1e-6)


@pytest.mark.parametrize(
    ("counter", "key", "word"),
    [  # the authors' known answers (Random123, kat_vectors)
        ((0, 0), (0, 0), 0x6B200159),
        ((MASK, MASK), (MASK, MASK), 0x1CB996FC),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), 0xC4923A9C),
    ],
)
def test_threefry_as_it_is_written_here(counter, key, word):
    assert threefry(key, counter) == word
