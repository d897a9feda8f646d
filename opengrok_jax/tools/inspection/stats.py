"""What the mask keeps, against each factor; over all examples or over an even sample of them.

Only counts are kept, so the memory does not grow with the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax.masking import keep
from opengrok_jax.progress import track
from opengrok_jax.tokenizer import ROLES
from opengrok_jax.tools.inspection import reading
from opengrok_jax.tools.inspection.tokens import FACTORS

BINS = 10
LENGTH_BINS = 16


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Tokens that may be hidden, by the value of something in [0,1].

    Attributes:
      name: of a factor, or "keep_prob".
      low, high: edges of each bin; equal where the bin is one value.
      tokens: how many.
      visible: how many of them are.
      keep_prob: their mean.
    """

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    tokens: tuple[int, ...]
    visible: tuple[int, ...]
    keep_prob: tuple[float, ...]

    def rate(self, bin_: int) -> float:
        """Share of the tokens of a bin that is visible."""
        return self.visible[bin_] / self.tokens[bin_]


@dataclass(frozen=True, kw_only=True)
class Role:
    """The tokens of a role, how many are visible, and how many may be hidden."""

    name: str
    tokens: int
    visible: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What was counted.

    Attributes:
      examples, of: how many were read, and how many there are.
      curves: of tfidf, pos, dep, random and keep_prob.
      roles: of template, prompt and response.
      length_edges, length_counts: how many examples have from one edge to the next, exclusively,
        tokens.
      median_tokens: of an example, from these counts.
    """

    examples: int
    of: int
    curves: tuple[Curve, ...]
    roles: tuple[Role, ...]
    length_edges: tuple[int, ...]
    length_counts: tuple[int, ...]
    median_tokens: int


def count(path: Path, made_with: dict[str, Any], sample: int) -> Stats:
    """Counts.

    Args:
      path: folder of the masked examples.
      made_with: its provenance.
      sample: examples to read at most, from places spread evenly; 0 = all.
    """
    total = reading.count(path)
    wanted = np.arange(total)
    if sample and total > sample:
        wanted = _stretches(total, sample)
    sums = {name: np.zeros((3, BINS + 1)) for name in (*FACTORS.values(), "keep_prob")}
    roles = np.zeros((len(ROLES), 3), np.int64)
    sizes: list[np.ndarray] = []
    with track("inspect", total=len(wanted), unit="examples") as advance:
        for _, here, read in reading.groups(path, wanted):
            table = read()
            table = table if len(here) == len(table) else table.take(here)
            _add(table.combine_chunks().to_batches(), made_with["scope"], sums, roles, sizes)
            advance(len(here))
    lengths = np.concatenate([np.zeros(0, np.int64), *sizes])
    edges = _edges(lengths)
    return Stats(
        examples=len(lengths),
        of=total,
        curves=tuple(_curve(name, values) for name, values in sums.items()),
        roles=tuple(
            Role(name=name, tokens=int(t), visible=int(v), free=int(f))
            for name, (t, v, f) in zip(ROLES, roles, strict=True)
        ),
        length_edges=tuple(edges.tolist()),
        length_counts=tuple(np.histogram(lengths, edges)[0].tolist()),
        median_tokens=int(np.median(lengths)) if len(lengths) else 0,
    )


def _stretches(total: int, sample: int) -> np.ndarray:
    """About `sample` places in 64 stretches, spread evenly over 0 to total - 1.

    A place costs its whole row group, its neighbours in the group nothing.
    """
    stretch = max(sample // 64, 1)
    starts = np.linspace(0, total - stretch, max(sample // stretch, 1)).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(stretch))


def _add(
    batches: Any,
    scope: str,
    sums: dict[str, np.ndarray],
    roles: np.ndarray,
    sizes: list[np.ndarray],
) -> None:
    for batch in batches:
        flat = {
            name: batch.column(name).flatten().to_numpy(zero_copy_only=False)
            for name in ("roles", "key_mask", *sums)
        }
        lengths = np.diff(batch.column("tokens").offsets.to_numpy()).astype(np.int64)
        sizes.append(lengths)
        free = keep.maskable(flat["roles"], scope, lengths)
        for role in range(len(ROLES)):
            mine = flat["roles"] == role
            roles[role] += (mine.sum(), flat["key_mask"][mine].sum(), (mine & free).sum())
        for name, into in sums.items():
            at = np.minimum((flat[name][free] * BINS).astype(np.int64), BINS)
            for row, weight in enumerate(
                (np.ones(len(at)), flat["key_mask"][free], flat["keep_prob"][free])
            ):
                into[row] += np.bincount(at, weight.astype(np.float64), BINS + 1)


def _curve(name: str, sums: np.ndarray) -> Curve:
    """Bins [0,.1) to [.9,1) and the value 1 by itself; pos and dep have two values alone."""
    low = np.append(np.arange(BINS) / BINS, 1.0)
    high = np.append(np.arange(1, BINS + 1) / BINS, 1.0)
    if name in ("pos", "dep"):
        high[0] = 0.0
    there = sums[0] > 0
    return Curve(
        name=name,
        low=tuple(low[there].tolist()),
        high=tuple(high[there].tolist()),
        tokens=tuple(sums[0][there].astype(int).tolist()),
        visible=tuple(sums[1][there].astype(int).tolist()),
        keep_prob=tuple((sums[2][there] / sums[0][there]).tolist()),
    )


def _edges(lengths: np.ndarray) -> np.ndarray:
    longest = int(lengths.max(initial=1))
    width = max(-(-(longest + 1) // LENGTH_BINS), 1)
    return np.arange(0, longest + 1 + width, width)


def sentences(stats: Stats) -> dict[str, str]:
    """What is to be seen in each picture, in words and numbers."""
    said = {"length": f"Half of the examples have {stats.median_tokens} tokens or fewer."}
    for curve in stats.curves:
        if not curve.tokens:
            said[curve.name] = "No token may be hidden in this scope."
        elif curve.name == "keep_prob":
            tokens, kept = sum(curve.tokens), sum(curve.visible)
            expected = np.average(curve.keep_prob, weights=curve.tokens)
            said[curve.name] = (
                f"{100 * kept / tokens:.1f} % of the {tokens:,} tokens that may be hidden are "
                f"visible; their mean keep_prob is {100 * expected:.1f} %. Dots on the line: as "
                "many are drawn as the probability says."
            )
        else:
            said[curve.name] = _rises(curve)
    return said


WHAT = {
    "tfidf": ("words of high TF-IDF", "words of low TF-IDF"),
    "pos": ("content words", "other words"),
    "dep": ("subjects, objects, roots and their heads", "other words"),
    "random": ("tokens with a high chance factor", "tokens with a low one"),
}


def _rises(curve: Curve) -> str:
    high, low = WHAT[curve.name]
    if len(curve.tokens) == 1:
        return f"Every token has the same value, {curve.low[0]:.1f}: this factor tells nothing."
    first, last = curve.rate(0), curve.rate(-1)
    change = "more often than" if last > first else "less often than"
    return (
        f"{high[0].upper()}{high[1:]} (rightmost, {curve.tokens[-1]:,} tokens) are visible in "
        f"{100 * last:.1f} %, {change} {low} (leftmost, {curve.tokens[0]:,} tokens) in "
        f"{100 * first:.1f} %."
    )
