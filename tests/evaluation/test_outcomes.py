import pytest

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.evaluation import outcomes
from tests.evaluation import finished
from tests.evaluation.finished import MAJORITY, STUDENT, TFIDF


@pytest.fixture
def evaluation(tmp_path):
    return finished.write(tmp_path)["evaluation"]


def test_what_was_written_is_read(evaluation):
    whole, (one,) = outcomes.read(evaluation)
    assert whole == storage.read_json(evaluation / "scores.json")
    assert (one.task.name, one.task.kind, one.task.labels) == ("mood", "label", finished.LABELS)
    assert [*one.by_metric] == ["macro_f1", "accuracy"]
    assert one.student == STUDENT
    assert [score.predictor for score in one.others] == [TFIDF, MAJORITY]
    assert one.shown == (STUDENT, TFIDF)
    (run,) = one.predictions[STUDENT]
    assert [p.predicted for p in run] == [r["predicted"] for r in finished.predictions()[STUDENT]]


def test_lists_become_the_answers_that_were_written(evaluation):
    path = evaluation / "predictions" / "mood.0.jsonl"
    row = finished.predictions()[STUDENT][0] | {"gold": [["person", "Ada"]], "predicted": []}
    storage.write_jsonl(path, [row])
    _, (one,) = outcomes.read(evaluation)
    assert one.predictions[STUDENT][0][0].gold == (("person", "Ada"),)
    assert one.predictions[STUDENT][0][0].predicted == ()


def verdict(evaluation, **changes) -> outcomes.Verdict:
    whole = storage.read_json(evaluation / "scores.json")
    whole["comparisons"] = [c | changes.get(c["b"], {}) for c in whole["comparisons"]]
    storage.write_json(evaluation / "scores.json", whole)
    return outcomes.verdicts(outcomes.read(evaluation)[1])[0]


def test_only_what_survives_the_correction_is_a_difference(evaluation):
    one = verdict(evaluation)
    assert {who: place for who, _, place in one.beside} == {
        TFIDF: "below",
        MAJORITY: "within the noise of",
    }
    assert one.place == "below"
    assert one.words == f"below {TFIDF} (0.712), within the noise of {MAJORITY} (0.333)"


def test_above_is_above_all(evaluation):
    level = verdict(evaluation, **{TFIDF: {"p_corrected": 0.05}, MAJORITY: {"p_corrected": 0.01}})
    assert level.place == "level"  # above the majority, not told apart from the other
    above = verdict(evaluation, **{TFIDF: {"p_corrected": 0.04, "difference": 0.1}})
    assert above.place == "above"
    assert outcomes.headline([level, above]) == (
        "Of 2 tasks the student is above everything it was compared with on 1, neither on 1."
    )
    assert outcomes.headline([level]) == (
        "On its one task the student is neither above everything it was compared with nor below any of it."
    )
    below = verdict(evaluation, **{TFIDF: {"difference": -0.1}})
    assert outcomes.headline([below, level, below]) == (
        "Of 3 tasks the student is above everything it was compared with on none, below at least "
        "one of the others on 2, neither on 1."
    )


def test_nothing_to_compare_is_said(evaluation):
    whole = storage.read_json(evaluation / "scores.json")
    storage.write_json(evaluation / "scores.json", whole | {"comparisons": []})
    assert outcomes.verdicts(outcomes.read(evaluation)[1]) == []


@pytest.mark.parametrize("key", ["tasks", "comparisons", "groups"])
def test_a_file_of_another_version_names_the_command(evaluation, key):
    whole = storage.read_json(evaluation / "scores.json")
    del whole[key]
    storage.write_json(evaluation / "scores.json", whole)
    with pytest.raises(DataError, match=f"{key}.*opengrok run --redo evaluate"):
        outcomes.read(evaluation)
