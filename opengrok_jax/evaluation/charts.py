"""Charts as inline SVG that follows the page's colours.

matplotlib draws with placeholder colours; they are replaced by CSS variables, so that one picture
serves a light and a dark page. Text stays text: it can be selected, searched and read aloud.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from opengrok_jax.errors import needs_extra
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


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure and its axes in the page's style, `width` x `height` inches."""
    with needs_extra("evaluate"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
    # Text as text, and ids that do not change from run to run.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "opengrok", "font.size": 10})
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
    figure, axes = canvas(7.2, 3.2)
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
            axes.annotate(
                f"kept: step {best_step}, loss {best:.2f}",
                (best_step, best), xytext=(0, 12), textcoords="offset points",
                color=ORANGE, ha="center",
            )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step" + (", stopped early" if stopped_early else ""), color=INK)
    axes.set_ylabel(f"loss per {of} (nats)", color=INK)
    return inline_svg(figure, f"Loss curves; the parameters of step {best_step} were kept.")


def intervals(scores: Sequence[Score]) -> str:
    """One line a predictor: the score as a dot on its 95 % interval; the student in colour."""
    figure, axes = canvas(7.2, 0.75 + 0.36 * len(scores))
    names = [score.predictor for score in scores]
    for row, score in enumerate(scores):
        color = BLUE if score.predictor.startswith("student") else FAINT
        y = len(scores) - 1 - row
        axes.plot([score.low, score.high], [y, y], color=color, linewidth=3)
        axes.plot([score.value], [y], "o", color=color, markersize=7)
        axes.annotate(
            f"{score.value:.3f}", (score.high, y), xytext=(6, 0), textcoords="offset points",
            color=INK, va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(scores)), names[::-1])
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(scores) - 0.4)
    axes.set_xlabel(scores[0].metric.replace("_", " "), color=INK)
    said = "; ".join(f"{s.predictor} {s.value:.3f} ({s.low:.3f} to {s.high:.3f})" for s in scores)
    return inline_svg(figure, f"{scores[0].task}: {said}")
