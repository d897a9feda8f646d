"""Charts as inline SVG that follows the page's colours.

matplotlib draws with placeholder colours; they are replaced by CSS variables, so that one picture
serves a light and a dark page. Text stays text: it can be selected, searched and read aloud.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opengrok_jax.errors import needs_extra
from opengrok_jax.evaluation.calibration import Calibration
from opengrok_jax.evaluation.outcomes import spelled
from opengrok_jax.records import Score

# Placeholder -> CSS variable of the page (Okabe-Ito for the categories).
INK, FAINT, BLUE, ORANGE, GREEN = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
}


def canvas(width: float, height: float, font: int = 10) -> tuple[Any, Any]:
    """A figure and its axes in the page's style, `width` x `height` inches, text of `font` points.

    A page shrinks a figure to its width: 5 inches and 12 points can be read on a telephone.
    """
    with needs_extra("evaluate"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
    # Text as text, and ids that do not change from run to run.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "opengrok", "font.size": font})
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, length=3)
    return figure, axes


def inline_svg(figure: Any, label: str) -> str:
    """The figure as an <svg> element that scales with the page; `label` is read aloud."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font: \1px var(--sans)", text)
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, variable)
    safe = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{safe}"', 1)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value on its interval; `low` = `high` = `value` where there is none."""

    value: float
    low: float
    high: float
    color: str = FAINT
    marker: str = "o"


def forest(rows: Sequence[tuple[str, Sequence[Mark]]], xlabel: str, label: str) -> str:
    """For each row its name and below it its marks, each on its 95 % interval.

    Args:
      rows: (name, marks), from top to bottom.
      label: read aloud.
    """
    tracks = sum(len(marks) for _, marks in rows)
    figure, axes = canvas(4.9, 0.6 + 0.28 * len(rows) + 0.23 * tracks, font=12)
    y, least = 0.0, min([0.0, *(mark.low for _, marks in rows for mark in marks)])
    most = max([1.0, *(mark.high for _, marks in rows for mark in marks)])
    for name, marks in rows:
        axes.annotate(
            name, (least, y), xytext=(2, 0), textcoords="offset points", color=INK, va="center"
        )
        for mark in marks:
            y -= 1
            axes.plot([mark.low, mark.high], [y, y], color=mark.color, linewidth=3, clip_on=False)
            axes.plot([mark.value], [y], mark.marker, color=mark.color, markersize=7, clip_on=False)
            axes.annotate(
                f"{mark.value:.3f}", (mark.high, y), xytext=(7, 0), textcoords="offset points",
                color=INK, va="center", annotation_clip=False,
            )  # fmt: skip
        y -= 1.25
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(least, most)
    axes.set_ylim(y + 0.5, 0.7)
    axes.set_xlabel(xlabel, color=INK)
    return inline_svg(figure, label)


def differences(rows: Sequence[Mapping[str, Any]], baseline: str, label: str) -> str:
    """For each cell of an ablation's question its name, and below it its distance to the baseline.

    A filled mark lies outside the noise, a hollow one inside: colour tells nothing alone.

    Args:
      rows: of a question of ablation.json.
      baseline: name of the cell that the others are held against.
      label: read aloud.
    """
    compared = [row for row in rows if row["difference"] is not None]
    cells = list(dict.fromkeys(row["cell"] for row in compared))
    figure, axes = canvas(4.9, 0.7 + 0.3 * len(cells) + 0.23 * len(compared), font=12)
    colours = {"above": BLUE, "below": ORANGE}
    ends = [100 * row[key] for row in compared for key in ("difference_low", "difference_high")]
    least, most = min([-1.0, *ends]), max([1.0, *ends])
    axes.axvline(0, color=FAINT, linewidth=1)
    y = 0.0
    for cell in cells:
        axes.annotate(
            cell, (least, y), xytext=(2, 0), textcoords="offset points", color=INK, va="center"
        )
        for row in (row for row in compared if row["cell"] == cell):
            y -= 1
            low, value, high = (
                100 * row[key] for key in ("difference_low", "difference", "difference_high")
            )
            colour = colours.get(row["outcome"], FAINT)
            axes.plot([low, high], [y, y], color=colour, linewidth=2.5, clip_on=False)
            axes.plot(
                [value], [y], "o" if row["set"] else "D", color=colour, markersize=7,
                fillstyle="full" if row["outcome"] in colours else "none", clip_on=False,
            )  # fmt: skip
            axes.annotate(
                f"{row['task']} {value:+.1f}", (most, y), xytext=(9, 0),
                textcoords="offset points", color=INK, va="center", annotation_clip=False,
                fontsize=10,
            )  # fmt: skip
        y -= 1.3
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(least, most)
    axes.set_ylim(y + 0.5, 0.7)
    axes.set_xlabel(f"points against {baseline}", color=INK)
    return inline_svg(figure, label)


def reliability(curves: Sequence[tuple[str, Calibration]], label: str) -> str:
    """Accuracy against confidence, a curve a predictor; a dot's area grows with its posts.

    Args:
      curves: (predictor, calibration); at most three, told apart by colour, marker and line.
      label: read aloud.
    """
    figure, axes = canvas(4.9, 4.0 + 0.24 * len(curves), font=12)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":")
    styles = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."))
    for (name, one), (color, marker, line) in zip(curves, styles, strict=False):
        x, y = [b.confidence for b in one.bins], [b.accuracy for b in one.bins]
        axes.plot(
            x, y, color=color, linewidth=1.5, linestyle=line, label=f"{name}, ECE {one.ece:.3f}"
        )
        areas = [12 + 160 * b.posts / one.posts for b in one.bins]
        axes.scatter(x, y, areas, color=color, marker=marker, zorder=3)
    figure.legend(
        loc="outside upper left", frameon=False, labelcolor=INK, fontsize=11, handlelength=2.6
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("probability given to the answer", color=INK)
    axes.set_ylabel("share that is right", color=INK)
    return inline_svg(figure, label)


def loss_curves(
    steps: Sequence[int],
    train: Sequence[float],
    valid: Sequence[tuple[int, float]],
    best_step: int,
    stopped_early: bool,
    of: str,
) -> str:
    """Training and validation loss over the steps, the kept step marked.

    Args:
      steps, train: one training loss a step.
      valid: (step, validation loss) of each evaluation.
      best_step: the step whose parameters were kept.
      stopped_early: whether training ended because validation no longer improved.
      of: what the loss is the mean over, in the singular.
    """
    figure, axes = canvas(4.9, 3.2, font=12)
    axes.plot(steps, train, color=FAINT, linewidth=0.8, alpha=0.7)
    if steps:
        axes.annotate(
            "training", (steps[-1], train[-1]), xytext=(4, 0), textcoords="offset points",
            color=INK, va="center", annotation_clip=False,
        )  # fmt: skip
    if valid:
        at, values = zip(*valid, strict=True)
        axes.plot(at, values, color=BLUE, linewidth=2, marker="o", markersize=4)
        axes.annotate(
            "validation", (at[-1], values[-1]), xytext=(4, 0), textcoords="offset points",
            color=BLUE, va="center", annotation_clip=False,
        )  # fmt: skip
        best = dict(valid).get(best_step)
        if best is not None:
            axes.plot([best_step], [best], "o", color=ORANGE, markersize=9, zorder=5)
            axes.axvline(best_step, color=ORANGE, linewidth=1, linestyle=":")
            axes.annotate(
                f"kept: step {best_step}, loss {best:.2f}", (best_step, 1.02),
                xycoords=("data", "axes fraction"), color=ORANGE, ha="center",
            )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step" + (", stopped early" if stopped_early else ""), color=INK)
    axes.set_ylabel(f"loss per {of} (nats)", color=INK)
    return inline_svg(figure, f"Loss curves; the parameters of step {best_step} were kept.")


def intervals(scores: Sequence[Score]) -> str:
    """One line a predictor: the score as a dot on its 95 % interval; the student in colour."""
    said = "; ".join(f"{s.predictor} {s.value:.3f} ({s.low:.3f} to {s.high:.3f})" for s in scores)
    return forest(
        [
            (
                s.predictor,
                [
                    Mark(
                        value=s.value,
                        low=s.low,
                        high=s.high,
                        color=BLUE if s.predictor.startswith("student") else FAINT,
                        marker="o" if s.predictor.startswith("student") else "s",
                    )
                ],
            )
            for s in scores
        ],
        spelled(scores[0].metric),
        f"{scores[0].task}: {said}",
    )
