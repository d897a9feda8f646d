import dataclasses
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import chance, masked_file
from opengrok_jax.masking import draw, factors, keep
from opengrok_jax.masking.factors import FactorBlock
from opengrok_jax.masking.keep import Weights

WEIGHTS = Weights(alpha=1.0, beta=0.5, gamma=-0.5, delta=2.0, bias=-1.0)


def made(lengths, seed=0) -> FactorBlock:
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    flags = lambda high, kind: rng.integers(0, high, total).astype(kind)  # noqa: E731
    return FactorBlock(
        ids=[f"{seed}-{n}" for n in range(len(lengths))],
        labels=[["", "joy", "anger"][n % 3] for n in range(len(lengths))],
        splits=np.arange(len(lengths), dtype=np.int8) % 2,
        lengths=np.array(lengths, np.int32),
        tokens=flags(99, np.int32),
        roles=flags(3, np.int8),
        tfidf=rng.random(total, np.float32),
        pos=flags(2, np.uint8),
        dep=flags(2, np.uint8),
        upos=flags(len(factors.UPOS_NAMES), np.uint8),
    )


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def test_the_mask_is_u_below_the_formula():
    block = made([5, 1, 9])
    columns = draw.masked(block, WEIGHTS, "prompt", 4)
    assert {n: v.dtype for n, v in columns.items()} == masked_file.COLUMNS
    at = 0
    for name, length in zip(block.ids, block.lengths, strict=True):
        lengths = np.array([length])
        u, random = (chance.of_tokens(4, [name], what, lengths) for what in ("draw", "random"))
        for t in range(length):
            total = float(block.tfidf[at]) + 0.5 * block.pos[at] - 0.5 * block.dep[at]
            total += 2.0 * float(random[t]) - 1.0
            may = block.roles[at] == 1 and 0 < t < length - 1
            expected = 1 / (1 + np.exp(-total)) if may else 1.0
            assert columns["keep_prob"][at] == pytest.approx(expected, rel=1e-6)
            assert columns["key_mask"][at] == (u[t] < columns["keep_prob"][at])
            at += 1


@given(LENGTHS, st.data())
def test_rows_cut_a_block(lengths, data):
    block = made(lengths)
    cut = data.draw(st.integers(0, len(lengths)))
    pieces = [draw.rows(block, 0, cut), draw.rows(block, cut, len(lengths))]
    for field in dataclasses.fields(block):
        again = np.concatenate([getattr(piece, field.name) for piece in pieces])
        np.testing.assert_array_equal(again, getattr(block, field.name))


@given(LENGTHS, st.data())
def test_counts_of_parts_add_up_to_those_of_the_whole(lengths, data):
    block = made(lengths)
    cut = data.draw(st.integers(0, len(lengths)))
    parts = [draw.rows(block, 0, cut), draw.rows(block, cut, len(lengths))]
    told = [draw.counts(p, draw.masked(p, WEIGHTS, "prompt", 1), "prompt") for p in parts]
    whole = draw.counts(block, draw.masked(block, WEIGHTS, "prompt", 1), "prompt")
    assert reduce(draw.added, told) == whole


def test_the_summary_is_what_one_counts_by_hand():
    block = made([30, 20, 25, 40])
    columns = draw.masked(block, WEIGHTS, "prompt+response", 1)
    told = draw.summary(draw.counts(block, columns, "prompt+response"))
    free = keep.maskable(block.roles, "prompt+response", block.lengths)
    seen, prob = columns["key_mask"], columns["keep_prob"].astype(np.float64)

    def expected(here):
        rate, mean = float(seen[here].mean()), float(prob[here].mean())
        return {
            "tokens": int(here.sum()),
            "keep_rate": rate,
            "keep_prob": pytest.approx(mean, abs=1e-9),
        }

    everywhere = expected(free)
    assert told["maskable_tokens"] == everywhere["tokens"]
    assert told["keep_rate"] == everywhere["keep_rate"]
    assert told["keep_prob"] == everywhere["keep_prob"]
    assert told["by_role"]["response"] == expected(block.roles == 2)
    for tag, row in told["by_upos"].items():
        assert row == expected(free & (block.upos == factors.UPOS_NAMES.index(tag)))
    label_of = np.repeat(np.array(block.labels), block.lengths)
    assert told["by_label"].keys() == {"joy", "anger"}
    for label, row in told["by_label"].items():
        assert row == expected(free & (label_of == label))


def test_many_labels_are_told_together():
    block = dataclasses.replace(made([4] * 150), labels=[f"l{n:03d}" for n in range(150)])
    told = draw.summary(draw.counts(block, draw.masked(block, WEIGHTS, "prompt", 1), "prompt"))
    assert len(told["by_label"]) == draw.MOST_LABELS + 1
    total = sum(row["tokens"] for row in told["by_label"].values())
    assert total == told["maskable_tokens"]


def test_sums_of_blocks_are_those_of_all_tokens(tmp_path):
    blocks = [made([9, 8], seed) for seed in range(3)]
    paths = []
    for at, block in enumerate(blocks):
        paths.append(str(tmp_path / f"{at}.npz"))
        factors.save(tmp_path / f"{at}.npz", block)
    found = draw.sums(paths, WEIGHTS, "prompt", 5)
    flat = []
    for block in blocks:
        free = keep.maskable(block.roles, "prompt", block.lengths)
        flat.append(draw.logits(block, WEIGHTS, factors.random_factor(5, block))[free])
    expected = keep.sums_of(np.concatenate(flat), WEIGHTS)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.residuals, expected.residuals)
