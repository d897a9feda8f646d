import json
import os
import subprocess
import sys
from typing import Any

import pytest

from opengrok_jax import storage
from opengrok_jax.curation import export
from opengrok_jax.errors import DataError
from tests.curation.export_runs import TEXTS, run_folder

TOLD = {
    "cost_ticks": 12_345, "received_at": 1764000000.0, "temperature": 0.7, "max_tokens": 256,
    "prompt_tokens": 40, "completion_tokens": 20, "fingerprint": "fp-1", "source": "api",
    "endpoint": "http://me:hunter2@localhost:8000/v1", "rights": "Apache-2.0 weights",
}  # fmt: skip


def exported(tmp_path, **more):
    run = run_folder(tmp_path / "run", **more)
    counts = export.run(run_dir=run, out=tmp_path / "out", licence="CC0")
    return counts, tmp_path / "out"


def rows(out, split):
    return list(storage.read_jsonl(out / f"{split}.jsonl"))


def test_a_row_carries_all_that_is_known(tmp_path):
    counts, out = exported(tmp_path, **TOLD)
    assert counts == {"train": counts["train"], "valid": 5 - counts["train"], "sources": 1}
    every = [*rows(out, "train"), *rows(out, "valid")]
    row = next(r for r in every if "album" in r["messages"][-1]["content"])
    assert row["messages"] == [
        {"role": "user", "content": "Question 4"},
        {"role": "assistant", "content": TEXTS[4].replace("ann@example.org", "[EMAIL]")},
    ]
    told = {k: v for k, v in TOLD.items() if k not in ("endpoint", "received_at")}
    assert {key: row[key] for key in told} == told
    assert row["endpoint"] == "http://localhost:8000/v1"
    assert row["received_at"] == "2025-11-24T16:00:00+00:00"
    assert (row["model_asked"], row["model_served"], row["synthetic"]) == ("m", "m-1", True)
    assert (row["decided_by"], row["original"], row["request_key"]) == ("rules", "", "k")
    assert "hunter2" not in "".join(p.read_text(errors="replace") for p in out.iterdir())


def test_a_row_says_what_its_prompt_was_made_of(tmp_path):
    run = run_folder(tmp_path / "run", techniques=("steps-cause",))
    ids = [row["id"] for row in storage.read_jsonl(run / "curation" / "kept.jsonl")]
    line = {"child": ids[1], "parent": ids[0], "operator": "tone", "round": 3, "cost": 7}
    storage.write_jsonl(run / "refinement" / "lineage.jsonl", [line])
    export.run(run_dir=run, out=tmp_path / "out")
    every = {r["id"]: r for split in ("train", "valid") for r in rows(tmp_path / "out", split)}
    told = [[every[i][n] for n in ("parent", "operator", "round")] for i in ids[:3]]
    assert told == [[None, "plan", 0], [ids[0], "tone", 3], [None, "plan", 0]]
    assert every[ids[1]]["techniques"] == ["steps-cause"]
    assert every[ids[1]]["template"] == "t"


def test_what_was_not_told_is_null(tmp_path):
    _, out = exported(tmp_path)
    row = rows(out, "train")[0]
    unknown = ("cost_ticks", "received_at", "temperature", "max_tokens", "prompt_tokens")
    assert [row[key] for key in unknown] == [None] * 5


def test_the_manifest_is_true_and_the_same_run_gives_the_same_bytes(tmp_path):
    counts, out = exported(tmp_path, **TOLD)
    manifest = storage.read_json(out / "manifest.json")
    assert manifest["files"].keys() == {p.name for p in out.iterdir()} - {"manifest.json"}
    for name, note in manifest["files"].items():
        assert note["sha256"] == storage.file_sha256(out / name)
        assert note["bytes"] == (out / name).stat().st_size
    assert manifest["rows"] == {split: counts[split] for split in ("train", "valid")}
    assert (manifest["licence"], manifest["synthetic"]) == ("CC0", True)
    assert manifest["sources"][0]["rights"] == "Apache-2.0 weights"
    assert manifest["curation"]["kept"] == 5
    export.run(run_dir=tmp_path / "run", out=tmp_path / "again", licence="CC0")
    export.run(run_dir=tmp_path / "run", out=out, licence="CC0")
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_parquet_holds_the_rows_of_the_jsonl(tmp_path):
    from pyarrow import parquet

    _, out = exported(tmp_path, **TOLD)
    for split in ("train", "valid"):
        assert parquet.read_table(out / f"{split}.parquet").to_pylist() == rows(out, split)


READ = """
import sys
from pathlib import Path
from datasets import Dataset, load_dataset
out, cache = Path(sys.argv[1]), sys.argv[2]
for kind, ending in (("json", "jsonl"), ("parquet", "parquet")):
    files = {split: str(out / f"{split}.{ending}") for split in ("train", "valid")}
    found = load_dataset(kind, data_files=files, cache_dir=cache)
    print(kind, found["train"].num_rows, found["valid"].num_rows, found["train"][0]["messages"])
alone = Dataset.from_parquet(str(out / "train.parquet"), cache_dir=cache)
print("alone", alone.num_rows, 0, alone[0]["messages"], alone.features["cost_ticks"].dtype)
"""


def test_the_datasets_library_reads_it_offline(tmp_path):
    counts, out = exported(tmp_path)  # without numbers: columns that are null in every row
    done = subprocess.run(
        [sys.executable, "-c", READ, str(out), str(tmp_path / "cache")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    as_json, as_parquet, alone = done.stdout.splitlines()
    messages = str(rows(out, "train")[0]["messages"])
    assert as_json == f"json {counts['train']} {counts['valid']} {messages}"
    assert as_parquet == f"parquet {counts['train']} {counts['valid']} {messages}"
    assert alone == f"alone {counts['train']} 0 {messages} int64"


# ---- what is refused --------------------------------------------------------------------------


def test_xai_without_an_agreement_is_refused_before_anything_is_written(tmp_path):
    grok: dict[str, Any] = {
        "source": "api",
        "endpoint": "https://api.x.ai/v1",
        "model_served": "grok-4.7",
    }
    run = run_folder(tmp_path / "run", **grok, rights="agreement: order form 17")
    kept = run / "curation" / "kept.jsonl"
    storage.write_jsonl(
        kept, [json.loads(line) | {"rights": "own"} for line in kept.read_text().splitlines()]
    )
    with pytest.raises(DataError, match=r"nothing was exported: .* written order form"):
        export.run(run_dir=run, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    allowed = tmp_path / "allowed"
    _, out = exported(allowed, **grok, rights="agreement: order form 17")
    card = (out / "CARD.md").read_text()
    assert "agreement: order form 17" in card
    assert "written order form" in card


def test_rights_lost_after_curation_are_seen(tmp_path):
    run = run_folder(tmp_path / "run")
    kept = run / "curation" / "kept.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    lines[2]["rights"] = " "
    storage.write_jsonl(kept, lines)
    with pytest.raises(DataError, match="without a declaration of rights"):
        export.run(run_dir=run, out=tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no earlier export"):
        exported(tmp_path)
    storage.write_json(out / "manifest.json", {"made_by": "somebody"})
    with pytest.raises(DataError, match="holds no earlier export"):
        export.run(run_dir=tmp_path / "run", out=out)
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_malformed_row_is_named(tmp_path):
    run = run_folder(tmp_path / "run")
    kept = run / "curation" / "kept.jsonl"
    kept.write_text(kept.read_text() + '{"id": "x"}\n')
    with pytest.raises(DataError, match=r"kept\.jsonl, record 6: a Example lacks"):
        export.run(run_dir=run, out=tmp_path / "out")
