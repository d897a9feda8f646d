import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.errors import DataError
from opengrok_jax.model.rope import segment_positions
from opengrok_jax.training import batches


def drawn(example):
    """The two examples of the drawing in `fill`."""
    first, second = example(1, length=5, response=2), example(2, length=4, response=2)
    int8, int32 = np.int8, np.int32
    return [
        dataclasses.replace(
            first,
            tokens=np.array([5, 6, 7, 8, 9], int32),
            roles=np.array([0, 1, 0, 2, 2], int8),
            key_mask=np.array([1, 0, 1, 1, 1], bool),
        ),
        dataclasses.replace(
            second,
            tokens=np.array([5, 4, 8, 9], int32),
            roles=np.array([0, 1, 2, 2], int8),
            key_mask=np.array([1, 1, 1, 0], bool),
        ),
    ]


@pytest.mark.parametrize(
    ("normalize", "norm_weight"),
    [
        ("token", [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]),
        ("example", [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]),
    ],
)
def test_fill_is_the_drawing(example, normalize, norm_weight):
    batch = batches.fill([[0, 1]], drawn(example), row_tokens=12, normalize=normalize)
    assert {name: np.asarray(value)[0].tolist() for name, value in batch._asdict().items()} == {
        "tokens": [5, 6, 7, 8, 9, 5, 4, 8, 9, 0, 0, 0],
        "segment_ids": [1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0],
        "positions": [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2],
        "key_mask": [1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        "targets": [0, 0, 8, 9, 0, 0, 8, 9, 0, 0, 0, 0],
        "loss_weight": [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0],
        "norm_weight": norm_weight,
    }
    assert {str(value.dtype) for value in batch} == {"int32", "bool", "float32"}


def test_an_end_token_that_equals_padding_is_learnt(example):
    """pad == eos: weights go by role, so the last answer token bears loss whatever its id."""
    one = drawn(example)[0]
    one = dataclasses.replace(one, tokens=np.array([5, 6, 7, 8, 0], np.int32))
    batch = batches.fill([[0]], [one], row_tokens=8, normalize="token")
    assert batch.targets[0, 3] == 0
    assert batch.loss_weight[0].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_an_empty_row_bears_nothing(example):
    batch = batches.fill([[], [0]], drawn(example), row_tokens=6, normalize="example")
    assert not batch.segment_ids[0].any()
    assert not batch.loss_weight[0].any()
    assert not batch.key_mask[0].any()
    assert batch.norm_weight.sum() == 1


def test_positions_are_those_of_the_model(examples):
    rows = batches.pack([len(e.tokens) for e in examples], 48)
    batch = batches.fill(rows, examples, row_tokens=48, normalize="token")
    expected = segment_positions(jnp.asarray(batch.segment_ids))
    np.testing.assert_array_equal(batch.positions, expected)


def test_pack_is_the_drawing():
    assert batches.pack([5, 3, 4, 2, 1], 8) == [[0, 1], [2, 3, 4]]


def best_fit_by_scan(lengths, row_tokens):
    """The same by definition: longest first, the fullest row that fits, the latest among equals."""
    rows, free = [], []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [space for space in free if space >= lengths[index]]
        if fitting:
            row = free.index(min(fitting))
        else:
            rows.append([])
            free.append(row_tokens)
            row = len(rows) - 1
        rows[row].append(index)
        free[row] -= lengths[index]
    return rows


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_pack_places_each_example_once_and_as_tightly_as_best_fit(lengths):
    rows = batches.pack(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in row) for row in rows]
    assert max(used) <= 20
    expected = best_fit_by_scan(lengths, 20)
    # Equal spaces are interchangeable: which row is taken differs, how full the rows get does not.
    assert sorted(used) == sorted(sum(lengths[i] for i in row) for row in expected)
    assert sum(sorted(used)[:2]) > 20 or len(rows) == 1  # no two rows would fit into one


@given(
    sizes=st.lists(st.tuples(st.integers(3, 20), st.integers(1, 2)), min_size=1, max_size=20),
    normalize=st.sampled_from(["token", "example"]),
)
def test_every_response_token_bears_loss_once(example, sizes, normalize):
    data = [example(i, length=n, response=r) for i, (n, r) in enumerate(sizes)]
    rows = batches.pack([len(e.tokens) for e in data], 20)
    batch = batches.fill(rows, data, row_tokens=20, normalize=normalize)
    assert batch.loss_weight.sum() == sum(r for _, r in sizes)
    assert batch.norm_weight.sum() == (
        sum(r for _, r in sizes) if normalize == "token" else len(data)
    )
    assert ((batch.loss_weight > 0) >= (batch.norm_weight > 0)).all()
    bearing = np.argwhere(batch.loss_weight > 0)
    for b, t in bearing:
        assert batch.segment_ids[b, t] == batch.segment_ids[b, t + 1] > 0
        assert batch.targets[b, t] == batch.tokens[b, t + 1]


class TestCheckExamples:
    def check(self, data, **changes):
        limits = {"row_tokens": 16, "vocab_size": 61, "where": "masked.parquet"} | changes
        batches.check_examples(data, **limits)

    def test_good_ones_pass(self, example):
        self.check([example(1, length=16, response=2)])

    def test_too_long(self, example):
        with pytest.raises(DataError, match="0000000000000005 has 17 tokens, a row holds 16"):
            self.check([example(1, length=16, response=2), example(5, length=17, response=2)])

    def test_no_response(self, example):
        with pytest.raises(DataError, match="0000000000000005 has no response token"):
            self.check([example(5, length=9, response=0)])

    def test_only_the_first_token_is_response(self, example):
        """Nothing comes before it, so that nothing predicts it."""
        one = example(5, length=9, response=0)
        one.roles[0] = 2
        with pytest.raises(DataError, match="no response token"):
            self.check([one])

    def test_hidden_first_token(self, example):
        one = example(5, length=9, response=2)
        one.key_mask[0] = False
        with pytest.raises(DataError, match="0000000000000005 hides its first token"):
            self.check([one])

    def test_foreign_token(self, example):
        one = example(5, length=9, response=2)
        one.tokens[4] = 61
        with pytest.raises(DataError, match=r"0000000000000005 holds token id 61.* 0 to 60"):
            self.check([one])


class TestDataOrder:
    def order(self, rows=4, **changes):
        given = {"rows_per_batch": 3, "epochs": 2.0, "max_steps": 0, "seed": 0} | changes
        return batches.data_order(rows, **given)

    def test_is_the_drawing(self):
        """Also a golden value: a resumed run relies on this very order, in every NumPy."""
        assert self.order().tolist() == [[0, 2, 1], [3, 3, 2], [1, 0, -1]]

    @given(st.integers(1, 30), st.integers(1, 8), st.floats(0.1, 4), st.integers(0, 2**60))
    def test_each_epoch_is_a_permutation(self, rows, rows_per_batch, epochs, seed):
        order = batches.data_order(
            rows, rows_per_batch=rows_per_batch, epochs=epochs, max_steps=0, seed=seed
        )
        flat = order.ravel()
        total = max(round(epochs * rows), 1)
        assert (flat[:total] >= 0).all()
        assert (flat[total:] == -1).all()
        assert len(flat) - total < rows_per_batch
        for start in range(0, total - rows + 1, rows):
            assert sorted(flat[start : start + rows]) == list(range(rows))

    def test_more_epochs_only_append(self):
        few, many = self.order(rows=9, epochs=2.0), self.order(rows=9, epochs=5.0)
        np.testing.assert_array_equal(many[: len(few)], few)

    def test_max_steps_only_cuts(self):
        np.testing.assert_array_equal(
            self.order(rows=9, epochs=5.0, max_steps=4), self.order(rows=9, epochs=5.0)[:4]
        )

    def test_seed_and_epoch_change_it(self):
        first = self.order(rows=50, epochs=2.0, rows_per_batch=50)
        other = self.order(rows=50, epochs=2.0, rows_per_batch=50, seed=1)
        assert (first[0] != first[1]).any()
        assert (first[0] != other[0]).any()

    def test_in_order(self):
        assert batches.in_order(5, rows_per_batch=3).tolist() == [[0, 1, 2], [3, 4, -1]]


class TestCapacity:
    bearing = np.array([3, 5, 2, 4], np.int32)

    def test_is_the_drawing(self):
        order = np.array([[2, 0, 3, 1]], np.int32)
        of = batches.loss_capacity(order, self.bearing, parts=2, row_tokens=512)
        assert of == 64

    def test_never_more_than_there_are_positions(self):
        order = np.array([[2, 0, 3, 1]], np.int32)
        assert batches.loss_capacity(order, self.bearing, parts=2, row_tokens=6) == 12

    def test_the_heaviest_part_counts(self):
        order = np.array([[0, 2], [1, 3], [2, -1]], np.int32)
        bearing = np.array([60, 70, 50, 63], np.int32)
        assert batches.loss_capacity(order, bearing, parts=1, row_tokens=512) == 192
        assert batches.loss_capacity(order, bearing, parts=2, row_tokens=512) == 128


def test_packed_tells_what_is_in_it(examples):
    data = [e for e in examples if e.split == "train"]
    packed = batches.packed(
        data,
        lambda rows: batches.data_order(rows, rows_per_batch=3, epochs=2.0, max_steps=0, seed=0),
        row_tokens=48,
        normalize="token",
    )
    whole = batches.fill(packed.rows, data, row_tokens=48, normalize="token")
    assert packed.efficiency() == pytest.approx((whole.segment_ids > 0).mean())
    np.testing.assert_array_equal(packed.bearing(), whole.loss_weight.sum(axis=1))
    names = {data[i].id for row in packed.order[1] for i in packed.rows[row]}
    assert set(packed.ids(1)) == names
    last = packed.batch(len(packed.order) - 1)
    assert last.tokens.shape == (3, 48)  # the last batch has the shape of all others
    assert (last.loss_weight.sum(axis=1) == 0).sum() == (packed.order[-1] == -1).sum() > 0
    heaviest = max(int(packed.batch(i).loss_weight.sum()) for i in range(len(packed.order)))
    assert packed.capacity(1) >= heaviest
