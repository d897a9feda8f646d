from dataclasses import replace

import pytest

from opengrok_jax.errors import RunFolderError
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import NAME
from opengrok_jax.teacher.journal_plan import PAGE, Counts
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Kind, Outcome, Reply
from tests.teacher.questions import completion, requests, sent, settle_all

HERE = "http://127.0.0.1:1/v1"
OK = Reply(status=200, body=completion("yes"), headers={"date": "now"}, received_at=5.0)
DOWN = Reply(status=503, body=b"later")
BLOCK = Reply(status=451)
NEED = Need(ticks=0, tokens=0)


def ask(journal, todo, reply, kind=None):
    number = sent(journal, todo, NEED)
    settle_all(journal)
    read = wire.read(reply)
    journal.received(number, reply, replace(read, kind=kind) if kind else read, 0, 0)
    settle_all(journal)


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


def test_every_request_is_in_exactly_one_place(path):
    with opened(path) as journal:
        plan = journal.plan("p", HERE, requests(5))
        a, b, c, d, _ = plan.todo()
        assert plan.counts() == Counts(planned=5, ok=0, blocked=0, failed=0, orphaned=0, pending=5)
        for todo, reply in ((a, DOWN), (a, OK), (b, DOWN), (b, DOWN), (c, BLOCK)):
            ask(journal, todo, reply)
        sent(journal, d, NEED)
        settle_all(journal)
        assert plan.settled() == 2
        assert list(plan.failures()) == [(b.prompt_id, "HTTP 503", "later")]
    with opened(path) as journal:
        plan = journal.plan("p", HERE, requests(5))
        assert plan.counts() == Counts(planned=5, ok=1, blocked=1, failed=1, orphaned=1, pending=1)
        # what failed before comes last
        assert [t.row for t in plan.todo()] == [d.row, d.row + 1, b.row]


def test_answers_come_in_the_order_of_the_plan_verbatim(path):
    first, second = requests(2)
    with opened(path) as journal:
        for todo in journal.plan("p", HERE, [second, first]).todo():
            ask(journal, todo, OK)
    with opened(path) as journal:
        plan = journal.plan("q", HERE, [first, second])
        found = list(plan.answers())
        assert [(f.key, f.prompt_id) for f in found] == [
            (r.key, r.prompt_id) for r in (first, second)
        ]
        assert found[0].reply == OK
        assert plan.served() == "tiny-teacher"


def test_what_is_not_in_the_plan_any_more_is_kept_but_not_counted(path):
    a, b = requests(2)
    with opened(path) as journal:
        (todo,) = journal.plan("one", HERE, [a]).todo()
        ask(journal, todo, OK)
        plan = journal.plan("two", HERE, [b])
        assert plan.counts().pending == plan.requests == 1
        assert list(plan.answers()) == []
        assert plan.served() == ""
        assert journal.plan("three", HERE, [a, b]).counts().ok == 1


def test_another_endpoint_is_asked_anew(path):
    (a,) = requests(1)
    with opened(path) as journal:
        for endpoint in (HERE, "http://127.0.0.1:2/v1"):
            plan = journal.plan(endpoint, endpoint, [a])
            (todo,) = plan.todo()
            ask(journal, todo, OK)
            assert len(list(plan.answers())) == 1


def test_many_pages_are_all_asked_in_order(path):
    many = requests(PAGE + 50)
    with opened(path) as journal:
        plan = journal.plan("p", HERE, many)
        assert [t.prompt_id for t in plan.todo()] == [r.prompt_id for r in many]


def test_pages_are_read_while_rows_are_written(path):
    with opened(path) as journal:
        plan = journal.plan("p", HERE, requests(PAGE + 3))
        asked = 0
        for todo in plan.todo():
            ask(journal, todo, OK if asked % 2 else DOWN) if asked < 9 else None
            asked += 1
        assert asked == PAGE + 3  # what failed in this run is not asked again by it


def test_rows_changed_from_outside_are_noticed(path):
    with opened(path) as journal:
        plan = journal.plan("p", HERE, requests(2))
        journal._db.execute("DELETE FROM planned WHERE position = 1")
        with pytest.raises(RunFolderError, match="does not add up"):
            plan.counts()


def test_kept_replies_are_read_again_by_todays_rules(path):
    with opened(path) as journal:
        a, b, c = journal.plan("p", HERE, requests(3)).todo()
        ask(journal, a, OK, Kind.WRONG_MODEL)
        ask(journal, a, OK, Kind.WRONG_MODEL)  # paid twice, accepted once
        ask(journal, b, Reply(status=200, body=b"odd"))
        ask(journal, c, DOWN)

        def judge(reply: Reply) -> Outcome:
            return wire.read(OK if reply.body == b"odd" else reply)

        plan = journal.plan("p", HERE, [])
        assert plan.reread(lambda reply: Outcome(kind=Kind.TRANSIENT)) == 0
        assert plan.reread(judge) == 2
        assert plan.reread(judge) == 0
        assert plan.counts().ok == 2
