from pathlib import Path
from typing import Any

import pytest

from opengrok_jax.evaluation import ask, leaks
from opengrok_jax.evaluation.tasks import Task, load_items


def question(task: Task) -> ask.Question:
    return ask.Question(
        task=task, items=tuple(load_items(task)), leaked=leaks.Leaks(exact=(), near=())
    )


def test_the_likeliest_label_and_ties_by_the_tasks_order(mood: Task) -> None:
    (item, *_) = load_items(mood)
    assert ask.likeliest(mood, item, [-1.0, -1.0, -2.0], None).predicted == "good"
    assert ask.likeliest(mood, item, [-3.0, -2.0, -1.0], None).predicted == "bad"
    #                good  so so  bad
    # logs           -1.0   -1.5  -4.0
    # tokens            1      2     4
    # per token      -1.0  -0.75  -1.0
    found = ask.likeliest(mood, item, [-1.0, -1.5, -4.0], [1, 2, 4])
    assert found.predicted == "so so"
    assert found.scores == {"good": -1.0, "so so": -0.75, "bad": -1.0}


class Parrot:
    """A system that says the same of every post, and counts what it was asked for."""

    made_of = "a parrot"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def check(self, *_: object) -> None:
        pass

    def answers(self, prompts, max_new_tokens, record) -> None:
        self.asked += prompts
        record(range(len(prompts)), ["who is a good bird" for _ in prompts])

    def log_probs(self, prompts, labels, record) -> None:
        self.asked += prompts
        record(range(len(prompts)), [[-2.0, -1.0, -3.0] for _ in prompts])

    def label_tokens(self, labels) -> list[int]:
        return [1 for _ in labels]


def asked(parrots: list[Parrot], questions, folder: Path):
    runs: Any = tuple(lambda parrot=p: parrot for p in parrots)
    system = ask.System(
        name="parrot",
        predictors=("likelihood", "generation"),
        runs=runs,
    )
    result: dict = {"costs": {}, "padding": {}}
    return dict(ask.ask_system(system, questions, folder, 8, result)), result


@pytest.mark.parametrize("seeds", [1, 2])
def test_every_run_is_asked_once_and_then_never_again(mood, names, tmp_path, seeds) -> None:
    questions, parrots = [question(mood), question(names)], [Parrot() for _ in range(seeds)]
    found, result = asked(parrots, questions, tmp_path)
    # Five posts by likelihood and by generation, and two whose answer is no choice of a label.
    assert [len(p.asked) for p in parrots] == [5 + 5 + 2] * seeds
    words = ", mean of 2 seeds" if seeds == 2 else ""
    assert found["names"].predictor == f"parrot (generation){words}"
    assert [p.predicted for p in found["mood"].runs[0]] == [None] * 5
    assert [p.answer for p in found["names"].runs[-1]] == ["who is a good bird"] * 2
    assert result == {"costs": {}, "padding": {}}
    again = [Parrot() for _ in range(seeds)]
    assert asked(again, questions, tmp_path)[0] == found
    assert [p.asked for p in again] == [[]] * seeds


def test_questions_as_rows_and_names_as_files(names: Task) -> None:
    (row, _) = ask.asked_rows([question(names)])
    assert row["messages"] == [{"role": "user", "content": "Who? Ada in Rome"}]
    assert ask.slug("GPT-4 (generation), seed 2") == "gpt-4-generation-seed-2"
