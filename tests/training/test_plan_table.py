"""A plan for people."""

import io

from rich.console import Console

from opengrok_jax.training import plan_table

PLAN = {
    "meaning": "as the TPU compiler made it",
    "slice": {"name": "v5e:4x4", "chips": 16, "devices": 16, "hbm_bytes": 16 * 2**30},
    "model": {"parameters": 3_821_079_552},
    "step": {
        "mesh": {"data": 1, "fsdp": 16, "tensor": 1},
        "rows_per_batch": 32,
        "microbatches": 2,
        "rows_per_device": 1,
        "row_tokens": 4096,
        "remat": "full",
        "dtype": "bfloat16",
        "param_dtype": "float32",
    },
    "fits": True,
    "memory": {"parameters": 955 * 2**20, "peak": 6 * 2**30},
    "largest": {
        "rows_per_device": 7,
        "too_many": 8,
        "tried": {"1": {}, "7": {}, "8": {}},
    },
    "flops": {"model": 3.2e15, "executed": 4.2e15, "matrix_products": 2.5e14},
    "collectives": {"all-gather": {"count": 1234, "bytes": 3 * 2**30}},
    "estimated_cycles": 123456,
    "seconds_at_peak": {"compute": 1.25, "memory": 0.5, "links": 0.25},
    "efficiency": 0.5,
    "step_seconds": 2.5,
    "tokens_per_second": 52428.8,
    "data": {"source": "1000 rows", "rows": 1000, "steps": 94},
    "hours": 0.5,
    "price_per_chip_hour": 1.25,
    "money": 10.0,
}


def shown(**changes):
    page = io.StringIO()
    plan_table.show(PLAN | changes, Console(file=page, width=120))
    return " ".join(page.getvalue().replace("│", " ").split())


def test_what_is_shown():
    page = shown()
    for text in (
        "3,821,079,552 parameters on v5e:4x4 (16 chips, mesh data=1 x fsdp=16 x tensor=1)",
        "As the TPU compiler made it.",
        "fits yes parameters 0.93 GiB peak 6.00 GiB memory of a device 16.00 GiB",
        "largest microbatch 7 rows a device (8 do not fit)",
        "matrix products in the program 4e+15",
        "all-gather 1,234 times, 3.00 GiB received a device",
        "compute at the published peak 1.25 s an update",
        "expected, at 50% of the slowest 2.5 s an update",
        "tokens a second 52,429",
        "1000 rows: 1,000 rows, 94 updates",
        "time 30 min 0 s",
        "money 10.00 at 1.25 a chip and hour",
    ):
        assert text in page, text


def test_what_is_not_known_is_not_shown():
    page = shown(data=None, money=None, hours=None, collectives=None, estimated_cycles=None)
    for text in ("money", "updates", "all-gather", "cycles"):
        assert text not in page


def test_what_does_not_fit():
    nothing = {"rows_per_device": None, "too_many": 1, "tried": {"1": {}}}
    page = shown(fits=False, memory={"peak": 20 * 2**30}, largest=nothing)
    assert "fits NO: needs 20.00 GiB of 16.00 GiB" in page
    assert "none: not even 1 row a device" in page
