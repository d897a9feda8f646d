import asyncio
import itertools
import os
import sqlite3
from contextlib import closing

from opengrok_jax.teacher import commits as commits_module
from opengrok_jax.teacher import disk as disk_module
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.commits import Commits
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import NAME
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Reply
from tests.teacher.questions import completion, requests

HERE = "http://127.0.0.1:1/v1"
NEED = Need(ticks=0, tokens=0)


def test_it_is_the_log_that_is_synced_after_the_commit_is_in_it(tmp_path, monkeypatch):
    synced = []

    def noted(descriptor):
        assert os.fstat(descriptor).st_ino == (tmp_path / f"{NAME}-wal").stat().st_ino
        synced.append((tmp_path / f"{NAME}-wal").read_bytes())

    with opened(tmp_path / NAME) as journal:
        todo = journal.plan("p", HERE, requests(1)).todo()
        monkeypatch.setattr(disk_module, "_sync", noted)
        disk = journal.disk()
        journal.intend(next(todo), NEED)
        journal.write()
        disk.sync()
        whole = (tmp_path / NAME).read_bytes()
        disk.close()
    # what a machine would find that lost its power right after
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / NAME).write_bytes(whole)
    (tmp_path / "cut" / f"{NAME}-wal").write_bytes(synced[0])
    with closing(sqlite3.connect(tmp_path / "cut" / NAME)) as database:
        assert database.execute("SELECT state, begun FROM attempt").fetchall() == [("sent", 0)]
    # and one whose log was cut within the last commit
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / NAME).write_bytes(whole)
    (tmp_path / "torn" / f"{NAME}-wal").write_bytes(synced[0][:-100])
    with closing(sqlite3.connect(tmp_path / "torn" / NAME)) as database:
        assert database.execute("SELECT COUNT(*) FROM attempt").fetchone() == (0,)
        assert database.execute("SELECT COUNT(*) FROM planned").fetchone() == (1,)


def test_the_log_begins_anew_however_long_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(commits_module, "TRIM_ROWS", 50)
    reply = Reply(status=200, body=completion("x" * 4000))

    async def main(journal):
        todo = journal.plan("p", HERE, requests(600)).todo()
        async with Commits(journal) as group:
            while page := list(itertools.islice(todo, 20)):
                numbers = [journal.intend(one, NEED) for one in page]
                journal.write()
                for number in numbers:
                    journal.received(number, reply, wire.read(reply), None, None)
                await asyncio.shield(group.durable())
        return (tmp_path / f"{NAME}-wal").stat().st_size

    with opened(tmp_path / NAME) as journal:
        size = asyncio.run(main(journal))
    assert size < (tmp_path / NAME).stat().st_size / 2
