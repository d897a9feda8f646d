"""A picture for each question: the difference to the baseline, for each cell and task.

SVG with its own light background, so that it can be read wherever it is put. A filled mark lies
outside the noise, a hollow one inside it: colour (Okabe-Ito) tells nothing alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from opengrok_jax.errors import needs_extra

INK, FAINT = "#1a1a1a", "#8a8a8a"
COLOURS = {"above": "#0072B2", "below": "#D55E00", "noise": "#5f5f5f"}
MARKS = ("o", "s", "^", "D", "v", "P")


def picture(question: Mapping[str, Any]) -> str:
    """The SVG of one question of ablation.json."""
    with needs_extra("evaluate"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
    rows = [row for row in question["rows"] if row["difference"] is not None]
    tasks = list(dict.fromkeys((row["set"], row["task"]) for row in rows))
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    step = 1.0 / (len(tasks) + 1)
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "opengrok", "font.size": 9}
    style |= {"font.family": "sans-serif"}
    with mpl.rc_context(style):
        height = 1.1 + 0.24 * len(cells) * len(tasks)
        figure = Figure(figsize=(7.2, height), layout="constrained", facecolor="white")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.8)
        for row in rows:
            task = tasks.index((row["set"], row["task"]))
            y = -cells.index(row["cell"]) - (task + 1) * step + 0.5
            colour = COLOURS[row["outcome"]]
            x, low, high = (
                100 * row[k] for k in ("difference", "difference_low", "difference_high")
            )
            axes.plot([low, high], [y, y], color=colour, linewidth=1.4, solid_capstyle="butt")
            axes.plot(
                [x],
                [y],
                marker=MARKS[task % len(MARKS)],
                markersize=6 if row["set"] else 8,
                color=colour,
                markerfacecolor="white" if row["outcome"] == "noise" else colour,
            )
            axes.annotate(
                row["task"],
                (high, y),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=INK,
                fontweight="normal" if row["set"] else "bold",
            )
        axes.set_yticks([-at for at in range(len(cells))], cells)
        axes.set_ylim(-len(cells) + 0.5, 0.5)
        for at in range(1, len(cells)):
            axes.axhline(-at + 0.5, color=FAINT, linewidth=0.4)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.22 * (high - low))  # room for the names of the tasks
        axes.set_xlabel(f"points against “{question['baseline']}”, 95 % interval")
        axes.set_title(question["ask"], loc="left", fontsize=10, color=INK)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
