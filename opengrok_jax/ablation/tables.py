"""ablation.json as Markdown: a table for each question below its answer, the cost at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opengrok_jax.progress import duration


def markdown(told: Mapping[str, Any]) -> str:
    """The page; `told` is what ablation.json holds."""
    parts = [_head(told), _tasks(told)]
    parts += [_question(question) for question in told["questions"]]
    parts += [_cells(told), _cost(told)]
    if told["notes"]:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in told["notes"]))
    return "\n\n".join(parts) + "\n"


def _head(told: Mapping[str, Any]) -> str:
    made = told["made"]
    seeds = len(told["seeds"])
    return (
        "# Ablation\n\n"
        f"{told['config']} with {told['grid']}; {made['date']}, {made['hardware']}. "
        f"{len(told['cells'])} cells, {_count(seeds, 'seed')}, "
        f"{_count(told['cost']['trainings'], 'training')}. Scores are hundredths of the task's "
        "metric, the mean over the seeds with its 95 % interval over test posts"
        + (" and seeds" if seeds > 1 else "; of another seed one seed says nothing")
        + ". A difference is called inside the noise unless its p, corrected by Holm over all "
        "tests of the question, is below 0.05."
    )


def _tasks(told: Mapping[str, Any]) -> str:
    rows = []
    for task in told["tasks"]:
        floors = {
            f["predictor"]: _score(f)
            for f in told["floors"]
            if (f["set"], f["task"]) == (task["set"], task["task"])
        }
        of_task = [
            s
            for c in told["cells"]
            for s in c["scores"]
            if (s["set"], s["task"]) == (task["set"], task["task"])
        ]
        best = max(of_task, key=lambda s: s["value"])
        rows.append(
            [task["task"], task["metric"], f"{task['rows']:,}", *floors.values(), _score(best)]
        )
    names = list(dict.fromkeys(f["predictor"] for f in told["floors"]))
    head = ["task", "metric", "test posts", *names, "best cell (chosen after the fact)"]
    return "## Tasks and floors\n\n" + table(head, rows, right=2)


def _question(question: Mapping[str, Any]) -> str:
    rows = [
        [
            row["cell"],
            row["task"],
            _score(row),
            "" if row["difference"] is None else _difference(row),
            "" if row["p_corrected"] is None else _p(row["p_corrected"]),
            {"noise": "inside the noise", "baseline": "(baseline)"}.get(
                row["outcome"], f"**{row['outcome']}**"
            ),
        ]
        for row in question["rows"]
    ]
    head = ["cell", "task", "score", "difference", "p (Holm)", "verdict"]
    return (
        f"## {question['ask']}\n\n{question['answer']}\n\n"
        f"{table(head, rows, right=2)}\n\n"
        f"Held against: {question['baseline']}. {_count(question['tests'], 'test')} corrected "
        f"together. Picture: [{question['figure']}]({question['figure']})"
    )


def _cells(told: Mapping[str, Any]) -> str:
    rows = []
    for cell in told["cells"]:
        settings = cell["settings"]
        said = [
            f"{key} {value}"
            for key, value in settings.items()
            if key not in ("config", "inference_mask") and value is not None
        ]
        said += ["mask at inference"] if settings["inference_mask"] else []
        said += [f"config {settings['config']}"] if settings["config"] else []
        kept = ", ".join(f"{100 * v:.1f} %" for v in cell["kept"].values() if v is not None)
        money = cell["money"]
        rows.append(
            [
                cell["id"],
                ", ".join(said),
                kept,
                f"{max(s['majority_share'] for s in cell['scores']):.0%}",
                f"{cell['parameters']:,}",
                f"{cell['tokens']:,}",
                f"{cell['seconds']['total']:.0f}",
                f"{money['amount']:.2f} {money['currency']}" if money else "",
            ]
        )
    head = [
        "id",
        "settings",
        "kept",
        "commonest answer",
        "parameters",
        "tokens",
        "seconds",
        "money",
    ]
    return "## Cells and their cost\n\n" + table(head, rows, right=2)


def _cost(told: Mapping[str, Any]) -> str:
    cost = told["cost"]
    seconds = {k: duration(v) for k, v in cost["seconds"].items()}
    lines = [
        f"Preparing took {seconds['prepare']}; training {seconds['train']}, compiling "
        f"{seconds['compile']} and evaluating {seconds['evaluate']}, added up over "
        f"{told['made']['jobs']} process(es)."
    ]
    if cost["money"]:
        lines.append(f"At the price given: {cost['money']['amount']} {cost['money']['currency']}.")
    lines += [
        f"Data: {one['answers']:,} {one['data']} answers for {one['set']}."
        for one in cost["acquisition"]
    ]
    return "## Cost of the whole\n\n" + " ".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> str:
    """A Markdown table; columns from number `right` on are aligned to the right."""
    lines = [_line(head), _line(["---" if i < right else "---:" for i in range(len(head))])]
    return "\n".join(lines + [_line(row) for row in rows])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _score(row: Mapping[str, Any]) -> str:
    return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _difference(row: Mapping[str, Any]) -> str:
    low, high = 100 * row["difference_low"], 100 * row["difference_high"]
    return f"{100 * row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
