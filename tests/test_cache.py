import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opengrok_jax.cache import AnswerCache, key_of
from opengrok_jax.errors import StorageError


def test_answers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "answers" / "a.jsonl"
    cache = AnswerCache(path)
    assert "x" not in cache
    cache.add([("x", [-1.5, 2.0]), ("y", "ümläut\n"), ("z", None)])
    for opened in (cache, AnswerCache(path)):
        assert [opened[key] for key in "xyz"] == [[-1.5, 2.0], "ümläut\n", None]
    assert "z" in AnswerCache(path)


@pytest.mark.parametrize(
    "torn", [b'{"key": "y", "val', b"\0\0\0\n", b'{"key": "y", "value": 1}', b"[]\n"]
)
def test_a_torn_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    AnswerCache(path).add([("x", 1)])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    cache = AnswerCache(path)
    assert "x" in cache
    assert path.read_bytes() == whole
    cache.add([("y", 2)])
    assert AnswerCache(path)["y"] == 2


def test_keys_tell_everything_apart() -> None:
    parts = {"system": {"w": "1"}, "prompt": "p", "labels": ("a", "b")}
    keys = {
        key_of(**parts),
        key_of(**{**parts, "prompt": "q"}),
        key_of(**{**parts, "labels": ("b", "a")}),
        key_of(**{**parts, "system": {"w": "2"}}),
        key_of(system={"w": "1"}, prompt="p", max_new_tokens=3),
    }
    assert len(keys) == 5
    assert key_of(**parts) == key_of(**parts)


def test_what_was_added_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    code = (
        "import sys, itertools, pathlib\n"
        "from opengrok_jax.cache import AnswerCache\n"
        "cache = AnswerCache(pathlib.Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    cache.add((f'{n}-{i}', 'x' * 300) for i in range(20))\n"
        "    print(n, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = -1
    while last < 20:
        last = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.communicate()[0].split()
    last = max([last, *map(int, rest)])
    cache = AnswerCache(path)
    assert all(f"{n}-{i}" in cache for n in range(last + 1) for i in range(20))


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError):
        AnswerCache(blocked / "a.jsonl").add([("x", 1)])
