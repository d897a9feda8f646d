"""A plan as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from opengrok_jax.progress import duration

_NAMES = {
    "parameters": "parameters",
    "optimizer": "optimizer moments",
    "gradients": "gradients",
    "teacher": "the teacher's parameters",
    "soft_targets": "stored distributions",
    "saved": "saved activations",
    "working": "a layer's activations while it goes backwards",
    "head": "logits of one chunk (not at the same time)",
    "gradients_activations": "gradients, activations, temporaries",
    "peak": "peak",
}


def show(plan: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints what `plan.run` returned."""
    console = console or Console(highlight=False)
    place, step = plan["slice"], plan["step"]
    mesh = " x ".join(f"{axis}={size}" for axis, size in step["mesh"].items())
    console.print(
        f"{plan['model']['parameters']:,} parameters on {place['name']} ({place['chips']} chips, "
        f"mesh {mesh}); {step['rows_per_batch']} rows of {step['row_tokens']} tokens an update, "
        f"{step['microbatches']} microbatches, {step['rows_per_device']} rows a device; remat "
        f"{step['remat']}, {step['dtype']} products, {step['param_dtype']} parameters."
    )
    meaning = plan["meaning"]
    console.print(f"{meaning[:1].upper()}{meaning[1:]}.\n")
    _print(console, "Does it fit?", _fit(plan))
    _print(console, "What it does", _work(plan))
    _print(console, "How long, how much", _cost(plan))


def _fit(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    memory, has = plan["memory"], plan["slice"]["hbm_bytes"]
    answer = "yes" if plan["fits"] else f"NO: needs {_size(memory['peak'])} of {_size(has)}"
    yield "fits", answer
    for name, size in memory.items():
        yield _NAMES[name], _size(size)
    yield "memory of a device", _size(has)
    largest = plan["largest"]
    if (largest["tried"] and len(largest["tried"]) > 1) or largest["too_many"]:
        fit, more = largest["rows_per_device"], largest["too_many"]
        words = f"{fit} rows a device" if fit else "none: not even 1 row a device"
        yield "largest microbatch", words + (f" ({more} do not fit)" if fit and more else "")


def _work(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    flops, devices = plan["flops"], plan["slice"]["devices"]
    yield "model FLOPs of an update", f"{flops['model']:.3g}"
    yield "with what remat repeats and a teacher does", f"{flops['executed']:.3g}"
    if flops["matrix_products"] is not None:
        yield "matrix products in the program", f"{flops['matrix_products'] * devices:.3g}"
    for kind, found in (plan["collectives"] or {}).items():
        amount = f"{_size(found['bytes'])} received a device"
        yield kind, f"{found['count']:,} times, {amount}"
    if plan["estimated_cycles"]:
        yield "compiler's estimated cycles", f"{plan['estimated_cycles']:,} (without kernels)"


def _cost(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, seconds in plan["seconds_at_peak"].items():
        yield f"{name} at the published peak", f"{_seconds(seconds)} an update"
    yield (
        f"expected, at {plan['efficiency']:.0%} of the slowest",
        f"{_seconds(plan['step_seconds'])} an update",
    )
    yield "tokens a second", f"{plan['tokens_per_second']:,.0f}"
    if plan["data"]:
        data = plan["data"]
        yield "data", f"{data['source']}: {data['rows']:,} rows, {data['steps']:,} updates"
        yield "time", duration(plan["hours"] * 3600)
    if plan["money"] is not None:
        price = f"{plan['price_per_chip_hour']:g} a chip and hour"
        yield "money", f"{plan['money']:,.2f} at {price}"


def _print(console: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.2f} MiB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"
