"""What an ablation found, read back for the report: ablation.json of `opengrok ablate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation import charts
from opengrok_jax.evaluation.outcomes import spelled

FILE = "ablation.json"
_WORDS = {"above": "▲ above", "below": "▼ below", "noise": "≈ inside the noise"}


def read(folder: Path) -> dict[str, Any]:
    """made (one line), questions, floors, notes, as the page shows them.

    Each question has `ask`, `answer`, `baseline`, `chart` (inline SVG) and `rows` of words: cell,
    task, metric, score, difference, p, verdict.

    Args:
      folder: the --workdir of an ablation.

    Raises:
      ConfigError: no ablation is finished there.
      DataError: its file is not what `opengrok ablate` writes.
    """
    path = folder / FILE
    if not path.exists():
        raise ConfigError(
            f"report.ablation is {str(folder)!r}, but {path} is not there: `opengrok ablate "
            f"--workdir {folder}` writes it when all its trainings are done"
        )
    told = storage.read_json(path)
    try:
        made, seeds = told["made"], len(told["seeds"])
        return {
            "made": f"{told['config']} with {told['grid']}, {_count(seeds, 'seed')}; "
            f"{made['date'][:10]}, {made['hardware']}",
            "questions": [_question(question) for question in told["questions"]],
            "floors": [
                {"task": f["task"], "predictor": f["predictor"], "score": _interval(f)}
                for f in told["floors"]
            ],
            "notes": told["notes"],
        }
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not an ablation.json of this version ({error!r}): run `opengrok ablate` "
            "with the same flags again, which trains nothing anew"
        ) from None


def _question(question: Mapping[str, Any]) -> dict[str, Any]:
    rows = question["rows"]
    outside = sum(row["outcome"] in ("above", "below") for row in rows)
    tested = sum(row["outcome"] != "baseline" for row in rows)
    said = f"{question['ask']} {outside} of {tested} differences lie outside the noise."
    return {
        "ask": question["ask"],
        "answer": question["answer"],
        "baseline": question["baseline"],
        "chart": charts.differences(rows, question["baseline"], f"{said} {question['answer']}"),
        "rows": [
            {
                "cell": row["cell"],
                "task": row["task"],
                "metric": spelled(row["metric"]),
                "score": _interval(row),
                "difference": _signed(row),
                "p": "" if row["p_corrected"] is None else _p(row["p_corrected"]),
                "verdict": _WORDS.get(row["outcome"], "baseline"),
            }
            for row in rows
        ],
    }


def _interval(row: Mapping[str, Any]) -> str:
    return f"{100 * row['value']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _signed(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    low, high = 100 * row["difference_low"], 100 * row["difference_high"]
    return f"{100 * row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
