"""HF folder -> model -> HF folder: byte for byte, loud about what does not fit, never half there."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import CheckpointError, StorageError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.tensorfile import read_header, write_file
from opengrok_jax.model.weights import load_hf, save_hf

CONFIG = Phi3Config.tiny(31, hidden_size=12, intermediate_size=10, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1)  # fmt: skip


def weights_and_config(folder: Path) -> dict[str, bytes]:
    names = [p for p in folder.iterdir() if p.name.startswith("model") or p.name == "config.json"]
    return {p.name: p.read_bytes() for p in names}


@pytest.fixture(scope="module")
def model(random_model: Callable[..., Phi3]) -> Phi3:
    return random_model(CONFIG)


@pytest.fixture
def saved(model: Phi3, tmp_path: Path) -> Path:
    save_hf(model, CONFIG, tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Changes the tensors of a saved model."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.read() for name, tensor in read_header(path).items()}
    change(tensors)
    write_file(path, [(n, a.shape, a.dtype) for n, a in tensors.items()], tensors.__getitem__)


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_round_trip_is_byte_identical(
    half: bool, tied: bool, shards: bool, hf_model: Any, hf_folder: Any, tmp_path: Path
) -> None:
    theirs = hf_model(tie_word_embeddings=tied)
    limit = 7000 if shards else 10**9  # small enough for a tensor above it
    folder = hf_folder(theirs.bfloat16() if half else theirs, max_shard_size=limit)
    config = hf_config.read(folder)
    save_hf(load_hf(folder), config, tmp_path / "back", max_shard_bytes=limit)
    before, after = weights_and_config(folder), weights_and_config(tmp_path / "back")
    assert set(before) == set(after)
    assert [name for name in before if before[name] != after[name]] == []
    assert (len(before) > 3) == shards


def test_transformers_loads_a_changed_export(
    hf_model: Any, hf_folder: Any, hf_logits: Any, make_long_rope: Any, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    folder = hf_folder(hf_model(**make_long_rope(7)))
    config = replace(hf_config.read(folder), sliding_window=6)
    ours = load_hf(folder, config)
    ours.norm.weight[...] = ours.norm.weight[...] * 2
    save_hf(ours, config, tmp_path / "out")
    theirs = transformers.Phi3ForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    )
    tokens = np.random.default_rng(0).integers(8, 61, (1, 19))
    want = hf_logits(theirs.eval(), tokens)
    got = nnx.jit(lambda model, t: model(t, jnp.ones_like(t)))(ours, jnp.asarray(tokens))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_dtypes_of_loading_and_saving(saved: Path, tmp_path: Path) -> None:
    half = load_hf(saved, param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half))} == {jnp.dtype(jnp.bfloat16)}
    whole = load_hf(saved)
    for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (half, whole)), strict=True):
        np.testing.assert_array_equal(a, b.astype(jnp.bfloat16))
    save_hf(whole, CONFIG, tmp_path / "half", dtype=jnp.bfloat16)
    assert json.loads((tmp_path / "half/config.json").read_text())["torch_dtype"] == "bfloat16"
    again = load_hf(tmp_path / "half")
    for a, b in zip(*(jax.tree.leaves(nnx.state(m)) for m in (half, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match=r"cannot store dtype .*int8"):
        save_hf(whole, CONFIG, tmp_path / "int", dtype=jnp.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"1 missing: model\.norm\.weight"),
        (
            lambda t: t.update({"model.layers.0.self_attn.bias": np.zeros(2, np.float32)}),
            r"1 not part of the model: model\.layers\.0\.self_attn\.bias",
        ),
        (
            lambda t: t.update({"lm_head.weight": t["lm_head.weight"].T}),
            r"1 of another shape: lm_head\.weight \(file \(12, 31\), config \(31, 12\)\)",
        ),
        (lambda t: t.clear(), "15 missing: model.embed_tokens.weight, .*, \\.\\."),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[..., Any], message: str, saved: Path
) -> None:
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_hf(saved)


def test_another_config_is_refused(saved: Path, model: Phi3, tmp_path: Path) -> None:
    deeper = replace(CONFIG, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"6 missing: model\.layers\.2"):
        load_hf(saved, deeper)
    with pytest.raises(CheckpointError, match="built from"):
        save_hf(model, deeper, tmp_path / "deeper")


def test_a_truncated_file_is_named(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a whole safetensors file"):
        load_hf(saved)


def test_what_is_there_is_not_overwritten_unless_asked(saved: Path, model: Phi3) -> None:
    (saved / "note.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is there already"):
        save_hf(model, CONFIG, saved)
    assert (saved / "note.txt").exists()
    save_hf(model, CONFIG, saved, overwrite=True)
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in saved.parent.iterdir()] == ["saved"]
    other = saved.parent / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is there already"):
        save_hf(model, CONFIG, other, overwrite=True)


def test_a_refused_write_leaves_nothing_behind(
    model: Phi3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("opengrok_jax.model.tensorfile.os.fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            save_hf(model, CONFIG, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_near_the_largest_tensor(
    random_model: Callable[..., Phi3], tmp_path: Path
) -> None:
    """Host memory beside the parameters themselves, which XLA holds and tracemalloc cannot see."""
    config = Phi3Config.tiny(512, hidden_size=256, intermediate_size=512, num_hidden_layers=12)
    model = random_model(config)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model)))
    largest = 2 * 512 * 256 * 4
    assert total > 25 * largest
    for action in (
        lambda: save_hf(model, config, tmp_path / "out"),
        lambda: load_hf(tmp_path / "out"),
    ):
        tracemalloc.start()
        action()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 * largest
