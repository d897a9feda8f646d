import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opengrok_jax import refine, storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.records import Prompt, Response
from opengrok_jax.teacher.simulator import simulating
from opengrok_jax.teacher.simulator.acts import Act
from tests.simulated_teacher import answers, planned, served


@pytest.fixture
def files(tmp_path):
    prompts = planned(27)
    storage.write_jsonl(tmp_path / "prompts.jsonl", prompts)
    storage.write_jsonl(tmp_path / "responses.jsonl", answers(prompts).values())
    (tmp_path / "logprobs.jsonl").write_text('{"a": 1}\n')
    return {f"{n}_file": tmp_path / f"{n}.jsonl" for n in ("prompts", "responses", "logprobs")}


def test_without_rounds_everything_is_handed_on_as_it_is(files, tmp_path):
    counts = refine.run(
        **files, out=tmp_path / "out", prompts={"source": "posts"}, teacher={"kind": "recorded"}
    )
    assert counts["asked"] == 0
    for argument, path in files.items():
        name = argument.removesuffix("_file") + ".jsonl"
        assert (tmp_path / "out" / name).read_bytes() == path.read_bytes()
    assert (tmp_path / "out" / "lineage.jsonl").read_bytes() == b""
    assert not (tmp_path / "out" / "asked").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": -1}, "refinement.rounds is -1"),
        ({"batch": 0}, "refinement.batch is 0"),
        ({"elites": 0}, "refinement.elites"),
        ({"budget_share": -0.1}, "refinement.budget_share"),
        ({"budget_share": float("nan")}, "refinement.budget_share"),
        ({"stall": 2.0}, "refinement.stall"),
        ({"patience": 0}, "refinement.patience"),
        ({"rounds": 1, "teacher": {"kind": "recorded"}}, "a recorded one knows only the planned"),
        ({"rounds": 1, "prompts": {"source": "posts"}}, "needs prompts.source='axes'"),
    ],
)
def test_wrong_settings_are_refused(files, tmp_path, settings, said):
    given = {"prompts": {}, "teacher": {"kind": "api"}} | settings
    with pytest.raises(ConfigError, match=said):
        refine.run(**files, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_wrong_row_of_losses_is_named(files, tmp_path):
    (tmp_path / "losses.jsonl").write_text('{"prompt_id": "a", "loss": 1}\n{"prompt_id": "b"}\n')
    with pytest.raises(DataError, match="row 2"):
        refine.run(
            **files,
            out=tmp_path / "out",
            prompts={},
            teacher={"kind": "api"},
            rounds=1,
            losses_file=str(tmp_path / "losses.jsonl"),
        )


def test_rounds_ask_a_real_endpoint_and_hand_on_both(files, tmp_path):
    with served() as (base_url, bodies):
        teacher = {"kind": "api", "base_url": base_url, "model": "tiny", "rights": "own-model"}
        settings = {
            **files,
            "out": tmp_path / "out",
            "prompts": {"count": 27},
            "teacher": teacher,
            "rounds": 3,
            "batch": 6,
            "budget_share": 10.0,
            "stall": 0.0,
        }
        counts = refine.run(**settings)
        assert counts["asked"] == 18
        assert len(bodies) == 18
        # The same again, as after a kill between the last answer and the manifest: nothing is sent.
        before = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.json*")}
        assert refine.run(**settings) == counts
        assert len(bodies) == 18
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.json*")} == before
    prompts = storage.read_records(tmp_path / "out" / "prompts.jsonl", Prompt)
    responses = storage.read_records(tmp_path / "out" / "responses.jsonl", Response)
    assert [r.prompt_id for r in responses] == [p.id for p in prompts]
    assert len(prompts) == 27 + 18
    lineage = list(storage.read_jsonl(tmp_path / "out" / "lineage.jsonl"))
    assert [row["child"] for row in lineage] == [p.id for p in prompts]
    picture = json.loads((tmp_path / "out" / "archive.json").read_text())
    assert len(picture["qd_scores"]) == 4
    held = {e["prompt"] for cell in picture["cells"] for e in cell["elites"]}
    assert held <= {row["child"] for row in lineage if row["accepted"]}


CHILD = """
import sys
from pathlib import Path
from opengrok_jax import refine
folder, out, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
refine.run(
    prompts_file=folder / "prompts.jsonl", responses_file=folder / "responses.jsonl",
    logprobs_file=folder / "logprobs.jsonl", out=out, prompts={"count": 27},
    teacher={"kind": "api", "base_url": url, "model": "tiny-teacher", "rights": "own-model",
             "max_attempts": 1, "concurrency": 3},
    rounds=int(sys.argv[4]), batch=int(sys.argv[5]), budget_share=100.0, stall=0.0)
"""


def hopeless(question):
    """Every eleventh prompt is refused, another eleventh fails for good."""
    faults = {
        0: Act(status=403, body=b'{"error": "Content violates usage guidelines"}'),
        1: Act(status=413),
    }
    return faults.get(int(question.key, 16) % 11)


def started(tmp_path, out, teacher, rounds, batch):
    root = str(Path(__file__).parents[1])
    arguments = [str(tmp_path), str(tmp_path / out), teacher.base_url, str(rounds), str(batch)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, "PYTHONPATH": root, "NO_PROXY": "*"},
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_and_resumed(tmp_path, *, rounds, batch, kills, seed):
    """Kills a refinement at random moments; it must end as the one that nobody disturbed."""
    chance = random.Random(seed)
    with simulating(script=hopeless, latency_sec=0.02) as teacher:
        whole = started(tmp_path, "whole", teacher, rounds, batch)
        error = whole.communicate(timeout=250)[1]
        assert whole.returncode == 0, error
    with simulating(script=hopeless, latency_sec=0.02) as teacher:
        for kill in range(kills):
            process = started(tmp_path, "killed", teacher, rounds, batch)
            # From before the first answer of this process to somewhere in its share of the work.
            wanted = rounds * batch * kill // kills + chance.randrange(rounds * batch // kills)
            while sum(teacher.ledger.answered.values()) < wanted and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        last = started(tmp_path, "killed", teacher, rounds, batch)
        error = last.communicate(timeout=250)[1]
        assert last.returncode == 0, error
        sent = dict(teacher.ledger.sent)
    names = ("proposed.jsonl", "lineage.jsonl", "archive.json", "prompts.jsonl", "missed.jsonl")
    for name in names:
        a, b = tmp_path / "whole" / name, tmp_path / "killed" / name
        assert a.read_bytes() == b.read_bytes(), name
    rows = [
        storage.read_records(tmp_path / out / "responses.jsonl", Response)
        for out in ("whole", "killed")
    ]
    assert [(r.prompt_id, r.text) for r in rows[0]] == [(r.prompt_id, r.text) for r in rows[1]]
    # nothing that was answered is asked again: at most what was in flight, and the failed ones
    again = sum(sent.values()) - len(sent)
    failed = sum(int(key, 16) % 11 == 1 for key in sent)
    assert again <= kills * 3 + failed * kills
    return rows[0]


def test_kill_9_of_a_refinement_changes_nothing(files, tmp_path):
    rows = killed_and_resumed(tmp_path, rounds=3, batch=12, kills=2, seed=1)
    assert 27 + 20 < len(rows) < 27 + 36  # some have no answer


@pytest.mark.slow
def test_ten_kills_of_a_refinement_change_nothing(files, tmp_path):
    killed_and_resumed(tmp_path, rounds=10, batch=20, kills=10, seed=2)
