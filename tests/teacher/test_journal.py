import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from opengrok_jax.errors import DataError, StorageError
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.budget import Spent
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import NAME
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Reply
from tests.teacher.questions import completion, requests, sent, settle_all

HERE = "http://127.0.0.1:1/v1"
OK = Reply(status=200, body=completion("yes"), headers={"date": "now"}, received_at=5.0)
NEED = Need(ticks=10, tokens=20)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stage" / NAME


def test_the_intent_is_committed_before_it_begins_and_that_before_the_answer(path):
    def seen():  # what a process that survives us would see
        with closing(sqlite3.connect(path)) as other:
            return other.execute(
                "SELECT id, state, begun, reserved, cost, body FROM attempt "
                "LEFT JOIN reply ON reply.attempt = attempt.id"
            ).fetchall()

    with opened(path) as journal:
        (todo,) = journal.plan("p", HERE, requests(1)).todo()
        number = journal.intend(todo, NEED)
        assert seen() == []
        assert journal.write() == 0  # no reply was among it
        assert seen() == [(number, "sent", 0, 10, None, None)]
        journal.begin(number)
        journal.write()
        assert seen() == [(number, "sent", 1, 10, None, None)]
        journal.received(number, OK, wire.read(OK), 7, 12)
        assert journal.write() == 1
        assert seen() == [(number, "ok", 1, 10, 7, OK.body)]
        changes = journal._db.total_changes
        assert journal.write() == 0  # nothing is waiting
        assert journal._db.total_changes == changes


def test_it_is_consistent_after_a_power_cut(path):
    with opened(path) as journal:
        pragmas = [
            journal._db.execute(f"PRAGMA {p}").fetchone()[0]
            for p in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 1, 1]  # 1 is NORMAL: the waiting for the disk is that of `disk`


def killed_in_the_middle(path):
    """A journal with an answer, a sending under way, and an intent that had not begun."""
    with opened(path) as journal:
        todo = list(journal.plan("p", HERE, requests(4)).todo())
        number = sent(journal, todo[0], NEED)
        journal.write()
        journal.received(number, OK, wire.read(OK), 7, 12)
        journal.begin(journal.intend(todo[1], NEED))
        journal.intend(todo[2], NEED)
        journal.write()
        journal.begin(number + 1)
        journal.write()


def test_an_intent_that_never_began_is_no_orphan(path):
    killed_in_the_middle(path)
    with opened(path) as journal:
        plan = journal.plan("p", HERE, [])
        assert journal.new_orphans == [requests(4)[1].prompt_id]
        assert journal.spent() == Spent(requests=2, ticks=17, tokens=32)
        counts = plan.counts()
        assert (counts.ok, counts.orphaned, counts.pending) == (1, 1, 2)


def test_after_a_new_start_of_the_machine_every_intent_may_have_been_sent(path):
    killed_in_the_middle(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE boot SET id = 'of yesterday'")
        other.commit()
    with opened(path) as journal:
        counts = journal.plan("p", HERE, []).counts()
        assert journal.new_orphans == [r.prompt_id for r in requests(4)[1:3]]
        assert journal.spent().ticks == 27
        assert (counts.ok, counts.orphaned, counts.pending) == (1, 2, 1)


def test_what_is_withdrawn_leaves_no_trace_and_can_be_intended_again(path):
    with opened(path) as journal:
        a, b = journal.plan("p", HERE, requests(2)).todo()
        first = journal.intend(a, NEED)
        journal.write()
        journal.withdraw(first)
        journal.withdraw(journal.intend(b, NEED))  # never written
        journal.intend(a, NEED)
        journal.write()
        assert journal.spent().requests == 1
        begun = sent(journal, b, NEED)
        journal.write()
        journal.withdraw(begun)  # too late: it may have been paid
        journal.write()
        assert journal.spent().requests == 2


def test_the_database_itself_refuses_a_second_answer_and_a_second_flight(path):
    with opened(path) as journal:
        (todo,) = journal.plan("p", HERE, requests(1)).todo()
        for _ in range(2):
            number = sent(journal, todo, NEED)
            settle_all(journal)
            journal.received(number, OK, wire.read(OK), 7, 12)
        with pytest.raises(sqlite3.IntegrityError):
            journal.write()
    with opened(path) as journal:
        (todo,) = journal.plan("q", HERE, requests(2)).todo()
        journal.intend(todo, NEED)
        journal.intend(todo, NEED)
        with pytest.raises(sqlite3.IntegrityError):
            journal.write()


def test_what_was_in_flight_is_orphaned_named_and_stays_reserved(path):
    a, b, _ = requests(3)
    with opened(path) as journal:
        todo = list(journal.plan("p", HERE, requests(3)).todo())
        number = sent(journal, todo[0], NEED)
        settle_all(journal)
        journal.received(number, OK, wire.read(OK), 7, 12)
        sent(journal, todo[1], NEED)
        settle_all(journal)
    with opened(path) as journal:
        plan = journal.plan("p", HERE, [])  # a known plan is not read again
        assert journal.new_orphans == [b.prompt_id]
        assert [prompt for prompt, _, _ in plan.orphans()] == [b.prompt_id]
        assert journal.spent() == Spent(requests=2, ticks=17, tokens=32)
        assert [t.prompt_id for t in plan.todo()] == [b.prompt_id, requests(3)[2].prompt_id]
        assert a.prompt_id not in {t.prompt_id for t in plan.todo()}
    with opened(path) as journal:
        assert journal.new_orphans == []


def test_two_prompts_with_the_same_words_are_refused(path):
    (a,) = requests(1)
    with opened(path) as journal:
        with pytest.raises(DataError, match="twice"):
            journal.plan("p", HERE, [a, a])
        with pytest.raises(DataError, match="ask the same words"):
            journal.plan("q", HERE, [a, replace(a, prompt_id="other")])


def test_a_plan_that_was_not_finished_is_made_anew(path):
    def half():
        yield from requests(3)
        raise RuntimeError("killed")

    with opened(path) as journal:
        with pytest.raises(RuntimeError):
            journal.plan("p", HERE, half())
    with opened(path) as journal:
        assert journal.plan("p", HERE, requests(5)).requests == 5


def test_a_full_disk_is_told_and_nothing_is_lost(path):
    with opened(path) as journal:
        (todo,) = journal.plan("one", HERE, requests(1)).todo()
        number = sent(journal, todo, NEED)
        settle_all(journal)
        journal.received(number, OK, wire.read(OK), 7, 12)
        settle_all(journal)

    def plan_on_a_small_disk():
        with opened(path) as journal:
            pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
            journal._db.execute(f"PRAGMA max_page_count = {pages + 2}")
            journal.plan("many", HERE, requests(400))

    with pytest.raises(StorageError, match="full"):
        plan_on_a_small_disk()
    with opened(path) as journal:
        counts = journal.plan("many", HERE, requests(400)).counts()
        assert (counts.planned, counts.ok, counts.pending) == (400, 1, 399)
