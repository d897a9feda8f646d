import json

import pytest
from ml_collections import ConfigDict

from opengrok_jax import config as config_module
from opengrok_jax import pipeline, storage
from opengrok_jax.errors import ConfigError, DataError, RunFolderError


@pytest.fixture
def config(repository, tmp_path) -> ConfigDict:
    changes = [f"--config.run_dir={tmp_path / 'run'}", "--config.prompts.count=9"]
    return config_module.load(str(repository / "configs" / "demo.py:smoke"), changes)


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("log.jsonl", "lock")
    }


def test_a_stage_is_done_once(config, tmp_path, capsys):
    assert pipeline.run(config, only="plan-prompts") is True
    before = contents(tmp_path / "run")
    assert pipeline.run(config, only="plan-prompts") is False
    assert contents(tmp_path / "run") == before
    assert "nothing to do" in capsys.readouterr().err


def test_a_stage_needs_the_ones_before_it(config):
    with pytest.raises(RunFolderError, match="curate needs the results of refine"):
        pipeline.run(config, only="curate")


def test_a_changed_setting_is_refused_until_redone(config, tmp_path):
    pipeline.run(config, only="plan-prompts")
    with config.unlocked():
        config.update({"prompts": {"seed": 1}})
    with pytest.raises(RunFolderError, match=r"prompts\.seed was 0, now 1"):
        pipeline.run(config, only="plan-prompts")
    first = (tmp_path / "run" / "prompts" / "prompts.jsonl").read_bytes()
    assert pipeline.run(config, only="plan-prompts", redo="plan-prompts") is True
    assert (tmp_path / "run" / "prompts" / "prompts.jsonl").read_bytes() != first


def test_a_folder_may_be_moved(config, tmp_path):
    for verb in ("plan-prompts", "collect"):
        pipeline.run(config, only=verb)
    (tmp_path / "run").rename(tmp_path / "moved")
    with config.unlocked():
        config.run_dir = str(tmp_path / "moved")
    assert pipeline.run(config, only="collect") is False


def test_settings_of_a_stage_not_begun_may_change(config):
    pipeline.run(config, only="plan-prompts")
    with config.unlocked():
        config.update({"curation": {"min_words": 5}})
    assert pipeline.run(config, only="plan-prompts") is False


def test_how_a_stage_is_done_may_change_and_what_is_done_stays_done(config):
    for verb in ("plan-prompts", "collect"):
        pipeline.run(config, only=verb)
    with config.unlocked():
        config.update({"teacher": {"concurrency": 2, "cap_requests": 500}})
    assert pipeline.run(config, only="collect") is False
    with config.unlocked():
        config.update({"teacher": {"temperature": 0.1}})
    with pytest.raises(RunFolderError, match=r"teacher\.temperature was absent, now 0\.1\. Give"):
        pipeline.run(config, only="collect")


def test_a_teacher_that_was_named_wrongly_is_named_anew_until_all_is_collected(config):
    pipeline.run(config, only="plan-prompts")
    wrong = {"kind": "recorded", "recorded_file": "missing.jsonl"}
    with config.unlocked():
        config.teacher = ConfigDict(wrong)
    with pytest.raises(DataError, match="no such file"):
        pipeline.run(config, only="collect")
    with config.unlocked():
        config.teacher = ConfigDict({"kind": "recorded"})
    assert pipeline.run(config, only="collect") is True
    with config.unlocked():
        config.teacher = ConfigDict({"kind": "recorded", "max_tokens": 9})
    with pytest.raises(RunFolderError, match=r"teacher\.max_tokens"):
        pipeline.run(config, only="collect")


def test_redo_keeps_the_journal(config, tmp_path):
    for verb in ("plan-prompts", "collect"):
        pipeline.run(config, only=verb)
    journal = tmp_path / "run" / "teacher" / "journal.sqlite"
    assert journal.exists()
    answers = (tmp_path / "run" / "teacher" / "responses.jsonl").read_bytes()
    pipeline.run(config, only="plan-prompts", redo="plan-prompts")
    assert journal.exists()
    assert not (tmp_path / "run" / "teacher" / "responses.jsonl").exists()
    pipeline.run(config, only="collect")
    assert (tmp_path / "run" / "teacher" / "responses.jsonl").read_bytes() == answers


def test_a_stage_is_done_again_when_its_input_changed(config, tmp_path):
    for verb in ("plan-prompts", "collect"):
        pipeline.run(config, only=verb)
    manifest = tmp_path / "run" / "prompts" / storage.MANIFEST
    changed = storage.read_json(manifest) | {"fingerprint": "of another plan"}
    storage.write_json(manifest, changed)
    assert pipeline.run(config, only="collect") is True


def test_a_stage_is_done_again_when_a_file_it_watches_changed(config, tmp_path):
    for verb in ("plan-prompts", "collect", "refine", "curate"):
        pipeline.run(config, only=verb)
    assert pipeline.run(config, only="curate") is False
    assert pipeline.finished(config, "curate") == tmp_path / "run"
    kept = tmp_path / "run" / "curation" / "kept.jsonl"
    before = storage.read_manifest(kept.parent)
    row = next(storage.read_jsonl(kept.parent / "verdicts.jsonl"))
    decision = {"prompt_id": row["prompt_id"], "body_sha": row["body_sha"], "reviewer": "ann"}
    decision |= {"decision": "reject", "reason": "poor", "at": "2026-11-25T00:00:00Z"}
    storage.write_jsonl(tmp_path / "run" / "review" / "decisions.jsonl", [decision])
    with pytest.raises(RunFolderError, match="curate is not finished"):
        pipeline.finished(config, "curate")
    assert pipeline.run(config, only="curate") is True
    after = storage.read_manifest(kept.parent)
    assert before is not None
    assert after is not None
    assert after["counts"]["human"] == {"rejected": 1}
    assert after["fingerprint"] != before["fingerprint"]  # so the later stages are done again
    assert row["prompt_id"] not in kept.read_text()
    assert pipeline.run(config, only="curate") is False


def test_a_dry_run_leaves_no_trace(config, tmp_path, capsys):
    assert pipeline.run(config, dry_run=True) is True
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().err
    assert "plan-prompts: would decide what to ask" in said
    assert "collect would ask: teacher.kind 'recorded'" in said


def test_a_dry_run_reckons_what_a_teacher_costs(config, capsys):
    with config.unlocked():
        config.teacher = ConfigDict(
            {"kind": "api", "base_url": "http://h/v1", "model": "m", "rights": "r"}
            | {"price_input": "2", "price_output": "6", "max_tokens": 100}
        )
    assert pipeline.run(config, only="collect", dry_run=True) is True
    assert "plan-prompts` first" in capsys.readouterr().err
    pipeline.run(config, only="plan-prompts")
    assert pipeline.run(config, only="collect", dry_run=True) is True
    said = capsys.readouterr().err
    assert "collect: 9 prompts, low/mid/high: " in said
    assert "/ 0.01 USD" in said


def test_an_unknown_key_is_refused_before_any_work(config, tmp_path):
    with config.unlocked():
        config.update({"evaluation": {"limmit": 3}})
    with pytest.raises(ConfigError, match=r"did you mean evaluation\.limit"):
        pipeline.run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update({"trainig": {}}), "the config has trainig, which no stage reads"),
        (lambda c: c.pop("masking"), "the config lacks masking"),
    ],
)
def test_sections_are_checked(config, change, said):
    with config.unlocked():
        plain = config.to_dict()
    change(plain)
    with pytest.raises(ConfigError, match=said):
        pipeline.parts(ConfigDict(plain))


def test_status_tells_what_is_done(config, tmp_path):
    pipeline.run(config, only="plan-prompts")
    rows = {r["stage"]: r for r in pipeline.status(tmp_path / "run")}
    assert rows["plan-prompts"]["done"]
    assert rows["plan-prompts"]["counts"]["prompts"] == 9
    assert not rows["collect"]["done"]
    assert json.dumps(list(rows.values()))
