import pytest

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.teacher import export, settings, wire
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import NAME
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Kind, Outcome, Reply
from opengrok_jax.teacher.secret import Secret
from tests.teacher.questions import ASKING, completion, requests, sent, settle_all

TEACHER = settings.Teacher(
    source="api",
    endpoint="http://h/v1",
    asking=ASKING,
    rights="x",
    key=Secret(""),
    key_env="",
    timeout_sec=5.0,
    book=None,
)
NEED = Need(ticks=9, tokens=0)


def test_rows_are_parsed_anew_and_totals_are_theirs(tmp_path):
    with opened(tmp_path / NAME) as journal:
        plan = journal.plan("p", "http://h/v1", requests(3))
        for n, todo in enumerate(plan.todo()):
            number = sent(journal, todo, NEED)
            settle_all(journal)
            if n == 2:
                break
            reply = Reply(status=200, body=completion(f"answer {n}"), received_at=1.5)
            journal.received(number, reply, wire.read(reply), 5 + n, 0)
            settle_all(journal)
        totals = export.write(tmp_path, plan, TEACHER)
    assert (totals.rows, totals.plain()["prompt_tokens"]) == (2, 14)
    rows = list(storage.read_jsonl(tmp_path / export.RESPONSES))
    assert [r["cost_ticks"] for r in rows] == [5, 6]
    assert [r["received_at"] for r in rows] == [1.5, 1.5]
    with opened(tmp_path / NAME) as journal:
        plan = journal.plan("p", "http://h/v1", [])
        assert export.write_orphans(tmp_path, plan) == 1
    (orphan,) = storage.read_jsonl(tmp_path / export.ORPHANS)
    assert (orphan["prompt_id"], orphan["reserved_ticks"]) == (requests(3)[2].prompt_id, 9)


def test_a_kept_answer_that_is_none_any_more_is_told(tmp_path):
    with opened(tmp_path / NAME) as journal:
        plan = journal.plan("p", "http://h/v1", requests(1))
        (todo,) = plan.todo()
        number = sent(journal, todo, NEED)
        settle_all(journal)
        journal.received(number, Reply(status=200, body=b"{}"), Outcome(kind=Kind.OK), 0, 0)
        settle_all(journal)
        with pytest.raises(DataError, match="holds no answer any more"):
            export.write(tmp_path, plan, TEACHER)
        assert not (tmp_path / export.RESPONSES).exists()
