"""The safetensors container against the safetensors library, and broken files."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opengrok_jax.errors import CheckpointError
from opengrok_jax.model.tensorfile import (
    DTYPES,
    index_text,
    plan_shards,
    read_folder,
    read_header,
    write_file,
)

NUMPY = {"F32": np.float32, "F16": np.float16}


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "z.first": rng.normal(size=(3, 5)).astype(np.float32),
        "b": rng.normal(size=(7,)).astype(np.float16),
        "a.last": rng.normal(size=(2, 1, 11)).astype(np.float32),
    }


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    write_file(path, [(n, a.shape, a.dtype) for n, a in tensors.items()], tensors.__getitem__)


def test_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="needs the safetensors library")
    library.save_file(arrays(), tmp_path / "library", metadata={"format": "pt"})
    write(tmp_path / "ours", arrays())
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "library").read_bytes()


def test_bfloat16_bytes_are_those_of_the_library(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    library = pytest.importorskip("safetensors.torch", reason="needs the safetensors library")
    values = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    mixed = {"half": torch.tensor(values).bfloat16(), "whole": torch.tensor(values)}
    library.save_file(mixed, tmp_path / "library", metadata={"format": "pt"})
    write(tmp_path / "ours", {"half": values.astype(ml_dtypes.bfloat16), "whole": values})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "library").read_bytes()


def test_slices_are_read_as_numpy_slices(tmp_path: Path) -> None:
    write(tmp_path / "file", arrays())
    tensors = read_header(tmp_path / "file")
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
        n: (a.shape, a.dtype) for n, a in arrays().items()
    }
    for name, array in arrays().items():
        np.testing.assert_array_equal(tensors[name].read(), array)
    part = (slice(1, 3), slice(None, 4))
    got = tensors["z.first"].read(part, np.dtype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(got, arrays()["z.first"][part].astype(ml_dtypes.bfloat16))
    (tmp_path / "file").unlink()
    assert got.sum() == got.sum(), "an array that was read does not need the file any more"


def test_a_file_cut_short_after_its_header_was_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "file", arrays())
    tensor = read_header(tmp_path / "file")["a.last"]
    with (tmp_path / "file").open("r+b") as file:
        file.truncate(tensor.offset + 8)
    with pytest.raises(CheckpointError, match=r"it ends within a\.last"):
        tensor.read()
    (tmp_path / "file").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read weights: .*No such file"):
        tensor.read()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, arrays())
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_header(path)


def with_header(path: Path, header: Any, body: bytes = b"\0" * 24) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "header is not JSON"),
        ([1], "malformed header"),
        ({"a": {"dtype": "F32"}}, "malformed header"),
        ({"a": ENTRY | {"dtype": "I8"}}, "tensor a is stored as I8; only .*F32.*unquantised"),
        ({"a": ENTRY | {"shape": [2, 2]}}, "byte range of a is wrong"),
        ({"a": ENTRY | {"data_offsets": [8, 32]}}, "byte range of a is wrong"),
        ({"a": ENTRY, "b": ENTRY}, "byte range of b is wrong"),
        ({}, "instead of"),
    ],
)
def test_a_malformed_header_is_refused(header: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_header(with_header(tmp_path / "file", header))


def test_the_smallest_good_file_is_read(tmp_path: Path) -> None:
    assert not read_header(with_header(tmp_path / "file", {"a": ENTRY}))["a"].read().any()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "pickled weights .* are never loaded"),
        ({"weight_map": {"a": "one"}}, r"No such file"),
        ({"weight_map": {"a": "../one"}}, "files of its own folder only"),
        ({"weight_map": {"b": "good"}}, "places b in good, which does not hold it"),
        ({"weights": 1}, "not an index"),
        ({"weight_map": 1}, "not an index"),
        ("{", "not an index"),
    ],
)
def test_a_bad_index_is_refused(index: Any, message: str, tmp_path: Path) -> None:
    with_header(tmp_path / "good", {"a": ENTRY})
    if index is not None:
        text = index if isinstance(index, str) else json.dumps(index)
        (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_folder(tmp_path)


def test_shards_follow_the_limit() -> None:
    shapes = {"a": (3,), "b": (2,), "big": (9,), "c": (3,), "d": (3,)}
    dtypes = dict.fromkeys(shapes, DTYPES["F32"])
    shards = plan_shards(shapes, dtypes, limit=24)
    # The tensor above the limit is numbered before the file that was being filled.
    assert list(shards.values()) == [["big"], ["a", "b"], ["c", "d"]]
    assert next(iter(shards)) == "model-00001-of-00003.safetensors"
    index = json.loads(index_text(shards, shapes, dtypes))
    assert index["metadata"] == {"total_parameters": 20, "total_size": 80}
    assert plan_shards(shapes, dtypes, limit=80) == {"model.safetensors": list(shapes)}
