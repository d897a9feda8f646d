import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import storage
from opengrok_jax.errors import DataError, RunFolderError, StorageError
from opengrok_jax.records import Message

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_what_is_written_is_read(tmp_path):
    rows = [Message(role="user", content="línea\u2028 1"), Message(role="assistant", content="")]
    assert storage.write_jsonl(tmp_path / "a.jsonl", rows) == 2
    assert storage.read_records(tmp_path / "a.jsonl", Message) == rows
    zipped = tmp_path / "a.jsonl.gz"
    zipped.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert list(storage.read_jsonl(zipped)) == list(storage.read_jsonl(tmp_path / "a.jsonl"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    storage.write_text(path, "old")

    def rows():
        yield {"fine": 1}
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError):
        storage.write_jsonl(path, rows())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_bad_line_is_named_with_its_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: not JSON"):
        list(storage.read_jsonl(path))
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: expected a JSON object, got list"):
        list(storage.read_jsonl(path))


def test_a_missing_or_truncated_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(storage.read_jsonl(tmp_path / "none.jsonl"))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 5000)[:-20])
    with pytest.raises(DataError, match="cannot be read on"):
        list(storage.read_jsonl(path))


def test_a_full_disk_is_a_storage_error():
    with pytest.raises(StorageError, match="No space left"), storage.storing(Path("/dev/full")):
        with open("/dev/full", "w") as file:
            file.write("x")
            file.flush()


def test_what_the_disk_cannot_hold_is_refused_before_it_is_begun(tmp_path):
    storage.check_room(tmp_path / "not" / "there", 1000)
    with pytest.raises(StorageError, match=r"will hold up to 1,152,921,504,606.8 MB and the disk"):
        storage.check_room(tmp_path, 1 << 60)


def test_a_refusal_that_tensorstore_wraps_is_a_storage_error(tmp_path):
    wrapped = ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [28]")
    with pytest.raises(StorageError, match=r"cannot write .*: No space left on device; free"):
        with storage.storing(tmp_path):
            raise wrapped
    with pytest.raises(ValueError, match=r"^of ours$"), storage.storing(tmp_path):
        raise ValueError("of ours")


def test_what_killed_writers_left_is_cleared_away(tmp_path):
    (tmp_path / ".rows.jsonl.123.partial").write_text("half")
    (tmp_path / ".student.partial").mkdir()  # a folder is its writer's
    (tmp_path / "rows.jsonl").write_text("whole")
    storage.clear_partial(tmp_path)
    storage.clear_partial(tmp_path / "none")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".student.partial", "rows.jsonl"]


def test_the_manifest_counts_only_while_its_files_are_whole(tmp_path):
    (tmp_path / "out.txt").write_text("hello")
    assert storage.read_manifest(tmp_path) is None
    storage.write_manifest(tmp_path, print_="p", outputs=["out.txt"], counts={"n": 1})
    manifest = storage.read_manifest(tmp_path)
    assert manifest is not None
    assert manifest["outputs"]["out.txt"]["bytes"] == 5
    assert manifest["counts"] == {"n": 1}
    (tmp_path / "out.txt").write_text("hell")
    assert storage.read_manifest(tmp_path) is None


def test_another_config_is_refused_and_named(tmp_path):
    storage.claim(tmp_path, {"run_dir": "r", "a": {"lr": 1, "t": (1, 2)}, "b": {"x": 1}})
    storage.claim(tmp_path, {"run_dir": "r", "a": {"lr": 1, "t": [1, 2]}, "b": {"x": 1}})
    changed = {"run_dir": "r", "a": {"lr": 1, "t": [1, 2]}, "b": {"x": 2}}
    with pytest.raises(RunFolderError, match=r"b\.x was 1, now 2"):
        storage.claim(tmp_path, changed)
    with pytest.raises(RunFolderError):
        storage.claim(tmp_path, changed, may_change={"b.y"})
    hints = {"a": "--redo first", "b": "--redo second", "c": "--redo third"}
    with pytest.raises(RunFolderError, match=r"or add --redo second$"):
        storage.claim(tmp_path, changed, redo=hints)
    both = {**changed, "a": {"lr": 2, "t": [1, 2]}}
    with pytest.raises(RunFolderError, match=r"or add --redo first$"):
        storage.claim(tmp_path, both, redo=hints)
    storage.claim(tmp_path, changed, may_change={"b"})
    assert storage.settled(tmp_path, changed)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_no_differences_to_itself(value):
    assert storage.differences(value, json.loads(json.dumps(value))) == []


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    code = (
        "import sys, time, pathlib\n"
        "from opengrok_jax import storage\n"
        "with storage.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match="in use by another"), storage.locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while True:
        try:
            with storage.locked(tmp_path):
                break
        except RunFolderError:
            assert time.monotonic() < deadline


def test_discard_spares_what_was_paid_for(tmp_path):
    for name in ("journal.sqlite", "responses.jsonl", storage.MANIFEST):
        (tmp_path / name).write_text("x")
    (tmp_path / "sub").mkdir()
    storage.discard(tmp_path, keep=("journal.sqlite",))
    assert os.listdir(tmp_path) == ["journal.sqlite"]
