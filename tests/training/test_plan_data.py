"""How many updates a data set takes."""

from pathlib import Path

import pytest

from opengrok_jax.errors import DataError
from opengrok_jax.training import plan_data
from opengrok_jax.training.plan_analytic import Parts

GIVEN = {
    "row_tokens": 48,
    "rows_per_batch": 4,
    "microbatches": 2,
    "epochs": 2.0,
    "max_steps": 0,
    "seed": 0,
    "normalize": "token",
}


def measure(tiny, **changes):
    told = {"tokens": 0, "rows": 0, "masked_file": None}
    told |= {k: changes.pop(k) for k in set(changes) & set(told)}
    return plan_data.measure(GIVEN | changes, Parts(1, 2, 1), config=tiny, **told)


def test_rows_and_tokens(tiny):
    assert measure(tiny, rows=10) == plan_data.Data("10 rows", 10, 5, 1.0, 48)
    assert measure(tiny, tokens=10 * 48 - 1).rows == 10
    assert measure(tiny, rows=10, epochs=1.05).steps == 3  # 10.5 rows, rounded, by four
    assert measure(tiny, rows=10, max_steps=2).steps == 2


def test_without_data_there_is_one_update(tiny):
    found = measure(tiny)
    assert (found.source, found.rows, found.steps, found.loss_share) == ("", 0, 1, 1.0)


def test_a_masked_file_is_packed_as_the_run_packs_it(tiny, masked_file, examples):
    found = measure(tiny, masked_file=masked_file)
    train = [e for e in examples if e.split == "train"]
    tokens = sum(len(e.tokens) for e in train)
    assert tokens / 48 <= found.rows <= len(train)
    assert found.steps == -(-2 * found.rows // 4)
    answers = sum(int((e.roles == 2).sum()) for e in train)
    assert found.loss_share == pytest.approx(answers / (found.rows * 48))
    assert found.capacity == 48  # a row a device and microbatch, rounded up to 64, no more than T


def test_refuses_what_the_run_would_refuse(tiny, masked_file: Path):
    with pytest.raises(DataError, match="a row holds 8"):
        measure(tiny, masked_file=masked_file, row_tokens=8)
