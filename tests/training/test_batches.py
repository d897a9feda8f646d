import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.errors import DataError
from opengrok_jax.model.rope import segment_positions
from opengrok_jax.soft_file import ABSENT, SoftFile, SoftRows, checksum, finish, write_part
from opengrok_jax.training import batches, packing


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
    assert {
        name: np.asarray(value)[0].tolist()
        for name, value in batch._asdict().items()
        if name not in ("soft", "redraw")
    } == {
        "tokens": [5, 6, 7, 8, 9, 5, 4, 8, 9, 0, 0, 0],
        "segment_ids": [1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0],
        "positions": [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2],
        "key_mask": [1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        "targets": [0, 0, 8, 9, 0, 0, 8, 9, 0, 0, 0, 0],
        "loss_weight": [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0],
        "norm_weight": norm_weight,
    }
    assert {str(value.dtype) for value in batch[:7]} == {"int32", "bool", "float32"}


def test_soft_targets_stand_where_their_token_is_predicted(example, tmp_path):
    """The drawing again: the first example has stored distributions, the second none."""
    data = drawn(example)
    ids = np.array([[8, 3], [9, ABSENT]], np.int32)
    logprobs = np.array([[-0.5, -1.5], [-0.25, 0]], np.float32)
    row = SoftRows(id=data[0].id, fits=checksum(data[0]), ids=ids, logprobs=logprobs)
    write_part(tmp_path, 0, [row], k=2)
    finish(tmp_path, parts=1, k=2, facts={})
    form = {"row_tokens": 12, "normalize": "token"}
    batch = batches.fill([[1, 0], []], data, **form, soft_file=SoftFile(tmp_path))
    assert batch.soft is not None
    assert batch.soft.ids.shape == batch.soft.logprobs.shape == (2, 12, 2)
    there = np.argwhere(batch.soft.ids[..., 0] != ABSENT).tolist()
    assert there == [[0, 6], [0, 7]]  # the second example lies before: 4 tokens, then 2 and 3
    np.testing.assert_array_equal(batch.soft.ids[0, 6:8], ids)
    np.testing.assert_array_equal(batch.soft.logprobs[0, 6:8], logprobs)
    plain = batches.fill([[1, 0], []], data, **form)
    assert plain.soft is None
    for with_soft, without in zip(batch[:7], plain[:7], strict=True):
        np.testing.assert_array_equal(with_soft, without)


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
    rows = packing.pack([len(e.tokens) for e in examples], 48)
    batch = batches.fill(rows, examples, row_tokens=48, normalize="token")
    expected = segment_positions(jnp.asarray(batch.segment_ids))
    np.testing.assert_array_equal(batch.positions, expected)


@given(
    sizes=st.lists(st.tuples(st.integers(3, 20), st.integers(1, 2)), min_size=1, max_size=20),
    normalize=st.sampled_from(["token", "example"]),
)
def test_every_response_token_bears_loss_once(example, sizes, normalize):
    data = [example(i, length=n, response=r) for i, (n, r) in enumerate(sizes)]
    rows = packing.pack([len(e.tokens) for e in data], 20)
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


def test_packed_tells_what_is_in_it(examples):
    data = [e for e in examples if e.split == "train"]
    packed = batches.packed(
        data,
        lambda rows: packing.data_order(rows, rows_per_batch=3, epochs=2.0, max_steps=0, seed=0),
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
