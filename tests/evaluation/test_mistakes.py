from dataclasses import replace

from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.mistakes import worst
from opengrok_jax.evaluation.outcomes import Outcome
from opengrok_jax.evaluation.tasks import Kind, Task
from opengrok_jax.records import Score

WHO = "student (likelihood)"


def outcome(
    *run: Prediction, kind: Kind = "label", metric="macro_f1", labels=("a", "b")
) -> Outcome:
    score = Score(task="t", metric=metric, predictor=WHO, value=0.5, low=0.0, high=1.0, rows=3)
    return Outcome(
        task=Task(name="t", instruction="{post}", kind=kind, metric=metric, labels=labels),
        scores=(score,),
        comparisons=(),
        predictions={WHO: (run, run)},
        groups=(),
        without_leaks=(),
    )


def said(name: str, predicted: str | None, other: float) -> Prediction:
    """Gold is "a"; the log-probability of what was said is -1."""
    scores = {} if predicted is None else {predicted: -1.0, "ab".replace(predicted, ""): other}
    return Prediction(id=name, text=name, gold="a", predicted=predicted, scores=scores)


def test_the_surest_of_the_wrong_come_first():
    run = [
        said("right", "a", -9),
        said("unsure", "b", -1.5),
        said("sure", "b", -8),
        said("?", None, 0),
    ]
    found = worst(outcome(*run))
    assert [m.prediction.id for m in found] == ["sure", "unsure"]
    sure, unsure = (m.confidence or 0 for m in found)
    assert sure > unsure > 0.5
    assert [m.prediction.id for m in worst(outcome(*run), 1)] == ["sure"]


def test_without_probabilities_in_the_order_of_the_posts():
    run = [replace(said(n, p, 0), scores={}) for n, p in (("x", "a"), ("y", "b"), ("z", None))]
    assert [(m.prediction.id, m.confidence) for m in worst(outcome(*run))] == [
        ("y", None),
        ("z", None),
    ]


def test_summaries_and_clusters_are_neither_right_nor_wrong():
    one = Prediction(id="x", text="x", gold="5", predicted="royal wedding")
    assert worst(outcome(one, kind="clusters", metric="nmi", labels=())) == []
    assert worst(replace(outcome(said("x", "b", 0)), scores=())) == []
