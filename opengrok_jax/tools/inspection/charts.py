"""The pictures of the statistics, in the style of the report's."""

from __future__ import annotations

import numpy as np

from opengrok_jax.evaluation.charts import BLUE, FAINT, INK, ORANGE, canvas, inline_svg
from opengrok_jax.tools.inspection.stats import Curve, Stats

XLABEL = {
    "tfidf": "TF-IDF of the word, 0 to 1",
    "pos": "part of speech: 0 = other, 1 = content word",
    "dep": "dependency: 0 = other, 1 = end of a chosen relation",
    "random": "the formula's chance factor, 0 to 1",
    "keep_prob": "stored keep_prob",
}


def keep_rate(curve: Curve, label: str) -> str:
    """Visible share (dots) and mean keep_prob (line) over the values; bars: how many tokens.

    Args:
      curve: with at least one bin.
      label: read aloud.
    """
    figure, axes = canvas(7.2, 2.9)
    low, high = np.array(curve.low), np.array(curve.high)
    middle = (low + high) / 2
    middle[(low == high) & (low == 1)] += 0.02  # beside the bin below it, not on top
    width = np.where(high > low, high - low, 0.04)
    share = np.array(curve.tokens) / sum(curve.tokens)
    axes.bar(middle, share, width * 0.9, color=FAINT, alpha=0.35, linewidth=0)
    axes.plot(middle, curve.keep_prob, color=ORANGE, linewidth=1.5)
    rates = [curve.rate(n) for n in range(len(middle))]
    axes.plot(middle, rates, "o", color=BLUE, markersize=6)
    # Above the bars of 0 and 1, the line's name would stand on theirs: it goes between them.
    place = float(np.clip(0.5, middle[0], middle[-1]))
    for text, x, y, color, dy in (
        ("visible", middle[-1], rates[-1], BLUE, 8),
        ("mean keep_prob", place, np.interp(place, middle, curve.keep_prob), ORANGE, -14),
        ("share of tokens", middle[int(share.argmax())], share.max(), INK, 4),
    ):
        axes.annotate(
            text, (x, y), xytext=(0, dy), textcoords="offset points", color=color,
            ha="right" if x > 0.85 else "left" if x < 0.15 else "center", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(-0.04, 1.05)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel(XLABEL[curve.name], color=INK)
    return inline_svg(figure, label)


def lengths(stats: Stats, label: str) -> str:
    """How many examples have how many tokens."""
    figure, axes = canvas(7.2, 2.2)
    edges = np.array(stats.length_edges)
    axes.bar(
        edges[:-1],
        stats.length_counts,
        np.diff(edges) * 0.92,
        align="edge",
        color=BLUE,
        linewidth=0,
    )
    axes.set_xlabel("tokens of an example", color=INK)
    axes.set_ylabel("examples", color=INK)
    return inline_svg(figure, label)
