import numpy as np
import pytest

from opengrok_jax.masked_file import read_masked
from opengrok_jax.soft_file import response_positions
from opengrok_jax.training import batches, packing, passes


def test_the_drawn_batch_is_cut_into_its_examples(example):
    """Rows of 12 tokens: the longest example has the first, the others share the second."""
    rows = [
        example(0, length=5, response=2),
        example(1, length=7, response=3),
        example(2, length=9, response=1),
    ]
    data = batches.packed(
        rows,
        lambda packed: packing.in_order(packed, rows_per_batch=2),
        row_tokens=12,
        normalize="token",
    )
    gathered = np.array([*"abcdef--"])
    found = {e.id: "".join(own) for e, (own,) in passes.by_example(data, 0, gathered)}
    assert list(found.items()) == [(rows[2].id, "a"), (rows[1].id, "bcd"), (rows[0].id, "ef")]
    bearing = data.batch(0).loss_weight > 0
    assert bearing.sum() == sum(len(response_positions(row)) for row in rows) == 6


def test_without_arrays_it_names_the_examples(examples):
    data = batches.packed(
        examples,
        lambda rows: packing.in_order(rows, rows_per_batch=3),
        row_tokens=24,
        normalize="token",
    )
    named = [e.id for n in range(len(data.order)) for e, _ in passes.by_example(data, n)]
    assert sorted(named) == sorted(e.id for e in examples)


@pytest.mark.parametrize("rows_per_batch", [1, 4])
def test_prepared_reads_what_the_file_says(masked_file, tiny, examples, noisy, rows_per_batch):
    rows, provenance = read_masked(masked_file, [])
    model, data = passes.prepared(
        rows,
        provenance,
        masked_file=masked_file,
        folder=noisy[0],
        dtype="float32",
        row_tokens=24,
        rows_per_batch=rows_per_batch,
    )
    assert model.config == tiny
    assert len(data.examples) == len(examples)
    assert data.batch(0).tokens.shape == (rows_per_batch, 24)
