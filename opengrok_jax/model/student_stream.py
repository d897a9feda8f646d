"""A student's parameters row by row: what Orbax reads whole, written and read in blocks.

Orbax's own save takes every array whole, and a stacked block parameter of a large model is larger
than the memory this may use. So the same files are written here with TensorStore: one OCDBT
database, a zarr array per parameter under the parameter's dotted path, and Orbax's `_METADATA`.
`student.load_student` restores it with Orbax as if Orbax had written it; the tests do so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from flax import nnx

from opengrok_jax import storage
from opengrok_jax.errors import CheckpointError, DataError, StorageError
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import DIGESTS, PARAMS, compare_digests, digest_rows
from opengrok_jax.model.weights import hf_names

BLOCK_BYTES = 16 * 2**20  # read, converted and written at a time; also the size of a zarr chunk


@dataclass(frozen=True)
class Place:
    """Where a HF tensor lies in a student."""

    parameter: str  # dotted path, the name of the array in the database
    layer: int | None  # index in the stacked array
    shape: tuple[int, ...]  # of the whole array
    digest: str  # its key in digests.json


def places(config: Phi3Config) -> dict[str, Place]:
    """HF name -> its place, for every tensor that the config calls for."""
    state = nnx.state(nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0))), nnx.Param)
    keys = [jax.tree_util.keystr(key) for key, _ in jax.tree_util.tree_leaves_with_path(state)]
    found = {}
    for (path, parameter), key in zip(nnx.to_flat_state(state), keys, strict=True):
        dotted, stacked = ".".join(map(str, path)), path[0] == "layers"
        for layer, name in enumerate(hf_names(path, config.num_hidden_layers)):
            at = layer if stacked else None
            found[name] = Place(dotted, at, tuple(parameter.shape), key)
    return found


def blocks(shape: tuple[int, ...], itemsize: int) -> list[slice]:
    """Slices of the first axis, of at most BLOCK_BYTES each; a vector is one block.

    >>> blocks((10, 2**20), 4)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    step = shape[0] if len(shape) == 1 else _rows(shape, itemsize)
    return [slice(at, min(at + step, shape[0])) for at in range(0, shape[0], step)]


def _rows(shape: tuple[int, ...], itemsize: int) -> int:
    """Rows of a matrix (rows, columns) in a block."""
    return min(shape[0], max(1, BLOCK_BYTES // (shape[1] * itemsize)))


class StudentWriter:
    """Holds the open arrays of a `params` folder while tensors are written into them."""

    def __init__(self, folder: Path, config: Phi3Config, dtypes: Mapping[str, np.dtype]) -> None:
        """Lays out empty arrays.

        Args:
          folder: of the student; exists, and is somewhere temporary.
          config: of the model.
          dtypes: HF name -> what it is stored in; the layers of a parameter agree.

        Raises:
          CheckpointError: layers of one parameter in two dtypes.
          StorageError: the disk refused.
        """
        self._folder, self._places = folder, places(config)
        self._stores: dict[str, Any] = {}
        self.digests: dict[str, int] = {}
        kept: dict[str, np.dtype] = {}
        for name, place in self._places.items():
            if kept.setdefault(place.parameter, dtypes[name]) != dtypes[name]:
                raise CheckpointError(
                    f"{name} is stored as {dtypes[name]}, the layers before as "
                    f"{kept[place.parameter]}; give --dtype to make them one"
                )
            if place.parameter not in self._stores:
                of_tensor = place.shape[place.layer is not None :]
                chunk = list(of_tensor)
                chunk[0] = chunk[0] if len(chunk) == 1 else _rows(of_tensor, dtypes[name].itemsize)
                self._stores[place.parameter] = _written(
                    folder,
                    ts.open(
                        _spec(folder / PARAMS, place.parameter),
                        create=True,
                        open=True,
                        dtype=ts.dtype(dtypes[name]),
                        shape=place.shape,
                        chunk_layout=ts.ChunkLayout(
                            chunk_shape=[1] * (place.layer is not None) + chunk
                        ),
                    ),
                )

    def write(self, name: str, rows: slice, block: np.ndarray) -> None:
        """Stores rows of a HF tensor; back when they are on disk. Raises StorageError."""
        place = self._places[name]
        at = (rows,) if place.layer is None else (place.layer, rows)
        _written(self._folder, self._stores[place.parameter][at].write(block))
        share = digest_rows(block, layer=place.layer, first=rows.start)
        self.digests[place.digest] = (self.digests.get(place.digest, 0) + share) % 2**32

    def finish(self) -> None:
        """Orbax's description of the tree and our digests. Raises StorageError."""
        described = {}
        for place in self._places.values():
            path = tuple(place.parameter.split("."))
            described[str(path)] = {
                "key_metadata": [{"key": key, "key_type": 2} for key in path],
                "value_metadata": {
                    "value_type": "jax.Array",
                    "skip_deserialize": False,
                    "write_shape": list(place.shape),
                },
            }
        metadata = {
            "tree_metadata": described,
            "use_ocdbt": True,
            "use_zarr3": False,
            "store_array_data_equal_to_fill_value": True,
            "custom_metadata": None,
        }
        handler = "orbax.checkpoint._src.handlers.standard_checkpoint_handler"
        about = {"item_handlers": f"{handler}.StandardCheckpointHandler", "custom_metadata": {}}
        storage.write_text(self._folder / PARAMS / "_METADATA", json.dumps(metadata))
        storage.write_text(self._folder / PARAMS / "_CHECKPOINT_METADATA", json.dumps(about))
        storage.write_json(self._folder / DIGESTS, self.digests)


class StudentReader:
    """Holds the open arrays of a student, and the digest of what was read of each so far."""

    def __init__(self, folder: Path, config: Phi3Config) -> None:
        """Opens every array; reads none.

        Raises:
          CheckpointError: an array is missing, of another shape or not part of the model, or the
            folder is broken; names it.
        """
        self._folder, self._places = folder, places(config)
        self._found: dict[str, int] = {}
        try:
            self._expected = storage.read_json(folder / DIGESTS)
        except DataError as error:
            raise CheckpointError(f"{error}; copy the student anew") from None
        base = ts.KvStore.open(_spec(folder / PARAMS, "")["kvstore"])
        listed = _read(folder / PARAMS, lambda: base.result().list().result())
        there = {key.decode().rpartition("/")[0] for key in listed}
        wanted = {place.parameter: place.shape for place in self._places.values()}
        for what, names in (
            ("missing", set(wanted) - there),
            ("not part of the model", there - set(wanted)),
        ):
            if names:
                raise CheckpointError(
                    f"{folder}: the parameters do not fit the config; {len(names)} {what}: "
                    f"{', '.join(sorted(names)[:3])}"
                )
        self._stores: dict[str, Any] = {}
        for name, shape in wanted.items():
            spec = _spec(folder / PARAMS, name)
            store = _read(f"{folder}: {name}", lambda spec=spec: ts.open(spec, open=True).result())
            if tuple(store.shape) != shape:
                raise CheckpointError(
                    f"{folder}: {name} is {tuple(store.shape)}, and {shape} by config.json"
                )
            self._stores[name] = store
        self.tensors: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            name: (
                place.shape[place.layer is not None :],
                np.dtype(self._stores[place.parameter].dtype.numpy_dtype),
            )
            for name, place in self._places.items()
        }

    def rows(self, name: str) -> list[slice]:
        """Blocks of a HF tensor that follow the chunks on the disk: none is unpacked twice."""
        place = self._places[name]
        shape = self.tensors[name][0]
        chunk = self._stores[place.parameter].chunk_layout.read_chunk.shape
        step = chunk[place.layer is not None]
        return [slice(at, min(at + step, shape[0])) for at in range(0, shape[0], step)]

    def read(self, name: str, rows: slice) -> np.ndarray:
        """Rows of a HF tensor as stored; each is to be read once. Raises CheckpointError."""
        place = self._places[name]
        at = (rows,) if place.layer is None else (place.layer, rows)
        store = self._stores[place.parameter]
        block = _read(f"{self._folder}: {name}", lambda: np.asarray(store[at].read().result()))
        share = digest_rows(block, layer=place.layer, first=rows.start)
        self._found[place.digest] = (self._found.get(place.digest, 0) + share) % 2**32
        return block

    def finish(self) -> None:
        """Compares what was read with what was once written. Raises CheckpointError."""
        compare_digests(self._found, self._expected, self._folder)


def _spec(params: Path, name: str) -> dict[str, Any]:
    return {
        "driver": "zarr",
        "kvstore": {
            "driver": "ocdbt",
            "base": f"file://{params.absolute()}/",
            "path": f"{name}/" if name else "",
        },
        # A chunk of zeros must be a chunk: a missing one is a broken file.
        "store_data_equal_to_fill_value": True,
    }


def _written(folder: Path, future: Any) -> Any:
    try:
        with storage.storing(folder):
            return future.result()
    except ValueError as error:  # TensorStore's word for every refusal of the disk
        raise StorageError(
            f"cannot write {folder}: {str(error).splitlines()[0][:200]}; free some space or mend "
            "the permissions"
        ) from error


def _read(what: object, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (ValueError, OSError, KeyError) as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(f"{what} cannot be read: {said}; copy the student anew") from error
