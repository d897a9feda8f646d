"""TweetEval's script, its few lines written anew, on the files that we write."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import classification_report

from opengrok_jax.errors import DataError
from opengrok_jax.evaluation import metrics
from opengrok_jax.evaluation.answers import Prediction, predicting
from opengrok_jax.evaluation.tasks import Item, Task, known, load_items, make_task
from opengrok_jax.evaluation.tasks.tweeteval_stance import TARGETS
from opengrok_jax.evaluation.tweeteval_export import export

NAMES = ("emoji", "emotion", "hate", "irony", "offensive", "sentiment", "stance")
CHOSEN = {
    **dict.fromkeys(
        ("emoji", "emotion", "hate", "offensive"), lambda r: r["macro avg"]["f1-score"]
    ),
    "irony": lambda r: r["1"]["f1-score"],
    "sentiment": lambda r: r["macro avg"]["recall"],
    "stance": lambda r: (r["1"]["f1-score"] + r["2"]["f1-score"]) / 2,
}


def lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1]


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, of labels that nobody answered
def official(folder: Path, name: str, gold: list[str]) -> float:
    paths = (
        [folder / "stance" / f"{t}.txt" for t in TARGETS]
        if name == "stance"
        else [folder / f"{name}.txt"]
    )
    pred = [line for path in paths for line in lines(path)]
    report: Any = classification_report(gold, pred, output_dict=True)
    return CHOSEN[name](report)


def answered(task: Task, items: list[Item], seed: int) -> list[Prediction]:
    """Half right, half at random, one in ten unreadable."""
    random, found = np.random.default_rng(seed), []
    for item in items:
        chance, other = random.random(), task.labels[random.integers(len(task.labels))]
        said = None if chance < 0.1 else item.gold if chance < 0.55 else other
        found.append(predicting(item, said))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_official_script_gives_our_number(tmp_path: Path, name: str) -> None:
    task = known(f"tweeteval-{name}")
    assert task is not None
    random = np.random.default_rng(1)
    groups = [*TARGETS] if name == "stance" else [""]
    items = [
        Item(id=f"{g}{n}", text="x", gold=task.labels[random.integers(len(task.labels))], group=g)
        for g in groups
        for n in range(120)
    ]
    found = answered(task, items, 2)
    paths = export(tmp_path, task, items, found)
    assert len(paths) == len(groups)
    gold = [str(task.labels.index(str(item.gold))) for item in items]
    ours = metrics.value(metrics.scorer(task, task.metric, found), len(items))
    assert official(tmp_path, name, gold) == pytest.approx(ours, abs=1e-12)


@pytest.mark.parametrize("name", ["emotion", "offensive", "sentiment"])
def test_on_the_real_test_sets(shared_data: Path, tmp_path: Path, name: str) -> None:
    task = make_task(f"tweeteval-{name}", {}, str(shared_data))
    items = [*load_items(task)]
    found = answered(task, items, 3)
    export(tmp_path, task, items, found)
    gold = [str(task.labels.index(str(item.gold))) for item in items]
    ours = metrics.value(metrics.scorer(task, task.metric, found), len(items))
    assert official(tmp_path, name, gold) == pytest.approx(ours, abs=1e-12)


def test_stance_without_its_target_is_refused(tmp_path: Path) -> None:
    task = known("tweeteval-stance")
    assert task is not None
    items = [Item(id="1", text="x", gold="none")]
    with pytest.raises(DataError, match="without their target"):
        export(tmp_path, task, items, answered(task, items, 0))
