import sqlite3
from contextlib import closing

import pytest

from opengrok_jax.errors import DataError, RunFolderError
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import FILES, NAME
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Kind
from tests.teacher.questions import completion, requests, sent

HERE = "http://127.0.0.1:1/v1"
# The tables of layout 1, as the version before this one made them.
LAYOUT_1 = """
CREATE TABLE request (
  key TEXT NOT NULL, endpoint TEXT NOT NULL, prompt_id TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (key, endpoint)
);
CREATE TABLE attempt (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL, endpoint TEXT NOT NULL,
  state TEXT NOT NULL,
  sent_at REAL NOT NULL, received_at REAL,
  status INTEGER, headers TEXT, body BLOB, error TEXT, reason TEXT, detail TEXT,
  FOREIGN KEY (key, endpoint) REFERENCES request
);
CREATE INDEX attempt_of ON attempt (key, endpoint);
CREATE UNIQUE INDEX one_answer ON attempt (key, endpoint) WHERE state = 'ok';
CREATE UNIQUE INDEX one_in_flight ON attempt (key, endpoint) WHERE state = 'sent';
PRAGMA user_version = 1;
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


def test_the_files_that_a_stage_keeps_are_these():
    from opengrok_jax.stages import stage_of

    assert set(FILES) == set(stage_of("collect").keep)


def test_a_journal_of_layout_1_is_carried_over(path):
    a, b, c = requests(3)
    with closing(sqlite3.connect(path)) as old:
        old.executescript(LAYOUT_1)
        for r in (c, b, a):
            old.execute(
                "INSERT INTO request VALUES (?, ?, ?, ?)", (r.key, HERE, r.prompt_id, r.body)
            )
        old.execute(
            "INSERT INTO attempt VALUES (4, ?, ?, 'ok', 1.0, 2.0, 200, '{\"date\": \"x\"}', ?, '',"
            " '', '')",
            (a.key, HERE, completion("paid")),
        )
        old.execute(
            "INSERT INTO attempt (id, key, endpoint, state, sent_at) VALUES (5, ?, ?, 'sent', 3.0)",
            (b.key, HERE),
        )
        old.commit()
    for _ in range(2):
        with opened(path) as journal:
            plan = journal.plan("p", HERE, [a, b, c])
            (accepted,) = plan.answers()
            assert (accepted.key, accepted.prompt_id, accepted.cost) == (a.key, a.prompt_id, None)
            assert accepted.reply.body == completion("paid")
            assert accepted.reply.headers == {"date": "x"}
            assert [t.prompt_id for t in plan.todo()] == [b.prompt_id, c.prompt_id]
            assert [prompt for prompt, _, _ in plan.orphans()] == [b.prompt_id]
            assert journal.spent().requests == 2


def test_a_journal_of_layout_2_is_carried_over(path):
    with opened(path) as journal:
        todo = list(journal.plan("p", HERE, requests(3)).todo())
        sent(journal, todo[1], Need(ticks=5, tokens=6))
        journal.write()
    with closing(sqlite3.connect(path)) as old:  # 2 is 3 without these
        old.executescript(
            "ALTER TABLE attempt DROP COLUMN begun; DROP TABLE boot; PRAGMA user_version = 2"
        )
    for _ in range(2):
        with opened(path) as journal:
            plan = journal.plan("p", HERE, [])
            assert [(prompt, ticks) for prompt, _, ticks in plan.orphans()] == [
                (todo[1].prompt_id, 5)
            ]
            assert plan.counts().pending == 2
            journal.intend(todo[0], Need(ticks=1, tokens=1))
            journal.write()


def test_what_is_no_journal_is_told(path):
    path.write_bytes(b"this is not a database, " * 400)
    with pytest.raises(DataError, match="not a readable journal"), opened(path):
        pass


def test_another_layout_is_told(path):
    with opened(path) as journal:
        journal._db.execute("PRAGMA user_version = 99")
    with pytest.raises(RunFolderError, match="layout 99"), opened(path):
        pass


def test_another_program_that_writes_is_told(path, monkeypatch):
    with opened(path) as journal:
        journal.plan("p", HERE, requests(1))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "timeout": 0.05}))
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunFolderError, match="in use"), opened(path):
            pass


def test_the_states_are_those_of_the_wire():
    from opengrok_jax.teacher.journal_file import STATES

    assert set(STATES) == {"sent", "orphaned", *Kind}
