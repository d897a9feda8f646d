import errno
import json
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import records
from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.errors import DataError, RunFolderError, StorageError
from tests.curation.review_rows import decision


def line(row) -> bytes:
    return (json.dumps(records.to_json(row)) + "\n").encode()


def path_in(run):
    return run / "review" / "decisions.jsonl"


def test_what_is_appended_is_read_and_kept(tmp_path):
    rows = [
        decision(),
        decision("reject"),
        decision("edit", edited="\u202e\x00 é"),
        decision("undo"),
    ]
    with decisions.opened(tmp_path) as log:
        log.append(rows[0])
        log.append_all([])
        log.append_all(rows[1:3])
    with decisions.opened(tmp_path) as log:
        assert log.torn == 0
        log.append(rows[3])
    assert decisions.read(path_in(tmp_path)) == rows


def test_without_a_file_there_are_no_decisions(tmp_path):
    assert decisions.read(path_in(tmp_path)) == []


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_last_line_does_not_count_and_is_healed(tmp_path, cut):
    torn = line(decision("reject"))[:cut]
    path_in(tmp_path).parent.mkdir()
    path_in(tmp_path).write_bytes(line(decision()) + torn)
    assert decisions.read(path_in(tmp_path)) == [decision()]
    with decisions.opened(tmp_path) as log:
        assert log.torn == cut
        log.append(decision("skip"))
    assert decisions.read(path_in(tmp_path)) == [decision(), decision("skip")]


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path):
    path_in(tmp_path).parent.mkdir()
    path_in(tmp_path).write_bytes(line(decision())[:-1])
    assert decisions.read(path_in(tmp_path)) == [decision()]
    with decisions.opened(tmp_path) as log:
        log.append(decision("skip"))
    assert decisions.read(path_in(tmp_path)) == [decision(), decision("skip")]


def test_a_broken_line_before_the_last_is_named(tmp_path):
    path_in(tmp_path).parent.mkdir()
    path_in(tmp_path).write_bytes(line(decision()) + b"{oh\n" + line(decision()))
    with pytest.raises(DataError, match=r"line 2: no decision"):
        decisions.read(path_in(tmp_path))


def test_only_one_process_writes(tmp_path):
    with decisions.opened(tmp_path), pytest.raises(RunFolderError, match="in use"):
        with decisions.opened(tmp_path):
            pass


def one(log, row):
    log.append(row)


def several(log, row):
    log.append_all([row, row])


@pytest.mark.parametrize("write", [one, several])
def test_a_refused_write_leaves_the_file_as_it_was(tmp_path, monkeypatch, write):
    with decisions.opened(tmp_path) as log:
        log.append(decision())

        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            write(log, decision("reject"))
        monkeypatch.undo()
        log.append(decision("skip"))
    assert decisions.read(path_in(tmp_path)) == [decision(), decision("skip")]


def test_after_many_at_once_the_next_goes_to_the_same_file(tmp_path):
    with decisions.opened(tmp_path) as log:
        log.append_all([decision(), decision("reject")])
        log.append(decision("skip"))
        assert [d.decision for d in decisions.read(log.path)] == ["accept", "reject", "skip"]
    (tmp_path / "review" / ".decisions.jsonl.1.partial").write_text("left by a killed process")
    with decisions.opened(tmp_path):
        assert sorted(p.name for p in (tmp_path / "review").iterdir()) == [
            "decisions.jsonl",
            "lock",
        ]


def test_kill_9_leaves_all_of_many_or_none(tmp_path):
    work = (
        "import sys; from pathlib import Path\n"
        "from opengrok_jax.curation.review import decision_log\n"
        "from tests.curation.review_rows import decision\n"
        "rows = [decision(note='n' * 500) for _ in range(100)]\n"
        "with decision_log.opened(Path(sys.argv[1])) as log:\n"
        "    while True:\n"
        "        log.append_all(rows)\n"
        "        print('.', flush=True)\n"
    )
    for wait in (0.01, 0.037, 0.11):
        before = len(decisions.read(path_in(tmp_path)))
        with subprocess.Popen(
            [sys.executable, "-c", work, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.kill()
            told = 1 + len(process.stdout.read().split())
        found = len(decisions.read(path_in(tmp_path)))
        assert found % 100 == 0
        assert found - before in (100 * told, 100 * (told + 1))


@pytest.mark.parametrize(
    ("said", "more", "wrong"),
    [
        ("reject", {"reason": "ugly"}, "a reason out of harmful"),
        ("reject", {"reason": "other"}, "needs a note"),
        ("accept", {"reason": "harmful"}, "only a rejection has a reason"),
        ("edit", {"edited": " \n"}, "an edit needs the new text"),
        ("accept", {"edited": "x"}, "only an edit has a new text"),
        ("accept", {"note": "n" * 2001}, "at most 2000 characters"),
        ("edit", {"edited": "a\ud800"}, "edited holds half a character"),
        ("accept", {"reviewer": " "}, "1 to 80 characters"),
        ("accept", {"look": 3}, "look is 1 or 2"),
        ("accept", {"seconds": float("nan")}, "look is 1 or 2"),
    ],
)
def test_a_decision_that_says_too_little_is_refused(said, more, wrong):
    with pytest.raises(DataError, match=wrong):
        decisions.check(decision(said, **more))


def test_whole_decisions_pass():
    for said in ("accept", "reject", "edit", "skip", "undo"):
        decisions.check(decision(said))
    decisions.check(decision("reject", reason="other", note="because"))


def test_the_drawing_at_the_top():
    rows = [decision("accept"), decision("reject", reviewer="bob")]
    (outcome,) = decisions.outcomes(rows).values()
    assert outcome.decision == "reject"
    (outcome,) = decisions.outcomes([*rows, decision("undo", reviewer="bob")]).values()
    assert outcome.decision == "accept"


def test_of_two_edits_the_later_counts():
    rows = [decision("edit", edited="1"), decision("edit", reviewer="bob", edited="2")]
    (outcome,) = decisions.outcomes([*rows, decision("accept", reviewer="eve")]).values()
    assert outcome.edited == "2"


def test_skips_and_other_texts_settle_nothing():
    found = decisions.outcomes([decision("skip"), decision("accept", text="another")])
    assert list(found) == [("p1", records.body_sha("another"))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["accept", "reject", "edit", "skip", "undo"]),
            st.sampled_from(["ann", "bob"]),
            st.sampled_from([1, 2]),
        )
    )
)
def test_an_undo_takes_back_what_its_look_had_said(events):
    rows = [decision(said, reviewer=who, look=n) for said, who, n in events]
    expected = {}
    for row in rows:  # the last word on each look, from the file alone
        expected[row.reviewer, row.look] = row.decision
    standing = {key[2:]: d.decision for key, d in decisions.by_look(rows).items()}
    assert standing == {key: said for key, said in expected.items() if said != "undo"}
    strictest = {"reject": 3, "edit": 2, "accept": 1}
    settled = [said for said in standing.values() if said in strictest]
    found = [d.decision for d in decisions.outcomes(rows).values()]
    assert found == ([max(settled, key=strictest.__getitem__)] if settled else [])
