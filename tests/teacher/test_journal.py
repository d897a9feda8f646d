import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from opengrok_jax.errors import DataError, RunFolderError, StorageError
from opengrok_jax.teacher import journal as journal_module
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.journal import Counts, opened
from opengrok_jax.teacher.wire import Reply
from tests.teacher.fault_server import completion, prompts

HERE = "http://127.0.0.1:1/v1"
OK = Reply(status=200, body=completion("yes"), headers={"date": "now"}, received_at=5.0)
DOWN = Reply(status=503, body=b"later")
BLOCK = Reply(status=451)


def requests(count):
    return [wire.request(p, model="m", temperature=0.7, max_tokens=8) for p in prompts(count)]


def ask(journal, request, reply):
    journal.received(journal.sent(request.key), reply, wire.read(reply))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stage" / journal_module.NAME


def test_every_request_is_in_exactly_one_place(path):
    a, b, c, d = requests(4)
    with opened(path, HERE) as journal:
        journal.plan([a, b, c, d])
        assert journal.counts() == Counts(planned=4, ok=0, blocked=0, failed=0, pending=4)
        ask(journal, a, DOWN)
        ask(journal, a, OK)
        ask(journal, b, DOWN)
        ask(journal, b, DOWN)
        ask(journal, c, BLOCK)
        journal.sent(d.key)
        assert journal.counts() == Counts(planned=4, ok=1, blocked=1, failed=1, pending=1)
        assert journal.pending() == {b.key, d.key}
        assert journal.failures_of() == {a.key: 1, b.key: 2}
        assert journal.failed() == [(b.prompt_id, "HTTP 503", "later")]


def test_a_second_opening_knows_all_and_orphans_what_was_in_flight(path):
    a, b = requests(2)
    with opened(path, HERE) as journal:
        journal.plan([a, b])
        ask(journal, a, OK)
        journal.sent(b.key)
    with opened(path, HERE) as journal:
        journal.plan([b, a])
        assert journal.orphans == journal.orphaned() == 1
        assert journal.pending() == {b.key}
        ask(journal, b, OK)
        # the raw replies, in the order of this plan
        assert list(journal.answers()) == [
            (b.key, b.prompt_id, replace(OK, received_at=0.0)),
            (a.key, a.prompt_id, replace(OK, received_at=0.0)),
        ]
    with opened(path, HERE) as journal:
        assert journal.orphans == 0


def test_what_is_not_in_the_plan_any_more_is_kept_but_not_counted(path):
    a, b = requests(2)
    with opened(path, HERE) as journal:
        journal.plan([a])
        ask(journal, a, OK)
    with opened(path, HERE) as journal:
        journal.plan([b])
        assert journal.counts() == Counts(planned=1, ok=0, blocked=0, failed=0, pending=1)
        assert list(journal.answers()) == []
    with opened(path, HERE) as journal:
        journal.plan([a, b])
        assert journal.counts().ok == 1


def test_another_endpoint_is_asked_anew(path):
    (a,) = requests(1)
    for endpoint in (HERE, "http://127.0.0.1:2/v1"):
        with opened(path, endpoint) as journal:
            journal.plan([a])
            assert journal.pending() == {a.key}
            ask(journal, a, OK)
            assert len(list(journal.answers())) == 1


def test_the_database_itself_refuses_a_second_answer(path):
    (a,) = requests(1)
    with opened(path, HERE) as journal:
        journal.plan([a])
        ask(journal, a, OK)
        with pytest.raises(sqlite3.IntegrityError):
            ask(journal, a, OK)
        assert journal.counts().ok == 1


def test_the_intent_is_on_disk_before_the_answer(path):
    (a,) = requests(1)
    with opened(path, HERE) as journal:
        journal.plan([a])
        number = journal.sent(a.key)
        with closing(sqlite3.connect(path)) as other:  # what a process that survives us would see
            assert other.execute("SELECT id, state FROM attempt").fetchall() == [(number, "sent")]
        journal.received(number, OK, wire.read(OK))
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT state, body FROM attempt").fetchall() == [("ok", OK.body)]


def test_it_is_durable(path):
    with opened(path, HERE) as journal:
        pragmas = [
            journal._db.execute(f"PRAGMA {p}").fetchone()[0]
            for p in ("journal_mode", "synchronous")
        ]
    assert pragmas == ["wal", 2]  # 2 is FULL


def test_two_prompts_with_the_same_words_are_refused(path):
    (a,) = requests(1)
    with opened(path, HERE) as journal:
        with pytest.raises(DataError, match="twice"):
            journal.plan([a, a])
        with pytest.raises(DataError, match="ask the same words"):
            journal.plan([a, replace(a, prompt_id="other")])


def test_rows_changed_from_outside_are_noticed(path):
    (a,) = requests(1)
    with opened(path, HERE) as journal:
        journal.plan([a])
        ask(journal, a, OK)
        ask(journal, a, BLOCK)  # nobody asks a question again that has its answer
        with pytest.raises(RunFolderError, match="does not add up"):
            journal.counts()


def test_what_is_no_journal_is_told(path):
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, " * 400)
    with pytest.raises(DataError, match="not a readable journal"), opened(path, HERE):
        pass


def test_another_layout_is_told(path):
    with opened(path, HERE) as journal:
        journal._db.execute("PRAGMA user_version = 99")
    with pytest.raises(RunFolderError, match="layout 99"), opened(path, HERE):
        pass


def test_a_full_disk_is_told_and_nothing_is_lost(path):
    many = requests(400)
    with opened(path, HERE) as journal:
        journal.plan(many[:1])
        ask(journal, many[0], OK)

    def plan_on_a_small_disk():
        with opened(path, HERE) as journal:
            pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
            journal._db.execute(f"PRAGMA max_page_count = {pages + 2}")
            journal.plan(many)

    with pytest.raises(StorageError, match="full"):
        plan_on_a_small_disk()
    with opened(path, HERE) as journal:
        journal.plan(many)
        assert journal.counts() == Counts(planned=400, ok=1, blocked=0, failed=0, pending=399)
