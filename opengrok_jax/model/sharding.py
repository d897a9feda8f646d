"""Logical axes -> mesh axes: where each parameter and each activation lives on the devices.

The mesh has three axes: `data` holds copies of everything but the batch, `fsdp` splits the batch
and the parameters, `tensor` splits heads, MLP width and vocabulary inside a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import jax
from flax import nnx
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Shaped

from opengrok_jax.errors import ConfigError

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. An axis that is not here, or None, is not split.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),  # activations: rows of the batch
    "embed": ("fsdp",),  # parameters: model width; gathered where a layer is used
    "heads": ("tensor",),  # N or K in activations; all channels of all heads in parameters
    "mlp": ("tensor",),
    "vocab": ("tensor",),
}

# The last names of a parameter's path -> its logical axes; stacked blocks have a layer axis before.
PARAMETER_AXES: dict[str, tuple[str | None, ...]] = {
    "embed_tokens.weight": ("vocab", "embed"),
    "qkv_proj.weight": ("heads", "embed"),
    "o_proj.weight": ("embed", "heads"),
    "gate_up_proj.weight": ("mlp", "embed"),
    "down_proj.weight": ("embed", "mlp"),
    "input_layernorm.weight": (None,),  # norms are too small to be worth gathering
    "post_attention_layernorm.weight": (None,),
    "norm.weight": (None,),
    "lm_head.weight": ("vocab", "embed"),
}


def make_mesh(
    data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh of data x fsdp x tensor devices (default: all); -1 on one axis takes the rest.

    Raises ConfigError if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(len(devices), devices[0].platform, data=data, fsdp=fsdp, tensor=tensor)
    return jax.make_mesh(
        tuple(sizes.values()), MESH_AXES, (AxisType.Auto,) * len(MESH_AXES), devices=devices
    )


def mesh_sizes(
    count: int, platform: str, *, data: int = 1, fsdp: int = -1, tensor: int = 1
) -> dict[str, int]:
    """The sizes of a mesh of `count` devices, with what was left in place of -1.

    Raises ConfigError if they do not multiply to that number; names the platform.
    """
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    asked = " x ".join(f"{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise ConfigError(f"mesh {asked}: sizes must be positive, and -1 may stand once")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if count % fixed or (not free and fixed != count):
        raise ConfigError(
            f"mesh {asked} needs {'a multiple of ' if free else ''}{fixed} devices, but there are "
            f"{count} ({platform}); change the sizes, or put -1 on one axis to take what is left"
        )
    return sizes | dict.fromkeys(free, count // fixed)


def parameter_axes(path: Sequence[object]) -> tuple[str | None, ...]:
    """The logical axes of the parameter at a path such as ("layers", "mlp", "down_proj", "weight").

    An adapter (.., "down_proj", "lora", "A" or "B") is split along its projection's axis; its rank
    is not. Raises KeyError for a path that the table above does not know.
    """
    if path[-2] == "lora":
        outputs, inputs = PARAMETER_AXES[f"{path[-3]}.weight"]
        axes = {"A": (None, inputs), "B": (outputs, None)}[str(path[-1])]
    else:
        axes = PARAMETER_AXES[".".join(str(key) for key in path[-2:])]
    return ("layer", *axes) if path[0] == "layers" else axes


def parameter_shardings(model: nnx.Module, mesh: Mesh | jax.sharding.AbstractMesh) -> Any:
    """The model's parameter `nnx.State` with a NamedSharding in place of each array.

    `model` may be abstract (from `nnx.eval_shape`). Raises ConfigError where an axis does not
    divide by its part of the mesh: leaving it whole instead would cost memory without a word.
    """

    def sharding(path: tuple[object, ...], parameter: nnx.Variable) -> nnx.Variable:
        shape, entries = parameter.shape, []
        for axis, size in zip(parameter_axes(path), shape, strict=True):
            over = _mesh_axes(axis, mesh)
            if size % _size(over, mesh):
                raise ConfigError(
                    f"{'.'.join(map(str, path))} {shape}: its axis '{axis}' of {size} does not "
                    f"divide by {' x '.join(over)} = {_size(over, mesh)}; choose another mesh"
                )
            entries.append(over or None)
        return parameter.replace(NamedSharding(mesh, PartitionSpec(*entries)))

    return nnx.map_state(sharding, nnx.state(model, nnx.Param))


def create_sharded(
    create: Callable[[], nnx.Module],
    mesh: Mesh,
    which: nnx.filterlib.Filter = nnx.Param,
    *others: Any,
) -> nnx.Module:
    """Runs `create` (say, a Phi3 from seeded Rngs) so that a device makes only its shards.

    Where some parameters are there already, they are given as `others`, and only those that
    `which` selects are made.
    """
    abstract = nnx.eval_shape(create)
    initialise = jax.jit(
        lambda: nnx.state(create(), which),
        out_shardings=nnx.filter_state(parameter_shardings(abstract, mesh), which),
    )
    return nnx.merge(nnx.graphdef(abstract), initialise(), *others)


def reading_sharding(
    shape: Sequence[int], mesh: Mesh | jax.sharding.AbstractMesh, *, axes: int = 1
) -> NamedSharding:
    """Where the parts of an array lie when every device reads its own part of the file.

    The model's layouts split columns, too, of which a file has a little in each row, so that every
    process would read every row; and they keep copies. Here a part is a run of rows (or of layers)
    and, where the sizes divide, no byte is read twice by all processes together: the devices
    exchange them afterwards, see `laid_out`.

        (9216, 3072) on data 2, fsdp 4, tensor 2     576 rows to a device

    Args:
      shape: of the array.
      mesh: of the model.
      axes: how many of the leading axes may be split; a mesh axis that divides none keeps copies.
    """
    left = list(shape[:axes])
    split: list[tuple[str, ...]] = [()] * len(left)
    for name in sorted(mesh.axis_names, key=lambda name: -mesh.shape[name]):
        size = mesh.shape[name]
        if at := next((i + 1 for i, rest in enumerate(left) if rest % size == 0), 0):
            split[at - 1] += (name,)
            left[at - 1] //= size
    return NamedSharding(mesh, PartitionSpec(*(names or None for names in split)))


def laid_out(x: jax.Array, sharding: Sharding) -> jax.Array:
    """The same array, its parts where `sharding` wants them, on the same devices."""
    return _lay_out(sharding)(x)


@cache
def _lay_out(sharding: Sharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=sharding)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where a (B, ...) array of the batch lives: rows over `data` and `fsdp`, the rest whole."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def on_mesh_of(tree: Any) -> AbstractContextManager[Any]:
    """`jax.set_mesh` for the mesh on which the arrays of a tree lie, if they lie on one."""
    placed = jax.tree.leaves(tree)[0].sharding
    mesh = placed.mesh if isinstance(placed, NamedSharding) else None
    return jax.set_mesh(mesh) if isinstance(mesh, Mesh) else nullcontext()


def constrain(x: Shaped[Array, "*shape"], *axes: str | None) -> Shaped[Array, "*shape"]:
    """Asks the compiler to lay x out by its logical axes on the mesh of `jax.set_mesh`.

    Does nothing outside `jit` or without such a mesh. An axis that does not divide (one row
    evaluated on eight devices) is left whole: for an activation that costs time, nothing else.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not isinstance(x, Tracer):
        return x
    entries = []
    for axis, size in zip(axes, x.shape, strict=True):
        over = _mesh_axes(axis, mesh)
        entries.append(over if over and size % _size(over, mesh) == 0 else None)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*entries))


def on_each_device(
    function: Callable[..., jax.Array],
    arrays: Sequence[jax.Array],
    axes: Sequence[tuple[str | None, ...]],
    result: tuple[str | None, ...],
) -> jax.Array:
    """function(*arrays), each device of the mesh of `jax.set_mesh` on its own part.

    For what the compiler cannot split (a Pallas kernel) or would split badly (a loop over rows).
    `axes` and `result` name the logical axes of the arrays and of what comes out; an axis that
    does not divide in all arrays that have it is left whole, as in `constrain`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not any(isinstance(x, Tracer) for x in arrays):
        return function(*arrays)
    sizes = [
        (a, n)
        for x, named in zip(arrays, axes, strict=True)
        for a, n in zip(named, x.shape, strict=True)
    ]

    def spec(named: Sequence[str | None]) -> PartitionSpec:
        over = {axis: _mesh_axes(axis, mesh) for axis in named}
        whole = {axis for axis, size in sizes if axis in over and size % _size(over[axis], mesh)}
        return PartitionSpec(*(None if axis in whole else over[axis] or None for axis in named))

    return jax.shard_map(
        function, in_specs=tuple(map(spec, axes)), out_specs=spec(result), check_vma=False
    )(*arrays)


def _mesh_axes(axis: str | None, mesh: Mesh | jax.sharding.AbstractMesh) -> tuple[str, ...]:
    rule = () if axis is None else RULES.get(axis, ())
    return tuple(name for name in rule if name in mesh.axis_names)


def _size(over: Sequence[str], mesh: Mesh | jax.sharding.AbstractMesh) -> int:
    return math.prod(mesh.shape[name] for name in over)
