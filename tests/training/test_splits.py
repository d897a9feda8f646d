"""Two splits out of a masked file, and how much of one has distributions."""

from pathlib import Path

import numpy as np
import pytest

from opengrok_jax import soft_file
from opengrok_jax.errors import DataError
from opengrok_jax.soft_file import ABSENT, SoftFile, SoftRows
from opengrok_jax.training.splits import pack_splits, soft_share

WHERE = Path("masked.parquet")
FORM = {
    "masked_file": WHERE,
    "vocab_size": 64,
    "row_tokens": 48,
    "rows_per_batch": 4,
    "microbatches": 2,
    "epochs": 2.0,
    "max_steps": 0,
    "eval_every": 4,
    "normalize": "token",
    "seed": 0,
}


def stored(folder, examples, highest=60):
    rows = []
    for example in examples:
        count = len(soft_file.response_positions(example))
        ids = np.full((count, 2), ABSENT, np.int32)
        ids[0, 0] = highest
        zeros = np.zeros((count, 2), np.float32)
        fits = soft_file.checksum(example)
        rows.append(SoftRows(id=example.id, fits=fits, ids=ids, logprobs=zeros))
    soft_file.write_part(folder, 0, rows, k=2)
    soft_file.finish(folder, parts=1, k=2, facts={})
    return SoftFile(folder)


def test_each_example_is_in_its_split(examples):
    train, valid = pack_splits(examples, **FORM)
    assert valid is not None
    assert {e.split for e in train.examples} == {"train"}
    assert {e.split for e in valid.examples} == {"valid"}
    assert len(train.examples) + len(valid.examples) == len(examples)
    assert train.order.shape[1] == 4
    assert valid.order.shape[1] == 2, "an evaluation runs a microbatch at a time"
    seen = [i for row in valid.order.ravel() if row >= 0 for i in valid.rows[row]]
    assert sorted(seen) == list(range(len(valid.examples)))


def test_without_evaluations_there_is_no_validation_split(examples):
    trained = [e for e in examples if e.split == "train"]
    assert pack_splits(trained, **{**FORM, "eval_every": 0})[1] is None
    with pytest.raises(DataError, match=r"no valid examples.* set eval_every to 0"):
        pack_splits(trained, **FORM)
    with pytest.raises(DataError, match="no train examples; raise the share"):
        pack_splits([e for e in examples if e.split == "valid"], **FORM)


def test_share_of_the_tokens_with_a_distribution(examples, tmp_path):
    """One token of each of the first two examples, of all response tokens."""
    soft = stored(tmp_path, [e for e in examples if e.split == "train"][:2])
    train, valid = pack_splits(examples, **FORM, soft_file=soft)
    total = sum(len(soft_file.response_positions(e)) for e in train.examples)
    assert soft_share(train, 64) == pytest.approx(2 / total)
    assert train.batch(0).soft is not None
    assert valid is not None
    assert valid.batch(0).soft is None, "the validation loss is cross-entropy"


def test_soft_targets_that_cannot_be_learnt_from_are_refused(examples, tmp_path):
    trained = [e for e in examples if e.split == "train"]
    high, none = tmp_path / "high", tmp_path / "none"
    train, _ = pack_splits(examples, **FORM, soft_file=stored(high, trained[:1], highest=64))
    with pytest.raises(DataError, match=f"example {trained[0].id} hold token id 64"):
        soft_share(train, 64)
    train, _ = pack_splits(examples, **FORM, soft_file=stored(none, trained[:1], highest=ABSENT))
    with pytest.raises(DataError, match="no response token of the train split"):
        soft_share(train, 64)
