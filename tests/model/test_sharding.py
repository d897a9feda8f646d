"""Meshes, and the same numbers on eight devices as on one."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.lora import adapt
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import (
    RULES,
    batch_sharding,
    constrain,
    make_mesh,
    on_mesh_of,
    parameter_axes,
    parameter_shardings,
    reading_sharding,
)
from opengrok_jax.model.student import load_student, save_student
from opengrok_jax.model.weights import save_hf
from tests.together import together

ON_EIGHT_DEVICES = """
import warnings
warnings.simplefilter("error")
import sys
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from opengrok_jax.errors import ConfigError
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import batch_sharding, create_sharded, make_mesh, on_each_device
from opengrok_jax.model.weights import load_hf, save_hf

assert jax.device_count() == 8
config = Phi3Config.tiny(62, hidden_size=24, intermediate_size=26, num_hidden_layers=3,
                         num_attention_heads=6, num_key_value_heads=2, initializer_range=0.3)
rng = np.random.default_rng(0)
tokens = rng.integers(0, 62, (4, 7)).astype(np.int32)
segments = np.array([[1, 1, 1, 2, 2, 2, 0]] * 4, np.int32)
mask = rng.random((4, 7)) < 0.7

def loss_and_logits(graph):
    def loss(state, *arrays):
        tokens, segments, mask = arrays
        logits = nnx.merge(graph, state)(tokens, segments, None, mask, "exclude")
        return jnp.sum(jnp.square(logits)) / 100, logits
    return jax.jit(jax.value_and_grad(loss, has_aux=True))

model = Phi3(config, rngs=nnx.Rngs(0), attention="dense")
graph, state = nnx.split(model)
(_, want), want_gradient = loss_and_logits(graph)(state, tokens, segments, mask)

mesh = make_mesh(data=2, fsdp=-1, tensor=2)
assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
create = lambda: Phi3(config, rngs=nnx.Rngs(0), attention="blockwise")  # rows on their devices
save_hf(model, config, sys.argv[1])
for which, other in (("created", create_sharded(create, mesh)),
                     ("loaded", load_hf(sys.argv[1], mesh=mesh, attention="blockwise"))):
    sharded_graph, sharded = nnx.split(other)
    for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(state), strict=True):
        assert np.abs(a - b).max() < 1e-6, which
    local = {"/".join(map(str, p)): v[...].addressable_shards[0].data.shape
             for p, v in nnx.to_flat_state(sharded)}
    assert local["layers/self_attn/qkv_proj/weight"] == (3, 20, 12), local
    assert local["layers/mlp/down_proj/weight"] == (3, 12, 13), local
    assert local["embed_tokens/weight"] == (31, 12), local
    assert local["norm/weight"] == (24,), local
arrays = [jax.device_put(a, batch_sharding(mesh)) for a in (tokens, segments, mask)]
with jax.set_mesh(mesh):
    (_, got), gradient = loss_and_logits(sharded_graph)(sharded, *arrays)
assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(want_gradient), strict=True):
    assert np.abs(a - b).max() < 1e-4 * np.abs(b).max()
def hidden_states(graph):
    return jax.jit(lambda state, *arrays: nnx.merge(graph, state).hidden_states(*arrays))
want_states = hidden_states(graph)(state, tokens, segments)
with jax.set_mesh(mesh):
    states = hidden_states(sharded_graph)(sharded, *arrays[:2])
assert states.addressable_shards[0].data.shape == (4, 1, 7, 24), states.sharding
assert np.abs(states - want_states).max() < 1e-5 * np.abs(want_states).max()
save_hf(other, config, sys.argv[1] + "-again")

def sizes_given(x, ids):  # what it says depends on how much of x it is given
    return x * 0 + x.shape[0] * 100 + x.shape[2] * 10 + ids.shape[0]
axes = (("batch", None, "heads", None), ("batch", None))
with jax.set_mesh(mesh):
    for shape, said in (((4, 3, 6, 2), 131), ((3, 3, 6, 2), 333), ((4, 3, 5, 2), 151)):
        arrays = (jnp.zeros(shape), jnp.zeros(shape[:2]))
        part = jax.jit(lambda *x: on_each_device(sizes_given, x, axes, axes[0]))(*arrays)
        assert part.shape == shape, part.shape
        assert np.unique(part).tolist() == [said], np.unique(part)
        assert on_each_device(sizes_given, arrays, axes, axes[0])[0, 0, 0, 0] == (
            shape[0] * 100 + shape[2] * 10 + shape[0]), "outside jit nothing is split"
for sizes in ({"data": 3}, {"data": 2, "fsdp": 2}, {"data": -1, "fsdp": -1}, {"tensor": 0}):
    try:
        make_mesh(**sizes)
    except ConfigError as error:
        print(error)
    else:
        raise AssertionError(sizes)
try:
    create_sharded(create, make_mesh(fsdp=1, tensor=8))
except ConfigError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of the program above."""
    folder = tmp_path_factory.mktemp("sharded")
    (said,) = together(ON_EIGHT_DEVICES, str(folder / "model"), count=1, devices=8)
    return folder, said


def test_eight_devices_give_the_numbers_of_one(eight_devices: tuple[Path, str]) -> None:
    folder, _ = eight_devices  # logits and gradients are compared inside the program
    first, again = (folder / name / "model.safetensors" for name in ("model", "model-again"))
    assert first.read_bytes() == again.read_bytes(), "saved from the mesh = saved from one device"


def test_mesh_errors_name_sizes_and_devices(eight_devices: tuple[Path, str]) -> None:
    lines = eight_devices[1].splitlines()
    assert "data=3 x fsdp=-1 x tensor=1 needs a multiple of 3 devices, but there are 8" in lines[0]
    assert "data=2 x fsdp=2 x tensor=1 needs 4 devices, but there are 8 (cpu)" in lines[1]
    assert "-1 may stand once" in lines[2]
    assert "sizes must be positive" in lines[3]
    assert "axis 'vocab' of 62 does not divide by tensor = 8; choose another mesh" in lines[4]


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_has_logical_axes(tied: bool) -> None:
    config = Phi3Config.tiny(61, tie_word_embeddings=tied)
    model = nnx.eval_shape(
        lambda: adapt(Phi3(config, rngs=nnx.Rngs(0)), rank=2, alpha=1.0, rngs=nnx.Rngs(0))
    )
    for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        axes = parameter_axes(path)
        assert len(axes) == len(parameter.shape), path
        assert set(axes) <= {*RULES, "layer", None}, path
        used = [mesh_axis for axis in axes for mesh_axis in RULES.get(axis or "", ())]
        assert len(used) == len(set(used)), f"{path} uses a mesh axis twice"
    with pytest.raises(KeyError):
        parameter_axes(("layers", "mlp", "unheard_of", "weight"))
    down = ("layers", "mlp", "down_proj", "lora")
    assert parameter_axes((*down, "A")) == ("layer", None, "mlp")
    assert parameter_axes((*down, "B")) == ("layer", "embed", None)


def test_specs_on_one_device() -> None:
    mesh = make_mesh(fsdp=1, devices=jax.devices()[:1])
    model = nnx.eval_shape(lambda: Phi3(Phi3Config.tiny(61), rngs=nnx.Rngs(0)))
    specs = parameter_shardings(model, mesh)
    qkv = specs["layers"]["self_attn"]["qkv_proj"]["weight"].get_value()
    assert qkv.spec == PartitionSpec(None, ("tensor",), ("fsdp",))
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))


def test_constrain_needs_a_mesh_and_a_compiler() -> None:
    x = jnp.ones((2, 3))
    assert constrain(x, "batch", None) is x
    with jax.set_mesh(make_mesh(fsdp=1, devices=jax.devices()[:1])):
        assert constrain(x, "batch", None) is x, "nothing to ask of a compiler that is not there"
        jaxpr = str(jax.make_jaxpr(lambda x: constrain(x, "batch", None))(x))
    assert "sharding_constraint" in jaxpr
    assert "('data', 'fsdp')" in jaxpr


def test_on_mesh_of_sets_the_mesh_that_the_arrays_lie_on() -> None:
    mesh = make_mesh(fsdp=1, devices=jax.devices()[:1])
    placed = jax.device_put(jnp.ones(2), batch_sharding(mesh))
    with on_mesh_of({"a": placed}):
        assert jax.sharding.get_abstract_mesh() == mesh.abstract_mesh
    with on_mesh_of({"a": jnp.ones(2)}):
        assert jax.sharding.get_abstract_mesh().empty


@pytest.mark.parametrize(
    ("shape", "axes", "spec"),
    [
        ((9216, 3072), 1, (("fsdp", "data", "tensor"),)),
        ((32064, 3072), 1, (("fsdp", "data", "tensor"),)),
        ((12, 7), 1, (("fsdp",),)),  # 3 rows are left, and keep copies on `data` and `tensor`
        ((7, 16), 1, (None,)),
        ((12, 8, 5), 2, (("fsdp",), ("data", "tensor"))),  # layers first, then rows
        ((16,), 2, (("fsdp", "data", "tensor"),)),
    ],
)
def test_what_a_device_reads_is_a_run_of_rows(shape, axes, spec) -> None:
    mesh = jax.sharding.AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    assert reading_sharding(shape, mesh, axes=axes).spec == PartitionSpec(*spec)


LOADING = """
import json, sys
from pathlib import Path
import jax, numpy as np
from flax import nnx
from opengrok_jax import processes
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.model.student import load_student, save_student
from opengrok_jax.model.weights import load_hf

def bytes_read():  # by read(2) and its like; what is imported counts, too
    return int(Path("/proc/self/io").read_text().split()[1])

folder, meshes, student = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
with processes.joined():
    for number, mesh in enumerate(map(lambda sizes: make_mesh(**sizes), meshes)):
        for kind, load in (("hf", lambda: load_hf(folder / "hf", mesh=mesh)),
                           ("student", lambda: load_student(folder / student, mesh=mesh)[0])):
            load()  # imports and compiles
            before = bytes_read()
            model = load()
            print(json.dumps([kind, number, bytes_read() - before]))
            expected = np.load(folder / "expected.npz")
            for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param)):
                for shard in parameter[...].addressable_shards:
                    np.testing.assert_array_equal(shard.data, expected[".".join(path)][shard.index])
    save_student(folder / f"of {jax.process_count()}", model, model.config)
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[..., Phi3]) -> Path:
    """A model of 10 MB as safetensors, as a student, and as NumPy has it."""
    folder = tmp_path_factory.mktemp("stored")
    config = Phi3Config.tiny(
        512, hidden_size=256, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4
    )
    model = random_model(config)
    save_hf(model, config, folder / "hf")
    save_student(folder / "student", model, config)
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    np.savez(folder / "expected.npz", **{".".join(map(str, path)): p[...] for path, p in flat})
    return folder


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
def test_a_process_reads_its_share_and_no_more(stored: Path) -> None:
    """Two processes, three meshes, columns split and copies kept: each reads about one half.

    What they save together is then read by one process, on as many devices as there are.
    """
    meshes = [{"fsdp": 2}, {"data": 2, "fsdp": 1}, {"fsdp": 1, "tensor": 2}]
    said = together(LOADING, str(stored), json.dumps(meshes), "student")
    size = (stored / "hf" / "model.safetensors").stat().st_size
    for lines in said:
        rows = [json.loads(line) for line in lines.splitlines() if line.startswith('["')]
        assert len(rows) == 2 * len(meshes)
        for kind, number, read in rows:
            assert 0.45 * size < read < 0.55 * size, (kind, meshes[number], read, size)
    for folder in (stored / "of 2", stored / "student"):
        flat = nnx.to_flat_state(nnx.state(load_student(folder)[0], nnx.Param))
        with np.load(stored / "expected.npz") as expected:
            for path, parameter in flat:
                np.testing.assert_array_equal(parameter[...], expected[".".join(map(str, path))])


@pytest.mark.slow
def test_a_student_moves_to_other_meshes_and_numbers_of_processes(stored: Path) -> None:
    """Saved by two processes of two devices, read by one of eight, and the other way round."""
    meshes = [{"fsdp": 2, "tensor": 2}, {"data": 2, "fsdp": 2}, {"fsdp": 1, "data": 4}]
    together(LOADING, str(stored), json.dumps(meshes), "student", devices=2)
    meshes = [{"data": 2, "fsdp": 2, "tensor": 2}, {"fsdp": 8}, {"fsdp": 2, "tensor": 4}]
    together(LOADING, str(stored), json.dumps(meshes), "of 2", count=1, devices=8)
    together(LOADING, str(stored), json.dumps([{"fsdp": 4}]), "of 1", count=4)
