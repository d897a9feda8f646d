import sqlite3
from contextlib import closing

import pytest

from opengrok_jax.errors import DataError
from opengrok_jax.teacher import books, wire
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import NAME
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Kind, Outcome, Reply
from tests.teacher.questions import completion, requests, sent

HERE = "http://127.0.0.1:1/v1"
OK = Reply(status=200, body=completion("yes"), received_at=5.0)


def test_each_request_stands_in_one_place_and_the_money_adds_up(tmp_path):
    need = Need(ticks=100, tokens=9)
    with opened(tmp_path / NAME) as journal:
        todo = list(journal.plan("p", HERE, requests(8)).todo())

        def settle(number, kind, cost):
            outcome = wire.read(OK) if kind is Kind.OK else Outcome(kind=kind, reason="so")
            journal.received(number, OK, outcome, cost, 9)

        settle(sent(journal, todo[0], need), Kind.OK, 40)
        settle(sent(journal, todo[1], need), Kind.BLOCKED, 5)
        settle(sent(journal, todo[2], need), Kind.TRANSIENT, 0)
        sent(journal, todo[2], need)  # lost on the second try
        sent(journal, todo[3], need)
        sent(journal, todo[4], need)
        journal.write()
    with opened(tmp_path / NAME) as journal:  # three orphans; one of them is answered now
        plan = journal.plan("p", HERE, [])
        settle(sent(journal, todo[4], need), Kind.OK, 60)
        sent(journal, todo[5], need)
        journal.intend(todo[6], need)  # written ahead only
        journal.write()
        found = books.read(tmp_path)
        assert found is not None
        assert (found.ok, found.blocked, found.failed, found.orphaned) == (2, 1, 1, 1)
        assert (found.under_way, found.pending, found.planned) == (1, 2, 8)
        assert found.requests == 8
        assert found.settled_ticks == 40 + 5 + 0 + 60
        assert found.reserved_ticks == 300 + 100 + 100
        assert found.at_risk_ticks == 300
        assert [o.prompt_id for o in found.orphans] == [todo[n].prompt_id for n in (2, 3, 4)]
        assert [o.answered for o in found.orphans] == [False, False, True]
        assert journal.spent().ticks == found.settled_ticks + found.reserved_ticks
        del plan


def test_no_journal_no_plan_and_another_layout(tmp_path):
    assert books.read(tmp_path) is None
    with opened(tmp_path / NAME):
        pass
    assert books.read(tmp_path) is None
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(DataError, match="layout 2"):
        books.read(tmp_path)
    (tmp_path / NAME).write_bytes(b"no database, " * 400)
    with pytest.raises(DataError, match="cannot be read"):
        books.read(tmp_path)
