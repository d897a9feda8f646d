"""What is stored is the teacher's own top-k; a stopped job goes on; wrong folders are refused."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import CheckpointError, ConfigError, DataError, RunFolderError
from opengrok_jax.masked_file import read_masked, write_masked
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.soft_file import SoftFile, response_positions
from opengrok_jax.training import soft_targets

K = 5


def run(asked: dict[str, Any], **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {**asked, **changes}
    return soft_targets.run(**given)


@pytest.fixture(scope="module")
def teacher(noisy: tuple[Path, Phi3]) -> tuple[Path, Phi3]:
    return noisy


@pytest.fixture(scope="module")
def asked(masked_file: Path, teacher: Any) -> dict[str, Any]:
    return {"masked_file": masked_file, "teacher": teacher[0], "k": K, "rows_per_batch": 2}


@pytest.fixture(scope="module")
def finished(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("soft") / "s"
    return out, run(asked, out=out)


def test_stores_the_teachers_most_likely_tokens(
    finished: Any, teacher: Any, masked_file: Path
) -> None:
    out, facts = finished
    examples, _ = read_masked(masked_file)
    opened, model, mass = SoftFile(out), teacher[1], []
    forward = nnx.jit(lambda model, tokens, segments: model(tokens, segments))
    for example in examples:
        found = opened.rows(example)
        assert found is not None
        tokens, segments = np.zeros((2, 1, 24), np.int32)  # one shape, so one compilation
        tokens[0, : len(example.tokens)], segments[0, : len(example.tokens)] = example.tokens, 1
        logits = np.asarray(forward(model, jnp.asarray(tokens), jnp.asarray(segments)), np.float64)
        for row, at in enumerate(response_positions(example)):
            logp = logits[0, at] - np.log(np.exp(logits[0, at]).sum())
            order = np.argsort(-logp)[:K]
            np.testing.assert_allclose(found.logprobs[row], logp[order], atol=2e-5)
            np.testing.assert_allclose(logp[found.ids[row]], logp[order], atol=2e-5)  # but for ties
            mass.append(np.exp(logp[order]).sum())
    assert facts["aligned_share"] == 1
    assert facts["examples"] == len(examples) == len(opened)
    assert facts["response_tokens"] == len(mass)
    assert facts["mean_stored_mass"] == pytest.approx(np.mean(mass), rel=1e-4)


def test_a_stopped_job_goes_on_and_a_finished_one_is_not_done_again(
    asked: dict[str, Any], finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soft_targets, "ROWS_PER_PART", 4)  # of the examples' dozen rows
    first = run(asked, out=tmp_path / "a")
    parts = sorted((tmp_path / "a").glob("part-*"))
    assert len(parts) > 2
    written = {path.name: path.read_bytes() for path in parts}
    (tmp_path / "a" / "manifest.json").unlink()  # as a kill after the second part leaves it
    for path in parts[2:]:
        path.unlink()
    kept = parts[0].stat().st_mtime_ns
    assert run(asked, out=tmp_path / "a") == first
    assert {path.name: path.read_bytes() for path in parts} == written
    assert parts[0].stat().st_mtime_ns == kept
    (tmp_path / "a" / "manifest.json").unlink()  # and a kill after the last part
    last = parts[-1].stat().st_mtime_ns
    assert run(asked, out=tmp_path / "a") == first
    assert run(asked, out=tmp_path / "a") == first
    assert parts[-1].stat().st_mtime_ns == last
    one, many = SoftFile(finished[0]), SoftFile(tmp_path / "a")
    assert len(one) == len(many)


def test_other_settings_in_a_begun_folder_are_refused(asked: dict[str, Any], finished: Any) -> None:
    with pytest.raises(RunFolderError, match="k was 5, now 6"):
        run(asked, k=6, out=finished[0])
    with pytest.raises(RunFolderError, match="rows_per_batch was 2, now 3"):
        run(asked, rows_per_batch=3, out=finished[0])


@pytest.mark.parametrize("k", [0, 64])
def test_a_k_out_of_range_is_refused(asked: dict[str, Any], tmp_path: Path, k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}; expected 1 to 63"):
        run(asked, k=k, out=tmp_path / "s")
    assert not (tmp_path / "s").exists(), "the mended command may take the same folder"


def test_no_row_at_once_is_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows_per_batch is 0; expected 1 or more"):
        run(asked, rows_per_batch=0, out=tmp_path / "s")


def test_data_of_another_vocabulary_or_none_is_refused(
    asked: dict[str, Any], examples: Any, tmp_path: Path
) -> None:
    path = tmp_path / "masked.parquet"
    write_masked(path, examples, {"tokenizer": "", "vocab_size": 99})
    with pytest.raises(ConfigError, match=r"a tokenizer of 99 ids, the model in .* has 64"):
        run(asked, masked_file=path, out=tmp_path / "s")
    write_masked(path, [], {"tokenizer": "", "vocab_size": 61})
    with pytest.raises(DataError, match="holds no example"):
        run(asked, masked_file=path, out=tmp_path / "t")
    with pytest.raises(CheckpointError, match="holds no model"):
        run(asked, teacher=tmp_path, out=tmp_path / "u")
    assert not list(tmp_path.glob("*/part-*.arrow"))
