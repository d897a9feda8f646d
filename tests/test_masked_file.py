import numpy as np
import pytest

from opengrok_jax.errors import DataError
from opengrok_jax.masked_file import COLUMNS, read_masked, write_masked
from opengrok_jax.records import MaskedExample


def example(number: int, count: int) -> MaskedExample:
    chance = np.random.default_rng(number)
    arrays = {n: (chance.random(count) * 3).astype(kind) for n, kind in COLUMNS.items()}
    return MaskedExample(id=f"id{number}", split="valid" if number % 2 else "train", **arrays)


def test_what_is_written_is_read_to_the_bit(tmp_path):
    examples = [example(n, 1 + 3 * n) for n in range(4)]
    path = tmp_path / "m.parquet"
    assert write_masked(path, examples, {"b": [1], "a": "x"}) == 4
    read, provenance = read_masked(path)
    assert provenance == {"a": "x", "b": [1]}
    for before, after in zip(examples, read, strict=True):
        assert (before.id, before.split) == (after.id, after.split)
        for name, kind in COLUMNS.items():
            assert getattr(after, name).dtype == kind
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_the_same_examples_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_masked(tmp_path / name, [example(1, 5)], {"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_wrong_dtype_or_length_is_named(tmp_path):
    good = example(0, 4)
    fields = {n: getattr(good, n) for n in COLUMNS}
    wrong = MaskedExample(
        id="w", split="train", **fields | {"tfidf": fields["tfidf"].astype(np.float64)}
    )
    with pytest.raises(DataError, match="example w: tfidf must be float32"):
        write_masked(tmp_path / "m", [wrong], {})
    short = MaskedExample(id="s", split="train", **fields | {"roles": fields["roles"][:3]})
    with pytest.raises(DataError, match="example s: roles must be int8"):
        write_masked(tmp_path / "m", [short], {})
    assert not list(tmp_path.iterdir())


def test_a_missing_truncated_or_foreign_file_is_one_line(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "m.parquet"
    with pytest.raises(DataError, match="no such file; `opengrok mask` writes it"):
        read_masked(path)
    write_masked(path, [example(0, 4)], {})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_masked(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(DataError, match=r"columns .*; expected"):
        read_masked(path)
