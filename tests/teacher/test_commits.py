import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from opengrok_jax.errors import StorageError
from opengrok_jax.teacher.commits import Commits
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import NAME
from opengrok_jax.teacher.money import Need
from tests.teacher.questions import requests

HERE = "http://127.0.0.1:1/v1"
NEED = Need(ticks=0, tokens=0)


def test_many_intents_share_a_commit_and_each_is_there_when_its_wait_ends(tmp_path):
    path, commits = tmp_path / NAME, []

    async def one(journal, group, todo):
        number = journal.intend(todo, NEED)
        await asyncio.shield(group.kept())
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT 1 FROM attempt WHERE id = ?", (number,)).fetchone()

    async def main(journal):
        todo = list(journal.plan("p", HERE, requests(60)).todo())
        journal._db.set_trace_callback(lambda s: commits.append(s) if s == "COMMIT" else None)
        async with Commits(journal) as group:
            await asyncio.gather(*(one(journal, group, t) for t in todo))
            journal._db.set_trace_callback(None)

    with opened(path) as journal:
        asyncio.run(main(journal))
    assert 1 <= len(commits) <= 5


def test_durable_is_after_a_sync_that_began_after_the_commit(tmp_path, monkeypatch):
    happened = []

    async def main(journal):
        todo = list(journal.plan("p", HERE, requests(9)).todo())
        disk_of = journal.disk

        def disk():
            made = disk_of()
            sync = made.sync
            made.sync = lambda: (
                happened.append("sync begins"),
                time.sleep(0.02),
                sync(),
                happened.append("sync ends"),
            )
            return made

        monkeypatch.setattr(journal, "disk", disk)
        write = journal.write
        monkeypatch.setattr(
            journal, "write", lambda: (write(), happened.append(f"kept {journal._next}"))[0]
        )
        async with Commits(journal) as group:
            for one in todo:
                journal.intend(one, NEED)
                group.durable().add_done_callback(
                    lambda _, row=one.row: happened.append(f"durable {row}")
                )
                await asyncio.sleep(0.005)

    with opened(tmp_path / NAME) as journal:
        asyncio.run(main(journal))
    for row in range(1, 10):
        between = happened[happened.index(f"kept {row}") : happened.index(f"durable {row}")]
        assert "sync ends" in between[between.index("sync begins") :]
    assert happened.count("sync begins") < 9, "those who wait together share it"


def test_what_is_waiting_at_the_end_is_committed(tmp_path):
    async def main(journal):
        (todo,) = journal.plan("p", HERE, requests(1)).todo()
        async with Commits(journal) as group:
            journal.intend(todo, NEED)
            journal.begin(1)
            group.kept()

    with opened(tmp_path / NAME) as journal:
        asyncio.run(main(journal))
    with opened(tmp_path / NAME) as journal:
        assert journal.plan("p", HERE, []).counts().orphaned == 1


def test_a_disk_that_refuses_reaches_whoever_waits(tmp_path):
    async def main(journal):
        todo = list(journal.plan("p", HERE, requests(400)).todo())
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 1}")
        async with Commits(journal) as group:
            for one in todo:
                journal.intend(one, NEED)
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await asyncio.shield(group.durable())

    with pytest.raises(StorageError, match="full"), opened(tmp_path / NAME) as journal:
        asyncio.run(main(journal))
