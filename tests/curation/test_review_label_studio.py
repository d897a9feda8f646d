import json
import xml.etree.ElementTree as ET

import pytest

from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.curation.review.exchange import take, write
from opengrok_jax.curation.review.label_studio import labelling
from opengrok_jax.errors import DataError
from tests.curation.review_rows import decision, verdict

ROWS = [verdict("p1", "kept\0 \ud800"), verdict("p2", "flagged", reason="harmful")]


def tasks(path):
    write(path, ROWS, [decision("accept", "p1", "kept\0 \ud800")])
    return json.loads(path.read_text())


def annotation(said: str, *, by: object = 7, **more):
    """As Label Studio exports it: docs, guide/task_format."""

    def part(name, kind, value):
        return {
            "id": "t5sp3TyXPo",
            "from_name": name,
            "to_name": "answer",
            "type": kind,
            "origin": "manual",
            "value": {"text" if kind == "textarea" else "choices": [value]},
        }

    extra = {"reason": "choices", "note": "textarea", "edited": "textarea"}
    result = [part("decision", "choices", said)]
    result += [part(n, kind, more[n]) for n, kind in extra.items() if n in more]
    return {
        "id": 1001,
        "completed_by": by,
        "result": result,
        "was_cancelled": more.get("cancelled", False),
        "ground_truth": False,
        "created_at": "2026-11-25T11:00:00.000000Z",
        "updated_at": more.get("at", "2026-11-25T12:00:00.728378Z"),
        "lead_time": 4.288,
        "prediction": {},
        "result_count": 0,
        "task": 1,
    }


def imported(tmp_path, content):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(content))
    with decisions.opened(tmp_path / "run") as log:
        report = take(path, ROWS, log, decisions.read(log.path))
        return report, decisions.read(log.path)


def test_the_tasks_have_data_and_predictions_and_nothing_else(tmp_path):
    kept, flagged = tasks(tmp_path / "tasks.json")
    assert set(kept) == {"data", "predictions"}
    assert kept["data"] == {
        "prompt_id": "p1",
        "body_sha": ROWS[0].body_sha,
        "prompt": "user: What of p1?",
        "answer": "kept\ufffd \ufffd",
        "why": "",
    }
    for task, said in ((kept, "accept"), (flagged, "reject")):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "rules"
        (result,) = prediction["result"]
        assert result["value"] == {"choices": [said]}
        assert (result["from_name"], result["to_name"], result["type"]) == (
            "decision",
            "answer",
            "choices",
        )


def test_the_labelling_knows_the_names_of_tasks_and_predictions(tmp_path):
    kept, _ = tasks(tmp_path / "tasks.json")
    root = ET.fromstring((tmp_path / "tasks.xml").read_text())
    assert (tmp_path / "tasks.xml").read_text() == labelling()
    controls = {e.get("name"): e for e in root.iter() if e.get("toName")}
    objects = {e.get("name"): e for e in root.iter() if e.tag == "Text"}
    assert {(e.get("value") or "").removeprefix("$") for e in objects.values()} <= set(kept["data"])
    assert {e.get("toName") for e in controls.values()} <= set(objects)
    choices = [c.get("value") for c in controls["decision"]]
    (result,) = kept["predictions"][0]["result"]
    assert result["from_name"] in controls
    assert set(result["value"]["choices"]) <= set(choices)
    assert choices == list(decisions.CHOICES)
    assert [c.get("value") for c in controls["reason"]] == list(decisions.REASONS)
    shown = {
        control.get("name"): view.get("whenChoiceValue")
        for view in root.iter("View")
        for control in view
        if view is not root
    }
    shown.pop(None)  # the headers
    assert shown == {"reason": "reject", "note": "reject", "edited": "edit"}


def test_annotations_become_decisions(tmp_path):
    one, two = tasks(tmp_path / "tasks.json")
    one["annotations"] = [
        annotation("edit", edited="better", reason="poor"),  # the reason is hidden by then
        annotation("accept", by={"id": 9, "email": "bo@example.org"}),
        annotation("accept", by=8, cancelled=True),
    ]
    two["annotations"] = [annotation("reject", reason="harmful", note="see line 1", by=None)]
    report, found = imported(tmp_path, [one | {"id": 1, "meta": {}}, two])
    assert [(d.prompt_id, d.reviewer, d.decision, d.reason, d.note, d.edited) for d in found] == [
        ("p1", "label-studio 7", "edit", "", "", "better"),
        ("p1", "label-studio bo@example.org", "accept", "", "", ""),
        ("p2", "label-studio", "reject", "harmful", "see line 1", ""),
    ]
    assert found[0].at == "2026-11-25T12:00:00.728378Z"
    assert found[0].seconds == 4.288
    assert (report.taken, report.undecided) == (3, 1)
    again, same = imported(tmp_path, [one, two])
    assert (again.taken, again.known) == (0, 3)
    assert same == found


def test_tasks_as_we_wrote_them_decide_nothing(tmp_path):
    report, found = imported(tmp_path, tasks(tmp_path / "tasks.json"))
    assert (report.taken, found) == (0, [])


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        ({"decision": "accept", "answer": "x"}, "task 2: no task with data; export as JSON"),
        ({"data": {}, "annotations": [5]}, "task 2, annotation 1: no annotation"),
        ({"data": {}, "annotations": "x"}, "task 2: annotations is no list"),
        ({"data": {}, "annotations": [{"result": [{"value": {}}]}]}, "without choices or text"),
        ({"data": {}, "annotations": [annotation("")]}, "no decision was chosen"),
        ({"data": {}, "annotations": [annotation("accept")]}, "prompt_id must be str"),
        ({"data": {}, "annotations": [annotation("perhaps")]}, "decision is 'perhaps'"),
    ],
)
def test_malformed_tasks_are_named_and_nothing_is_taken(tmp_path, broken, wrong):
    good, _ = tasks(tmp_path / "tasks.json")
    good["annotations"] = [annotation("accept")]
    with pytest.raises(DataError, match="nothing was taken in") as caught:
        imported(tmp_path, [good, broken])
    assert wrong in str(caught.value)
    assert decisions.read(tmp_path / "run" / "review" / "decisions.jsonl") == []
