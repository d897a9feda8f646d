"""Compiles the step of a fine-tuning for TPUs that are not there, in a process of its own.

libtpu brings the compiler of real TPUs. It reads its settings from the environment when it is
loaded, writes to standard error, and dies with the process it is in: so it gets one.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, cast

import jax
from jax.experimental import topologies

from opengrok_jax.errors import ConfigError, TrainingError, UserError
from opengrok_jax.model import hf_config
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.training import hlo, objective, step
from opengrok_jax.training.assembly import assemble
from opengrok_jax.training.slices import Slice, parse_slice

# Without a TPU's metadata server libtpu would ask for it, wait, and warn; two processes may plan
# at once; nothing of what it logs is for the user.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_NOT_FOR_TPUS = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")  # what they hold is for this machine
SECONDS = 1800.0  # a compilation takes one to three minutes of one core

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# Two generations of libtpu.
_TOO_MUCH = (
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
    re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
)


def available() -> bool:
    """Is libtpu installed?"""
    return importlib.util.find_spec("libtpu") is not None


def compile_apart(request: Mapping[str, Any], seconds: float = SECONDS) -> dict[str, Any]:
    """`compile_step(**request)` in a new process.

    Raises:
      UserError: of the same kind as in the process.
      TrainingError: the compiler failed by itself, or took too long.
    """
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_TPUS} | ENVIRONMENT
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired:
        raise TrainingError(
            f"the compilation took more than {seconds:.0f} s; try again on a machine less busy, or "
            "plan with --analytic"
        ) from None
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TrainingError(
            f"the compiler died (status {done.returncode}): {last[:300]}; plan with --analytic"
        ) from None
    if "error" in answer:
        kinds = {kind.__name__: kind for kind in (ConfigError, TrainingError)}
        raise kinds.get(answer["kind"], UserError)(answer["error"])
    return answer


def compile_step(
    *,
    slice: str,
    config_json: str,
    mesh: Mapping[str, int],
    microbatches: int,
    rows_per_device: int,
    row_tokens: int,
    capacity: int,
    steps: int,
    settings: Mapping[str, Any],
    lora: Mapping[str, Any] | None = None,
    distill: Mapping[str, Any] | None = None,
    k: int = 0,
    redrawn: bool = False,
    teacher_json: str = "",
    teacher_dtype: str = "float32",
) -> dict[str, Any]:
    """What the compiler says of one update.

    Args:
      slice: "v5e:4x4".
      config_json: text of a Hugging Face config.json.
      mesh: devices along `data`, `fsdp`, `tensor`.
      microbatches: of an update.
      rows_per_device: b, of a microbatch.
      row_tokens: T.
      capacity: loss-bearing positions of a device and microbatch.
      steps: updates in all.
      settings: those of `assembly.ASSEMBLED`.
      lora: rank, alpha and targets; None = a full fine-tuning.
      distill: as in `finetune.run`.
      k: slots of the stored distributions; 0 = the objective reads none.
      redrawn: the masks are drawn anew in every epoch.
      teacher_json: config.json of the model beside the student; "" = there is none.
      teacher_dtype: what its parameters are stored in.

    Returns:
      fits, compile_seconds, jax, libtpu; where it fits: memory (bytes of parameters, those of base
      and teacher among them, optimizer, arguments, peak), xla_flops, matmul_flops, cycles,
      collectives; else: needs, has (bytes).

    Raises:
      ConfigError: no such slice, or a mesh that does not divide by it or by the model.
      TrainingError: any other error of the compiler.
    """
    devices = make_mesh(**cast(Any, dict(mesh)), devices=slice_devices(parse_slice(slice)))
    groups = step.row_groups(devices)
    config = hf_config.read(json.loads(config_json))
    made = assemble(
        config,
        devices,
        steps=steps,
        capacity=capacity,
        lora=lora,
        objective=objective.read(distill or {}),
        teacher=hf_config.read(json.loads(teacher_json)) if teacher_json else None,
        teacher_dtype=teacher_dtype,
        **cast(Any, dict(settings)),
    )
    batch = step.abstract_batch(
        devices,
        microbatches=microbatches,
        rows=microbatches * rows_per_device * groups,
        row_tokens=row_tokens,
        k=k,
        redrawn=redrawn,
    )
    arguments = (made.like, batch, *made.frozen)
    start = time.monotonic()
    about: dict[str, Any] = {"jax": jax.__version__, "libtpu": version("libtpu")}
    try:
        with jax.set_mesh(devices):
            update = cast(Any, made.update)
            compiled = update.lower(*arguments, of_teacher=made.of_teacher).compile()
    except jax.errors.JaxRuntimeError as error:
        needs, has = too_much(str(error))
        return about | {
            "fits": False,
            "needs": needs,
            "has": has,
            "compile_seconds": time.monotonic() - start,
        }
    seconds = time.monotonic() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    program = hlo.totals(compiled.as_text())
    return about | {
        "fits": True,
        "compile_seconds": seconds,
        "memory": {
            "parameters": _bytes_on_device((made.like.params, made.frozen, made.of_teacher)),
            "optimizer": _bytes_on_device(made.like.opt_state),
            "arguments": memory.argument_size_in_bytes,
            "peak": memory.peak_memory_in_bytes,
        },
        "xla_flops": cost.get("flops"),
        "matmul_flops": program.matmul_flops,
        "cycles": program.cycles,
        "collectives": {
            kind: {"count": count, "bytes": size}
            for kind, (count, size) in program.collectives.items()
        },
    }


def slice_devices(wanted: Slice) -> list[Any]:
    """Stand-ins for the devices of a TPU slice.

    Raises:
      ConfigError: libtpu knows no such slice.
    """
    options: dict[str, Any] = {}
    if wanted.chip.name in ("v4", "v5p"):
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device
    if wanted.chips == 1:
        options["chips_per_host_bounds"] = [1] * 3
    try:
        return topologies.get_topology_desc(wanted.name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{wanted.name}: libtpu knows no such slice ({reason})") from None


def too_much(message: str) -> tuple[int, int]:
    """(bytes needed, bytes there) of a device's memory, from XLA's error.

    >>> too_much("RESOURCE_EXHAUSTED: .. Ran out of memory .. Used 20.00G of 15.75G hbm. ..")
    (21474836480, 16911433728)

    Raises:
      TrainingError: it is about something else.
    """
    found = next(filter(None, (pattern.search(message) for pattern in _TOO_MUCH)), None)
    if found is None:
        reason = (message.strip().splitlines() or ["no reason given"])[0]
        raise TrainingError(f"the step does not compile for the slice: {reason[:300]}")
    needs, of_needs, has, of_has = found.groups()
    return int(float(needs) * _UNITS[of_needs]), int(float(has) * _UNITS[of_has])


def _bytes_on_device(tree: Any) -> int:
    """Of one device's parts, without the padding that the memory's layout adds."""
    return sum(
        int(leaf.dtype.itemsize) * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
    )


def _main() -> None:
    try:
        answer = compile_step(**json.load(sys.stdin))
    except UserError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
