"""Verdicts against what was put into the answers."""

import numpy as np
import pytest

from opengrok_jax import storage
from opengrok_jax.ablation import grid, results
from opengrok_jax.evaluation import significance

ROWS = 300
SEEDS = (0, 1, 2)


@pytest.fixture
def invented(sections, tmp_path):
    """Answers with a known share of right ones: good 0.9, twin 0.9, poor 0.6."""
    rng = np.random.default_rng(0)
    gold = ["glad" if x else "sad" for x in rng.random(ROWS) < 0.5]
    task = {"name": "mood", "instruction": "{post}", "kind": "label", "labels": ["glad", "sad"]}
    task |= {"metric": "accuracy", "words": [], "types": [], "fields": {}, "group": ""}
    items = [{"id": f"{i}", "text": f"{i}", "gold": g} for i, g in enumerate(gold)]
    floor = {"task": "mood", "predictor": "majority", "note": "", "predicted": ["glad"] * ROWS}
    other = {"task": dict(task, name="mood2"), "items": items}
    value = {"tasks": [{"task": task, "items": items}, other], "floors": [floor]}
    storage.write_json(tmp_path / "tasks" / "base.json", value)
    cells = {
        "good": {"rule": "none"},
        "twin": {"rule": "multiply"},
        "poor": {"rule": "exclude"},
    }
    question = {"ask": "Which?", "baseline": "good", "cells": cells}
    made = grid.read(sections, questions={"q": question}, seeds=SEEDS, bootstrap=400)
    share = {"good": 0.9, "twin": 0.9, "poor": 0.6}
    trainings, expected = [], {}
    for name, cell in made.questions[0].cells.items():
        for seed in SEEDS:
            row = {"cell": cell.id, "set": "base", "seed": seed, "mask": "m"}
            right = rng.random((2, ROWS)) < share[name]
            flipped = {"glad": "sad", "sad": "glad"}
            said = [
                [g if ok else flipped[g] for g, ok in zip(gold, each, strict=True)]
                for each in right
            ]
            expected[name, seed] = right.mean(axis=1)
            result = {
                "tasks": [
                    {"task": t, "predicted": p, "majority_share": 0.5}
                    for t, p in zip(("mood", "mood2"), said, strict=True)
                ],
                "figures": {"parameters": 7, "tokens": 100},
                "seconds": {"train": 2.0, "compile": 0.5, "evaluate": 1.0},
            }
            storage.write_json(results.result_file(tmp_path, row), result)
            trainings.append(row)
    storage.write_json(tmp_path / "masks" / "m" / "done.json", {"keep_rate": 0.8})
    return tmp_path, made, {"trainings": trainings, "data": [], "seconds": 9.0}, expected


def test_scores_are_the_shares_of_right_answers(invented):
    workdir, made, planned, expected = invented
    told = results.analysed(workdir, made, planned)
    for cell in told["cells"]:
        name = cell["names"]["q"]
        for number, score in enumerate(cell["scores"]):
            for seed in SEEDS:
                value = expected[name, seed][number]
                assert score["seeds"][str(seed)] == pytest.approx(value)
            assert score["low"] < score["value"] < score["high"]
    (floor,) = told["floors"]
    assert floor["value"] == pytest.approx(0.5, abs=0.1)


def test_a_worse_cell_is_below_and_a_twin_inside_the_noise(invented):
    workdir, made, planned, expected = invented
    (question,) = results.analysed(workdir, made, planned)["questions"]
    rows = {(row["cell"], row["task"]): row for row in question["rows"]}
    assert len(rows) == 9
    assert {rows[c, t]["outcome"] for c in ("good",) for t in ("mood", "all")} == {"baseline"}
    for task in ("mood", "mood2", "all"):
        assert rows["poor", task]["outcome"] == "below"
        assert "poor is below good by" in rows["poor", task]["verdict"]
        assert rows["twin", task]["outcome"] == "noise"
        assert "within the noise" in rows["twin", task]["verdict"]
    means = {n: np.mean([expected[n, s] for s in SEEDS]) for n in ("good", "poor")}
    found = rows["poor", "all"]
    assert found["difference"] == pytest.approx(means["poor"] - means["good"])
    assert found["difference_low"] < found["difference"] < found["difference_high"] < 0
    # Over two tasks the mean is known better than either.
    width = {t: rows["twin", t]["high"] - rows["twin", t]["low"] for t in ("mood", "all")}
    assert width["all"] < width["mood"]
    assert question["tests"] == 6
    given = [row["p"] for row in question["rows"] if row["p"] is not None]
    corrected = [row["p_corrected"] for row in question["rows"] if row["p"] is not None]
    assert corrected == significance.holm(given)
    assert "poor is below good" in question["answer"]
    assert "twin is inside the noise of good" in question["answer"]


def test_cost_adds_up(invented, sections):
    workdir, made, planned, _ = invented
    told = results.analysed(workdir, made, planned)
    assert told["cost"]["seconds"] == {
        "prepare": 9.0,
        "train": 18.0,
        "compile": 4.5,
        "evaluate": 9.0,
        "total": 31.5,
    }
    assert told["cost"]["tokens"] == 900
    assert told["cost"]["money"] is None
    assert [cell["seconds"]["total"] for cell in told["cells"]] == [10.5] * 3
    kept = {cell["names"]["q"]: cell["kept"] for cell in told["cells"]}
    assert kept == {"good": {}, "twin": {"base": 0.8}, "poor": {"base": 0.8}}
