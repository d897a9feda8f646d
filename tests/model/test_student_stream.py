"""Blocks of a student against the whole arrays that Orbax and the digests of student.py see."""

import json

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.errors import CheckpointError
from opengrok_jax.model import student_stream
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.student import DIGESTS, PARAMS, digest_rows, digests, save_student
from opengrok_jax.model.student_stream import StudentReader, StudentWriter, blocks, places

CONFIG = Phi3Config.tiny(31, hidden_size=12, intermediate_size=10, num_hidden_layers=3,
                         num_attention_heads=2, num_key_value_heads=1)  # fmt: skip


@settings(max_examples=12)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    layers=st.integers(1, 4),
    cut=st.integers(0, 9),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    seed=st.integers(0, 2**31),
)
def test_shares_add_up_to_the_digest(rows, columns, layers, cut, dtype, seed):
    values = np.random.default_rng(seed).normal(size=(layers, rows, columns))
    stack = np.array(jnp.asarray(values, dtype))
    cut = min(cut, rows)

    def shares(matrix, layer):
        parts = [(matrix[:cut], 0), (matrix[cut:], cut)]
        return sum(digest_rows(p, layer=layer, first=at) for p, at in parts if len(p)) % 2**32

    whole = sum(shares(matrix, layer) for layer, matrix in enumerate(stack)) % 2**32
    assert digests({"a": jnp.asarray(stack)}) == {"['a']": whole}
    assert digests({"a": jnp.asarray(stack[0])}) == {"['a']": shares(stack[0], None)}
    vectors = sum(digest_rows(v, layer=n, first=0) for n, v in enumerate(stack[:, 0])) % 2**32
    assert digests({"a": jnp.asarray(stack[:, 0])}) == {"['a']": vectors}
    one = digest_rows(stack[0, 0], layer=None, first=0)
    assert digests({"a": jnp.asarray(stack[0, 0])}) == {"['a']": one}


def test_blocks_cover_every_row_once(monkeypatch):
    monkeypatch.setattr(student_stream, "BLOCK_BYTES", 100)
    assert blocks((10, 6), 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert blocks((3, 1000), 4) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert blocks((1000,), 4) == [slice(0, 1000)]


@pytest.fixture
def written(random_model, tmp_path, monkeypatch):
    """The same parameters, saved by Orbax and block by block."""
    monkeypatch.setattr(student_stream, "BLOCK_BYTES", 200)
    model = random_model(CONFIG)
    save_student(tmp_path / "whole", model, CONFIG)
    params = nnx.to_flat_state(nnx.state(model, nnx.Param))
    arrays = {".".join(map(str, path)): np.asarray(p[...]) for path, p in params}
    (tmp_path / "blocks").mkdir()
    here = places(CONFIG)
    writer = StudentWriter(tmp_path / "blocks", CONFIG, dict.fromkeys(here, np.dtype(np.float32)))
    for name, place in here.items():
        array = arrays[place.parameter]
        tensor = array if place.layer is None else array[place.layer]
        for rows in blocks(tensor.shape, 4):
            writer.write(name, rows, tensor[rows])
    writer.finish()
    return tmp_path


def test_orbax_reads_what_was_written_in_blocks(written):
    with ocp.StandardCheckpointer() as checkpointer:
        ours = checkpointer.restore(written / "blocks" / PARAMS)
        theirs = checkpointer.restore(written / "whole" / PARAMS)
    flat, wanted = (dict(nnx.to_flat_state(nnx.State(tree))) for tree in (ours, theirs))
    assert set(flat) == set(wanted)
    for path, array in wanted.items():
        np.testing.assert_array_equal(flat[path], array)
    before, after = ((written / kind / DIGESTS).read_bytes() for kind in ("whole", "blocks"))
    assert json.loads(before) == json.loads(after)


@pytest.mark.parametrize("kind", ["whole", "blocks"])
def test_reads_both(written, kind):
    reader = StudentReader(written / kind, CONFIG)
    for name, (shape, _) in reader.tensors.items():
        taken = [reader.read(name, rows) for rows in reader.rows(name)]
        assert sum(len(block) for block in taken) == shape[0]
        if kind == "blocks":
            assert reader.rows(name) == blocks(shape, 4)
    reader.finish()


def test_orbax_keeps_layers_apart(written):
    """Or reading a layer would unpack all of them."""
    reader = StudentReader(written / "whole", CONFIG)
    stacked = [name for name, place in places(CONFIG).items() if place.layer is not None]
    assert len(stacked) > 10
    for name in stacked:
        store = reader._stores[places(CONFIG)[name].parameter]
        assert store.chunk_layout.read_chunk.shape[0] == 1


def test_what_was_not_read_is_not_taken_for_whole(written):
    reader = StudentReader(written / "blocks", CONFIG)
    with pytest.raises(CheckpointError, match="damaged"):
        reader.finish()
