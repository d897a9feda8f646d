"""From factors to masks: the sums for the calibration, the parts on disk, and what is kept.

Needs no annotator and no tokenizer. What is counted is whole numbers, keep_prob in units of 2**-32,
so that any split of the corpus adds up to the same report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import chance, masked_file, storage
from opengrok_jax.masking import factors, keep
from opengrok_jax.masking.factors import UPOS_NAMES, FactorBlock
from opengrok_jax.masking.keep import Sums, Weights
from opengrok_jax.tokenizer import ROLES

UNITS = 1 << 32  # of keep_prob, where it is added up
MOST_LABELS = 100  # label classes that are reported one by one

Counts = dict[str, Any]


def sums(paths: Sequence[str], weights: Weights, scope: str, seed: int) -> Sums:
    """In a worker: the logits of the tokens of some blocks that may be hidden."""
    return reduce(Sums.__add__, (_sums(factors.load(Path(p)), weights, scope, seed) for p in paths))


def _sums(block: FactorBlock, weights: Weights, scope: str, seed: int) -> Sums:
    free = keep.maskable(block.roles, scope, block.lengths)
    return keep.sums_of(logits(block, weights, factors.random_factor(seed, block))[free], weights)


def logits(block: FactorBlock, weights: Weights, random: np.ndarray) -> np.ndarray:
    """The weighted sum of the factors of a block; float64 [T]."""
    return keep.logits(block.tfidf, block.pos, block.dep, random, weights)


def masked(block: FactorBlock, weights: Weights, scope: str, seed: int) -> dict[str, np.ndarray]:
    """The columns of `masked_file.COLUMNS` for a block; `weights` hold the bias to use."""
    random = factors.random_factor(seed, block)
    free = keep.maskable(block.roles, scope, block.lengths)
    keep_prob = keep.keep_prob(logits(block, weights, random), weights.bias, free)
    u = chance.of_tokens(seed, block.ids, "draw", block.lengths)
    return {
        "tokens": block.tokens,
        "roles": block.roles,
        "tfidf": block.tfidf,
        "pos": block.pos.astype(np.float32),
        "dep": block.dep.astype(np.float32),
        "random": random,
        "keep_prob": keep_prob,
        "key_mask": u < keep_prob,
    }


def rows(block: FactorBlock, low: int, high: int) -> FactorBlock:
    """The examples low to high - 1 of a block."""
    ends = np.concatenate([[0], np.cumsum(block.lengths)])
    tokens = slice(int(ends[low]), int(ends[high]))
    of_examples = {n: getattr(block, n)[low:high] for n in ("ids", "labels", "splits", "lengths")}
    of_tokens = {
        n: getattr(block, n)[tokens] for n in ("tokens", "roles", "tfidf", "pos", "dep", "upos")
    }
    return FactorBlock(**of_examples, **of_tokens)


def write_part(
    folder: str,
    number: int,
    pieces: Sequence[tuple[str, int, int]],
    weights: Weights,
    scope: str,
    seed: int,
    provenance: Mapping[str, Any],
    told: str,
) -> tuple[int, dict[str, Any]]:
    """In a worker: draws and writes one part.

    Args:
      folder, number, provenance: as in `masked_file.write_part`.
      pieces: the examples low to high - 1 of each block's file.
      weights: with the bias to use.
      scope, seed: as in `build.run`.
      told: a file for what is answered, which says that the part is done.

    Returns:
      The number, and {"note", "counts"}: what the manifest notes and what is kept.
    """
    # A block at a time: what a draw needs is several times what it leaves.
    blocks = [rows(factors.load(Path(path)), low, high) for path, low, high in pieces]
    drawn = [masked(block, weights, scope, seed) for block in blocks]
    kept = [counts(*both, scope) for both in zip(blocks, drawn, strict=True)]
    note = masked_file.write_part(
        Path(folder),
        number,
        ids=[name for block in blocks for name in block.ids],
        splits=[masked_file.SPLITS[at] for block in blocks for at in block.splits],
        lengths=np.concatenate([block.lengths for block in blocks]),
        columns={
            name: np.concatenate([columns[name] for columns in drawn])
            for name in masked_file.COLUMNS
        },
        provenance=provenance,
    )
    answer = {"note": note, "counts": reduce(added, kept)}
    storage.write_json(Path(told), answer)
    return number, answer


# ---- what is kept -------------------------------------------------------------------------------


def counts(block: FactorBlock, columns: Mapping[str, np.ndarray], scope: str) -> Counts:
    """What a mask keeps, in whole numbers that can be added up.

    Returns:
      examples, tokens, visible; and [tokens, visible, keep_prob in `UNITS`] of the tokens that may
      be hidden, of each role (all its tokens), of each part of speech and each label (of the
      tokens that may be hidden).
    """
    free = keep.maskable(block.roles, scope, block.lengths)
    seen = columns["key_mask"]
    units = np.rint(columns["keep_prob"].astype(np.float64) * UNITS).astype(np.int64)
    by_role = {name: _three(block.roles == role, seen, units) for role, name in enumerate(ROLES)}
    by_upos = {
        UPOS_NAMES[tag]: _three(free & (block.upos == tag), seen, units)
        for tag in np.unique(block.upos[free]).tolist()
    }
    by_label: dict[str, list[int]] = {}
    ends = np.cumsum(block.lengths).tolist()
    before = [0, *ends]
    totals = [np.concatenate([[0], np.cumsum(x)]) for x in (free, free & seen, units * free)]
    for at, label in enumerate(block.labels):
        if label:
            have = by_label.setdefault(label, [0, 0, 0])
            for slot, total in enumerate(totals):
                have[slot] += int(total[ends[at]] - total[before[at]])
    return {
        "examples": len(block.ids),
        "tokens": len(block.tokens),
        "visible": int(seen.sum()),
        "free": _three(free, seen, units),
        "by_role": by_role,
        "by_upos": by_upos,
        "by_label": by_label,
    }


def _three(here: np.ndarray, seen: np.ndarray, units: np.ndarray) -> list[int]:
    return [int(here.sum()), int((here & seen).sum()), int(units[here].sum())]


def added(one: Any, other: Any) -> Any:
    """Two `counts` as one."""
    if isinstance(one, Mapping):
        names = dict.fromkeys([*one, *other])
        return {
            name: added(one[name], other[name])
            if name in one and name in other
            else one.get(name, other.get(name))
            for name in names
        }
    if isinstance(one, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    return one + other


def summary(total: Counts) -> dict[str, Any]:
    """What the mask keeps, for the reader.

    Returns:
      examples, tokens: how many; mean_tokens per example.
      maskable_tokens: how many tokens may be hidden in this scope.
      keep_prob: its mean over those; None where there is none.
      keep_rate: the share of them that is visible; None where there is none.
      keep_rate_of_all: the share of all tokens that is visible.
      by_role, by_upos, by_label: {"tokens", "keep_rate", "keep_prob"} of each role over all
        tokens, and of each part of speech and of each label over the tokens that may be hidden;
        labels beyond the `MOST_LABELS` with most tokens are "(others)", examples without a label
        in none.
    """
    free = _rates(total["free"])
    labels = sorted(total["by_label"].items(), key=lambda item: (-item[1][0], item[0]))
    few = dict(labels[:MOST_LABELS])
    if labels[MOST_LABELS:]:
        few["(others)"] = reduce(added, (three for _, three in labels[MOST_LABELS:]))
    return {
        "examples": total["examples"],
        "tokens": total["tokens"],
        "mean_tokens": total["tokens"] / total["examples"],
        "maskable_tokens": free["tokens"],
        "keep_prob": free["keep_prob"],
        "keep_rate": free["keep_rate"],
        "keep_rate_of_all": total["visible"] / total["tokens"],
        "by_role": {name: _rates(total["by_role"][name]) for name in ROLES},
        "by_upos": {name: _rates(total["by_upos"][name]) for name in sorted(total["by_upos"])},
        "by_label": {name: _rates(few[name]) for name in sorted(few)},
    }


def _rates(three: Sequence[int]) -> dict[str, Any]:
    tokens, visible, units = three
    return {
        "tokens": tokens,
        "keep_rate": visible / tokens if tokens else None,
        "keep_prob": units / UNITS / tokens if tokens else None,
    }
