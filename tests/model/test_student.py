import gc
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import CheckpointError
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import digests, load_student, save_student

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def forget_broken_reads():
    """TensorStore's reads that a damaged file broke off complain when they are collected."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def config():
    return Phi3Config.tiny(
        64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )


@pytest.fixture(scope="module")
def model(config):
    return Phi3(config, rngs=nnx.Rngs(0))


@pytest.fixture
def saved(tmp_path, model, config):
    save_student(tmp_path / "student", model, config)
    return tmp_path / "student"


def parameters(model):
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def test_comes_back_bit_by_bit(saved, model, config):
    loaded, loaded_config = load_student(saved)
    assert loaded_config == config
    jax.tree.map(np.testing.assert_array_equal, parameters(loaded), parameters(model))
    assert nnx.graphdef(loaded) == nnx.graphdef(model)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["student"]


def test_keeps_the_dtype_it_was_stored_in(tmp_path, config):
    model = Phi3(config, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    save_student(tmp_path / "student", model, config)
    loaded, _ = load_student(tmp_path / "student", dtype=jnp.bfloat16)
    assert loaded.dtype == jnp.bfloat16
    jax.tree.map(np.testing.assert_array_equal, parameters(loaded), parameters(model))
    assert loaded.norm.weight.dtype == jnp.bfloat16


def test_takes_the_place_of_an_older_one(saved, config):
    other = Phi3(config, rngs=nnx.Rngs(7))
    save_student(saved, other, config)
    jax.tree.map(
        np.testing.assert_array_equal, parameters(load_student(saved)[0]), parameters(other)
    )


def test_leftovers_of_a_killed_save_do_no_harm(saved, model, config):
    (saved.parent / ".student.partial" / "params").mkdir(parents=True)
    save_student(saved, model, config)
    load_student(saved)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["student"]


def test_refuses_a_folder_of_something_else(tmp_path, model, config):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds something else"):
        save_student(tmp_path, model, config)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_refuses_another_config(tmp_path, model):
    with pytest.raises(CheckpointError, match="was built from"):
        save_student(tmp_path / "student", model, Phi3Config.tiny(64))


@pytest.mark.parametrize("name", ["config.json", "params", "digests.json"])
def test_says_what_is_missing(saved, name):
    os.rename(saved / name, saved / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_student(saved)


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_says_when_it_was_cut_short(saved):
    path = largest_file(saved / "params")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="copy the student anew"):
        load_student(saved)


def test_says_when_a_number_is_not_what_was_written(saved):
    expected = json.loads((saved / "digests.json").read_text())
    name = sorted(expected)[0]
    expected[name] ^= 1
    (saved / "digests.json").write_text(json.dumps(expected))
    with pytest.raises(CheckpointError, match="damaged: 1 arrays") as caught:
        load_student(saved)
    assert name in str(caught.value)


def test_says_when_the_config_is_of_another_size(saved):
    raw = json.loads((saved / "config.json").read_text())
    raw["intermediate_size"] *= 2
    (saved / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_student(saved)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_digests_see_every_bit_and_every_place(dtype):
    values = jnp.arange(1, 25).reshape(2, 3, 4).astype(dtype)
    before = digests({"a": values})
    assert digests({"a": values}) == before
    swapped = values.at[0, 0, 0].set(values[1, 2, 3]).at[1, 2, 3].set(values[0, 0, 0])
    assert digests({"a": swapped}) != before
    assert digests({"a": values.at[1, 1, 1].set(0)}) != before
    assert digests({"b": values}) != before
    assert digests({"a": values.reshape(2, 12)}) != before
