"""How a collection ends where not every prompt has an answer."""

import pytest

from opengrok_jax import storage
from opengrok_jax.errors import TeacherError
from opengrok_jax.records import Response
from opengrok_jax.teacher import collect
from opengrok_jax.teacher.simulator import simulating
from opengrok_jax.teacher.simulator.acts import Act
from tests.teacher.questions import completion, number_of, prompts

BLOCKED = Act(status=403, body=b'{"error": "Content violates usage guidelines"}')


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def asked(folder, teacher, count, **changes):
    storage.write_jsonl(folder / "prompts.jsonl", prompts(count))
    given = {
        "prompts_file": folder / "prompts.jsonl",
        "out": folder / "out",
        "kind": "api",
        "base_url": teacher.base_url,
        "model": "tiny-teacher",
        "rights": "own-model",
        "max_attempts": 1,
    }
    return collect.run(**{**given, **changes})


def test_a_share_may_be_left_without_an_answer_and_is_named(tmp_path):
    def script(question):
        return {2: Act(status=413), 5: Act(status=500), 7: BLOCKED}.get(number_of(question))

    with simulating(script=script) as teacher:
        message = r"2 of 10 .*unanswered\.jsonl; teacher\.may_fail=0\.2 goes on without them"
        with pytest.raises(TeacherError, match=message):
            asked(tmp_path, teacher, 10)
        with pytest.raises(TeacherError):
            asked(tmp_path, teacher, 10, may_fail=0.19)
        counts = asked(tmp_path, teacher, 10, may_fail=0.2)
    assert (counts["ok"], counts["failed"], counts["blocked"]) == (7, 2, 1)
    rows = storage.read_records(tmp_path / "out" / "responses.jsonl", Response)
    lost = [row["prompt_id"] for row in storage.read_jsonl(tmp_path / "out" / "unanswered.jsonl")]
    assert lost == [prompts(10)[n].id for n in (2, 5, 7)]
    assert {r.prompt_id for r in rows} == {p.id for p in prompts(10)} - set(lost)


def test_an_endpoint_that_is_down_is_no_share_that_failed(tmp_path):
    with simulating(script=lambda q: Act(status=500)) as teacher:
        with pytest.raises(TeacherError, match="prompt after prompt failed"):
            asked(tmp_path, teacher, 10, may_fail=1.0)


def test_a_policy_that_refuses_prompt_after_prompt_stops_the_spending(tmp_path):
    def script(question):
        return BLOCKED if number_of(question) % 4 == 1 else None

    with simulating(script=script) as teacher:
        with pytest.raises(
            TeacherError, match=r"more than teacher\.max_blocked.*last 200.*\(11 in all\)"
        ):
            asked(tmp_path, teacher, 100, concurrency=1, max_blocked=0.05)
        assert sum(teacher.ledger.sent.values()) < 50
        counts = asked(tmp_path, teacher, 100, max_blocked=1.0)
    assert (counts["ok"], counts["blocked"]) == (75, 25)


@pytest.mark.parametrize(("concurrency", "ahead"), [(100, True), (20, False)])
def test_many_places_have_their_connections_before_the_first_answer(tmp_path, concurrency, ahead):
    seen = {}

    def script(question):
        seen[question.number] = teacher.connections
        return Act(body=completion("one"), delay_sec=0.4) if question.number == 1 else None

    with simulating(script=script) as teacher:
        assert asked(tmp_path, teacher, 100, concurrency=concurrency)["ok"] == 100
    assert (seen[2] > 30) == ahead  # on a busy machine not all of them in so short a time
