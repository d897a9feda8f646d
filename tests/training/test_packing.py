"""Rows, steps and the room for what bears loss."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.training import packing


def test_pack_is_the_drawing():
    assert packing.pack([5, 3, 4, 2, 1], 8) == [[0, 1], [2, 3, 4]]


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
    rows = packing.pack(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in row) for row in rows]
    assert max(used) <= 20
    expected = best_fit_by_scan(lengths, 20)
    # Equal spaces are interchangeable: which row is taken differs, how full the rows get does not.
    assert sorted(used) == sorted(sum(lengths[i] for i in row) for row in expected)
    assert sum(sorted(used)[:2]) > 20 or len(rows) == 1  # no two rows would fit into one


class TestDataOrder:
    def order(self, rows=4, **changes):
        given = {"rows_per_batch": 3, "epochs": 2.0, "max_steps": 0, "seed": 0} | changes
        return packing.data_order(rows, **given)

    def test_is_the_drawing(self):
        """Also a golden value: a resumed run relies on this very order, in every NumPy."""
        assert self.order().tolist() == [[0, 2, 1], [3, 3, 2], [1, 0, -1]]

    @given(st.integers(1, 30), st.integers(1, 8), st.floats(0.1, 4), st.integers(0, 2**60))
    def test_each_epoch_is_a_permutation(self, rows, rows_per_batch, epochs, seed):
        order = packing.data_order(
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
        assert packing.in_order(5, rows_per_batch=3).tolist() == [[0, 1, 2], [3, 4, -1]]


class TestCapacity:
    bearing = np.array([3, 5, 2, 4], np.int32)

    def test_is_the_drawing(self):
        order = np.array([[2, 0, 3, 1]], np.int32)
        of = packing.loss_capacity(order, self.bearing, parts=2, row_tokens=512)
        assert of == 64

    def test_never_more_than_there_are_positions(self):
        order = np.array([[2, 0, 3, 1]], np.int32)
        assert packing.loss_capacity(order, self.bearing, parts=2, row_tokens=6) == 12

    def test_the_heaviest_part_counts(self):
        order = np.array([[0, 2], [1, 3], [2, -1]], np.int32)
        bearing = np.array([60, 70, 50, 63], np.int32)
        assert packing.loss_capacity(order, bearing, parts=1, row_tokens=512) == 192
        assert packing.loss_capacity(order, bearing, parts=2, row_tokens=512) == 128
