"""The build on Ray Data: a local cluster of two processes, one of them killed midway."""

import os
import signal
import subprocess
import sys
import time

import pytest

from opengrok_jax.errors import MissingExtra
from opengrok_jax.masking import ray_workers
from tests.masking.built import everything, make_examples, write

SCRIPT = """
import sys
from pathlib import Path
from opengrok_jax.masking import build, encode
if __name__ == "__main__":
    build.run(examples_file=Path(sys.argv[1]), out=Path(sys.argv[2]), shard_examples=3000,
              runner=sys.argv[3], workers=2 if sys.argv[3] == "ray" else 1)
"""


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'opengrok-jax\[ray\]'"):
        with ray_workers.cluster("", 2):
            pass


def actors(root: int) -> list[int]:
    """The processes of Ray below a process that do jobs."""
    lines = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    rows = [(int(a), int(b), rest) for a, b, rest in (line.split(None, 2) for line in lines)]
    below, grown = {root}, True
    while grown:
        more = {pid for pid, parent, _ in rows if parent in below} - below
        below, grown = below | more, bool(more)
    return [pid for pid, _, args in rows if pid in below and args.startswith("ray::") and
            "MapWorker" in args]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_process_of_the_cluster_changes_no_byte(tmp_path, repository, shared_data):
    pytest.importorskip("ray")
    import gzip
    import json

    posts = shared_data / "tweeteval" / "sentiment.train-rebuilt.jsonl.gz"
    with gzip.open(posts, "rt") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(3100), file, strict=False)]
    examples = make_examples([([text], "A post.") for text in texts])
    file = write(tmp_path / "examples.jsonl", examples)
    script = tmp_path / "build.py"
    script.write_text(SCRIPT)
    paths = [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAY_worker_niceness": "0"}
    command = [sys.executable, str(script), str(file)]
    process = subprocess.Popen([*command, str(tmp_path / "ray"), "ray"], env=environment)
    words = tmp_path / "ray" / "cache" / "words"
    killed = []
    deadline = time.monotonic() + 600
    try:
        while process.poll() is None and not killed and time.monotonic() < deadline:
            found = actors(process.pid)
            # Two at work, at the annotation, and it is not over: there are four chunks.
            if len(found) >= 2 and len(list(words.glob("*/*.npz"))) in (1, 2):
                os.kill(found[0], signal.SIGKILL)
                killed = [found[0]]
            time.sleep(0.05)
        assert killed, "both processes were at work, and one was killed"
        assert process.wait(timeout=600) == 0
    finally:
        process.kill()
    subprocess.run([*command, str(tmp_path / "local"), "local"], check=True, env=environment)
    assert everything(tmp_path / "ray") == everything(tmp_path / "local")
