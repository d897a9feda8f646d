import numpy as np

from opengrok_jax import storage
from opengrok_jax.ablation import cells
from opengrok_jax.evaluation import metrics


def test_a_result_holds_answers_that_give_its_score(finished):
    workdir, _ = finished
    row = storage.read_json(workdir / "plan.json")["trainings"][0]
    result = storage.read_json(cells.result_file(workdir, row))
    ((task, items),) = cells.read_tasks(storage.read_json(workdir / "tasks" / "base.json"))
    (answered,) = result["tasks"]
    from opengrok_jax.evaluation.answers import predicting

    found = [predicting(i, p) for i, p in zip(items, answered["predicted"], strict=True)]
    value = metrics.value(metrics.scorer(task, "macro_f1", found), len(found))
    assert answered["value"] == value
    counts = np.unique(answered["predicted"], return_counts=True)[1]
    assert answered["majority_share"] == round(counts.max() / len(found), 4)


def test_a_student_is_asked_in_two_ways_and_trained_once(finished):
    workdir, _ = finished
    rows = storage.read_json(workdir / "plan.json")["trainings"]
    results = [storage.read_json(cells.result_file(workdir, row)) for row in rows]
    shared = [r for r, row in zip(results, rows, strict=True) if r["shared"]]
    assert len(shared) == 2
    assert all(r["figures"]["tokens"] == 0 for r in shared)
    for one in shared:
        (same,) = [
            r for r in results if r["losses"] == one["losses"] and r["seed"] == one["seed"]
            and not r["shared"]
        ]  # fmt: skip
        assert same["cell"] != one["cell"]


def test_the_print_changes_with_what_it_is_made_of(finished):
    workdir, _ = finished
    row = storage.read_json(workdir / "plan.json")["trainings"][0]
    found = cells.print_of(workdir, row, "resident", "likelihood")
    assert found == cells.print_of(workdir, dict(row), "resident", "likelihood")
    slower = row | {"training": row["training"] | {"learning_rate": 1e-5}}
    others = [
        cells.print_of(workdir, slower, "resident", "likelihood"),
        cells.print_of(workdir, row, "finetune", "likelihood"),
        cells.print_of(workdir, row, "resident", "generation"),
        cells.print_of(workdir, row | {"seed": 9}, "resident", "likelihood"),
    ]
    assert len({found, *others}) == 5


def test_tasks_and_posts_come_back_as_they_were(finished):
    workdir, _ = finished
    ((task, items),) = cells.read_tasks(storage.read_json(workdir / "tasks" / "base.json"))
    assert (task.labels, task.metric) == (("glad", "sad"), "macro_f1")
    assert items[0].gold in task.labels
    assert task.ask(items[0]) == f"How is it? {items[0].text}"
