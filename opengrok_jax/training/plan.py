"""Before anything is rented: does a fine-tuning fit, how large a batch, how long, how much money.

compiled    the very step that would train, by the compiler of real TPUs (libtpu), on any machine
analytic    arrays counted by hand, for GPUs and where libtpu is not installed
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError, MissingExtra
from opengrok_jax.model import hf_config
from opengrok_jax.model.sharding import MESH_AXES, mesh_sizes
from opengrok_jax.progress import say
from opengrok_jax.training import (
    finetune,
    plan_analytic,
    plan_compile,
    plan_data,
    plan_sources,
    settings,
)
from opengrok_jax.training.assembly import ASSEMBLED
from opengrok_jax.training.plan_analytic import Parts, Work
from opengrok_jax.training.plan_search import Probe, largest_fit
from opengrok_jax.training.slices import Slice, parse_slice

# Of the rate that the slowest of arithmetic, memory and links allows. Published runs of MaxText
# reach 43 to 61 % of the arithmetic (google/maxtext README, AI-Hypercomputer/tpu-recipes).
EFFICIENCY = 0.5
_MEANING = {
    "compiled": "memory, matrix products and collectives are those of the TPU compiler's program",
    "analytic": "analytic, not compiled: arrays counted by hand",
}


def run(
    *,
    training: Mapping[str, Any],
    chips: str,
    price: float = 0.0,
    tokens: int = 0,
    rows: int = 0,
    masked_file: Path | None = None,
    model: str = "",
    teacher: str = "",
    k: int = 0,
    analytic: bool = False,
    search: bool = True,
    most_compilations: int = 8,
) -> dict[str, Any]:
    """Plans the fine-tuning of a config's `training` section.

    Args:
      training: arguments of `finetune.run` but masked_file and out.
      chips: "v5e:4x4", "h100:8".
      price: of a chip for an hour, in any currency; 0 = not asked.
      tokens: of the data set; rows are taken to be full.
      rows: of the data set, once packed.
      masked_file: packs what `opengrok mask` wrote; one of the three at most.
      model: a name of `model.config.PUBLISHED` in place of `training["init"]`.
      teacher: the same in place of `training["teacher"]`.
      k: slots of stored distributions that are not there yet; 0 = as many as `soft-targets` stores.
      analytic: does not compile, even if it could.
      search: also looks for the largest microbatch that fits.
      most_compilations: that the search may cost.

    Returns:
      The plan, JSON-able; its keys are those that `plan_table.show` prints.

    Raises:
      ConfigError: a wrong setting, chip, slice, mesh or batch.
      DataError: a masked file that cannot be learnt from.
      TrainingError: the compiler failed.
      MissingExtra: libtpu is not installed and `analytic` is not set.
    """
    wanted = parse_slice(chips)
    if sum(map(bool, (tokens, rows, masked_file))) > 1:
        raise ConfigError("give one of tokens, rows and a masked file: each says how much data")
    for name, value in (("price", price), ("tokens", tokens), ("rows", rows)):
        if value < 0:
            raise ConfigError(f"{name} is {value!r}; expected 0 or more")
    given = _defaults() | dict(training)
    sources = plan_sources.read(given, model=model, teacher=teacher, masked_file=masked_file, k=k)
    config = sources.config
    sizes = mesh_sizes(wanted.devices, wanted.name, **given["mesh"])
    parts = Parts(*(sizes[axis] for axis in MESH_AXES))
    microbatches, row_tokens = given["microbatches"], given["row_tokens"]
    settings.check_rows(given["rows_per_batch"], microbatches, parts.rows)
    per_device = given["rows_per_batch"] // microbatches // parts.rows
    plan_sources.check_parameters(sources, sizes)
    data = plan_data.measure(
        given, parts, tokens=tokens, rows=rows, masked_file=masked_file, config=config
    )

    compiles = bool(wanted.chip.dimensions) and not analytic
    if compiles and not plan_compile.available():
        raise MissingExtra(
            "libtpu is not installed; it comes with the extra 'plan': pip install "
            "'opengrok-jax[plan]'. Without it, --analytic counts by hand"
        )

    def work(count: int) -> Work:
        return Work(
            config=config,
            parts=parts,
            rows=count,
            row_tokens=row_tokens,
            microbatches=microbatches,
            loss_share=data.loss_share,
            dense=given["attention"] == "dense",
            adapters=sources.lora,
            objective=sources.aim,
            k=sources.k,
            teacher=sources.teacher,
            teacher_dtype=sources.teacher_dtype,
            **{name: given[name] for name in ("remat", "dtype", "param_dtype", "moments_dtype")},
        )

    def probe(count: int) -> Probe:
        needs = plan_analytic.memory(work(count))["peak"]
        has = wanted.chip.hbm_bytes // wanted.chip.devices
        if not compiles:
            return Probe(needs <= has, needs, has, {})
        say(f"plan: compiling {count} rows a device for {wanted.name}, one to three minutes")
        answer = plan_compile.compile_apart(
            {
                "slice": wanted.name,
                "config_json": hf_config.write(config, given["param_dtype"]),
                "mesh": sizes,
                "microbatches": microbatches,
                "rows_per_device": count,
                "row_tokens": row_tokens,
                "capacity": -(-data.capacity * count // per_device),
                "steps": data.steps,
                "settings": {name: given[name] for name in ASSEMBLED},
                "lora": sources.lora,
                "distill": given["distill"],
                "k": sources.k,
                "redrawn": given["draw"] == "per_epoch",
                "teacher_json": hf_config.write(sources.teacher, sources.teacher_dtype)
                if sources.teacher
                else "",
                "teacher_dtype": sources.teacher_dtype,
            }
        )
        if answer["fits"]:
            return Probe(True, answer["memory"]["peak"], has, answer)
        return Probe(False, answer["needs"], answer["has"], answer)

    tried: dict[int, Probe] = {per_device: probe(per_device)}
    asked = tried[per_device]
    if search:
        slope = (
            plan_analytic.memory(work(per_device + 1))["peak"]
            - plan_analytic.memory(work(per_device))["peak"]
        )
        limit = most_compilations if compiles else 64
        largest_fit(probe, tried, slope=float(max(slope, 1)), most=limit)
    fit = [count for count, one in tried.items() if one.fits]
    too_many = [count for count, one in tried.items() if not one.fits]
    seconds = _times(wanted, work(per_device), asked.answer)
    places = per_device * row_tokens * microbatches * parts.rows
    at_peak = max(seconds.values())
    step_seconds = at_peak / EFFICIENCY
    hours = data.steps * step_seconds / 3600 if data.source else None
    result = {
        "basis": "compiled" if compiles else "analytic",
        "meaning": _MEANING["compiled" if compiles else "analytic"],
        "slice": {
            "name": wanted.name,
            "chips": wanted.chips,
            "devices": wanted.devices,
            "hbm_bytes": asked.has,
            "source": wanted.chip.source,
        },
        "model": {
            "parameters": plan_analytic.parameters(config),
            "layers": config.num_hidden_layers,
        },
        "step": {
            "mesh": sizes,
            "rows_per_batch": given["rows_per_batch"],
            "microbatches": microbatches,
            "rows_per_device": per_device,
            "row_tokens": row_tokens,
            "places": places,
            "remat": given["remat"],
            "dtype": given["dtype"],
            "param_dtype": given["param_dtype"],
        },
        "fits": asked.fits,
        "memory": _memory(work(per_device), asked),
        "largest": {
            "rows_per_device": max(fit, default=None) if search else None,
            "too_many": min(too_many, default=None) if search else None,
            "tried": {
                str(count): {"fits": one.fits, "bytes": one.needs}
                for count, one in sorted(tried.items())
            },
        },
        "flops": {
            "model": plan_analytic.model_flops(work(per_device)),
            "executed": round(plan_analytic.executed_flops(work(per_device)) * wanted.devices),
            "matrix_products": asked.answer.get("matmul_flops"),
            "xla_loops_once": asked.answer.get("xla_flops"),
        },
        "collectives": asked.answer.get("collectives"),
        "estimated_cycles": asked.answer.get("cycles"),
        "seconds_at_peak": seconds,
        "efficiency": EFFICIENCY,
        "step_seconds": step_seconds,
        "tokens_per_second": places / step_seconds,
        "data": {"source": data.source, "rows": data.rows, "steps": data.steps}
        if data.source
        else None,
        "hours": hours,
        "price_per_chip_hour": price or None,
        "money": hours * wanted.chips * price if hours is not None and price else None,
        "versions": {name: asked.answer.get(name, None) for name in ("jax", "libtpu")},
        "compile_seconds": asked.answer.get("compile_seconds"),
    }
    return result


def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(finetune.run).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _memory(work: Work, asked: Probe) -> dict[str, int]:
    counted = plan_analytic.memory(work)
    if not asked.answer:
        return counted
    if not asked.fits:
        return {name: counted[name] for name in ("parameters", "optimizer")} | {"peak": asked.needs}
    found = asked.answer["memory"]
    rest = found["peak"] - found["parameters"] - found["optimizer"]
    return {
        "parameters": found["parameters"],
        "optimizer": found["optimizer"],
        "gradients_activations": rest,
        "peak": found["peak"],
    }


def _times(wanted: Slice, work: Work, answer: Mapping[str, Any]) -> dict[str, float]:
    collectives = answer.get("collectives")
    links = (
        plan_analytic.received(work)
        if collectives is None
        else sum(kind["bytes"] for kind in collectives.values())
    )
    return plan_analytic.times(
        flops=plan_analytic.executed_flops(work),
        traffic=plan_analytic.memory_traffic(work),
        links=links,
        chip=wanted.chip,
    )
