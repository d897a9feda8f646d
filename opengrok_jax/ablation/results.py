"""From answers to verdicts: intervals over test posts and seeds, paired tests, Holm's correction.

Every cell of a task is resampled with the same draws, see `evaluation.resampling`: the comparison
is paired over the posts. The tests of a question, over all its cells and tasks, are corrected
together. Beside each task stands "all", the plain mean over the tasks: the posts of different tasks
are drawn independently, the seeds go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import storage
from opengrok_jax.ablation.cells import read_tasks, result_file
from opengrok_jax.ablation.grid import Grid, Question
from opengrok_jax.evaluation import metrics, resampling, significance
from opengrok_jax.evaluation.answers import Prediction, predicting
from opengrok_jax.evaluation.resampling import Resampled

ALL = "all"
Key = tuple[str, str]  # set, task


def analysed(workdir: Path, grid: Grid, planned: Mapping[str, Any]) -> dict[str, Any]:
    """tasks, cells, floors, questions and cost of ablation.json; see the package's docstring."""
    rows = {
        (row["cell"], row["set"], row["seed"]): storage.read_json(result_file(workdir, row))
        for row in planned["trainings"]
    }
    known: dict[Key, Any] = {}
    floors: list[dict[str, Any]] = []
    drawn: dict[tuple[str, Key], Resampled] = {}  # by cell or floor
    for name in grid.sets:
        value = storage.read_json(workdir / "tasks" / f"{name}.json")
        for number, (task, items) in enumerate(read_tasks(value)):
            key = (name, task.name)
            known[key] = task, len(items)
            systems: dict[str, list[list[Prediction]]] = {
                cell: [
                    _predictions(items, rows[cell, name, seed]["tasks"][number])
                    for seed in grid.seeds
                ]
                for cell in grid.cells()
            }
            of_task = [f for f in value["floors"] if f["task"] == task.name and f["predicted"]]
            systems |= {f["predictor"]: [_predictions(items, f)] for f in of_task}
            scorers = [[metrics.scorer(task, task.metric, run) for run in s] for s in
            systems.values()]  # fmt: skip
            found = resampling.resample(
                scorers, len(items), resamples=grid.bootstrap, seed=list(known).index(key)
            )
            drawn |= {(system, key): one for system, one in zip(systems, found, strict=True)}
            for floor in of_task:
                one = drawn[floor["predictor"], key]
                floors.append(_place(key, task) | {"predictor": floor["predictor"]} | _value(one))
    questions = [_question(q, known, drawn) for q in grid.questions]
    return {
        "tasks": [
            _place(key, task) | {"rows": count, "labels": list(task.labels)}
            for key, (task, count) in known.items()
        ],
        "cells": [_cell(workdir, grid, planned, cell, rows, known, drawn) for cell in grid.cells()],
        "floors": floors,
        "questions": questions,
        "cost": cost(grid, list(rows.values()), planned),
    }


def _predictions(items: Sequence[Any], told: Mapping[str, Any]) -> list[Prediction]:
    def plain(value: Any) -> Any:
        return tuple(plain(v) for v in value) if isinstance(value, list) else value

    return [predicting(i, plain(p)) for i, p in zip(items, told["predicted"], strict=True)]


def _place(key: Key, task: Any) -> dict[str, Any]:
    return {"set": key[0], "task": key[1], "metric": task.metric}


def _value(one: Resampled) -> dict[str, float]:
    low, high = resampling.interval(one)
    return {"value": one.value, "low": low, "high": high}


# ---- questions ----------------------------------------------------------------------------------


def _question(
    question: Question, known: Mapping[Key, Any], drawn: Mapping[tuple[str, Key], Resampled]
) -> dict[str, Any]:
    places: list[tuple[Key, str]] = [(key, task.metric) for key, (task, _) in known.items()]
    if len(places) > 1:
        places.append((("", ALL), "mean"))

    def of(cell: str, key: Key) -> Resampled:
        if key[1] != ALL or key[0]:
            return drawn[cell, key]
        each = [drawn[cell, one] for one in known]
        return Resampled(
            values=tuple(float(v) for v in np.mean([one.values for one in each], axis=0)),
            draws=np.mean([one.draws for one in each], axis=0),
        )

    base = question.cells[question.baseline].id
    rows: list[dict[str, Any]] = []
    for name, cell in question.cells.items():
        for key, metric in places:
            one = of(cell.id, key)
            row: dict[str, Any] = {"cell": name, "id": cell.id, "set": key[0], "task": key[1]}
            row |= {"metric": metric} | _value(one)
            if name == question.baseline:
                row |= dict.fromkeys(("difference", "difference_low", "difference_high", "p"))
                row |= {"p_corrected": None, "outcome": "baseline"}
                row["verdict"] = "what the others are held against"
            else:
                low, high, p = resampling.difference(one, of(base, key))
                row |= {"difference": one.value - of(base, key).value}
                row |= {"difference_low": low, "difference_high": high, "p": p}
            rows.append(row)
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, significance.holm([row["p"] for row in tested]), strict=True):
        row["p_corrected"] = p
        row["outcome"] = (
            "noise" if p >= significance.LEVEL else "above" if row["difference"] > 0 else "below"
        )
        row["verdict"] = verdict(row, question.baseline)
    return {
        "name": question.name,
        "ask": question.ask,
        "baseline": question.baseline,
        "cells": list(question.cells),
        "rows": rows,
        "tests": len(tested),
        "answer": answer(question, rows),
        "figure": f"figures/{question.name}.svg",
    }


def verdict(row: Mapping[str, Any], baseline: str) -> str:
    """The outcome of a comparison in plain words; points are hundredths of the metric."""
    return significance.verdict(
        row["cell"],
        baseline,
        row["difference"],
        row["difference_low"],
        row["difference_high"],
        row["p_corrected"],
    )


def answer(question: Question, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows of a question come to, over all tasks and in each."""
    said = []
    for name in question.cells:
        if name == question.baseline:
            continue
        of_cell = [row for row in rows if row["cell"] == name]
        alone = [row for row in of_cell if row["set"]]
        whole = next((row for row in of_cell if not row["set"]), alone[0])
        words = {
            "above": f"above {question.baseline}",
            "below": f"below {question.baseline}",
            "noise": f"inside the noise of {question.baseline}",
        }
        text = f"{name} is {words[whole['outcome']]} ({100 * whole['difference']:+.1f} points)"
        differing = [
            f"{row['outcome']} on {row['task']}" for row in alone if row["outcome"] != "noise"
        ]
        if len(alone) > 1:
            text += f"; by itself {', '.join(differing)}" if differing else "; on no task apart"
        said.append(text + ".")
    return " ".join(said)


# ---- cells and cost -----------------------------------------------------------------------------


def _cell(
    workdir: Path,
    grid: Grid,
    planned: Mapping[str, Any],
    cell: str,
    rows: Mapping[tuple[str, str, int], Mapping[str, Any]],
    known: Mapping[Key, Any],
    drawn: Mapping[tuple[str, Key], Resampled],
) -> dict[str, Any]:
    results = [rows[cell, name, seed] for name in grid.sets for seed in grid.seeds]
    settings = asdict(grid.cells()[cell])
    kept = {}
    if grid.cells()[cell].masked:
        of_cell = {r["set"]: r["mask"] for r in planned["trainings"] if r["cell"] == cell}
        kept = {
            name: storage.read_json(workdir / "masks" / mask / "done.json")["keep_rate"]
            for name, mask in of_cell.items()
        }
    scores = []
    for at, (key, (task, _)) in enumerate(known.items()):
        one = drawn[cell, key]
        number = [k for k in known if k[0] == key[0]].index(key)
        assert [*known][at] == key
        share = np.mean(
            [rows[cell, key[0], s]["tasks"][number]["majority_share"] for s in grid.seeds]
        )
        by_seed = {str(s): v for s, v in zip(grid.seeds, one.values, strict=True)}
        scores.append(
            _place(key, task)
            | _value(one)
            | {"seeds": by_seed, "majority_share": round(float(share), 4)}
        )
    seconds = _seconds(results)
    return {
        "id": cell,
        "names": {
            q.name: next(n for n, c in q.cells.items() if c.id == cell)
            for q in grid.questions
            if cell in {c.id for c in q.cells.values()}
        },
        "settings": settings,
        "kept": kept,
        "scores": scores,
        "trainings": len(results),
        "parameters": max(r["figures"]["parameters"] for r in results),
        "tokens": sum(r["figures"]["tokens"] for r in results),
        "seconds": seconds,
        "money": money(grid, seconds["total"]),
    }


def _seconds(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = ("train", "compile", "evaluate")
    found = {n: round(float(sum(r["seconds"][n] for r in results)), 2) for n in names}
    return found | {"total": round(sum(found.values()), 2)}


def money(grid: Grid, seconds: float) -> dict[str, Any] | None:
    """What so many seconds of the machine cost; None without a price."""
    if not grid.price_per_hour:
        return None
    return {
        "amount": round(grid.price_per_hour * seconds / 3600, 4),
        "currency": grid.currency,
    }


def cost(
    grid: Grid, results: Sequence[Mapping[str, Any]], planned: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole: seconds by purpose, tokens, money, and what the data took."""
    seconds = _seconds(results)
    return {
        "seconds": {"prepare": planned.get("seconds", 0.0), **seconds},
        "trainings": len(results),
        "tokens": sum(r["figures"]["tokens"] for r in results),
        "money": money(grid, seconds["total"]),
        "acquisition": [
            {
                "data": one["data"],
                "set": one["set"],
                "answers": one["answers"],
                "teacher": one["counts"].get("teacher", {}),
            }
            for one in planned["data"]
        ],
    }
