import json

import pytest

from opengrok_jax import refine, storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.records import Prompt, Response
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
