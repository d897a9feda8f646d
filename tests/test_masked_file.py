import numpy as np
import pytest

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.masked_file import COLUMNS, digest, manifest, read_masked, write_masked
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
    for name in ("part-00000.parquet", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    write_masked(tmp_path / "b", [example(2, 5)], {"x": 1})
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


def test_parts_are_read_as_one_and_an_earlier_larger_folder_leaves_none(tmp_path):
    examples = [example(n, n) for n in range(7)]
    assert write_masked(tmp_path / "m", examples, {}, rows_per_part=2) == 7
    assert [note["rows"] for note in manifest(tmp_path / "m")["parts"]] == [2, 2, 2, 1]
    rows, _ = read_masked(tmp_path / "m")
    assert len(rows) == 7
    assert rows.ids == [e.id for e in examples] == [r.id for r in rows]
    assert rows.lengths().tolist() == [*range(7)]
    assert [r.id for r in rows[::-1]] == [e.id for e in examples[::-1]]
    np.testing.assert_array_equal(rows[-1].tfidf, examples[-1].tfidf)
    with pytest.raises(IndexError):
        rows[7]
    write_masked(tmp_path / "m", examples[:3], {}, rows_per_part=2)
    assert len(list((tmp_path / "m").glob("*.parquet"))) == 2
    assert read_masked(tmp_path / "m")[0].ids == ["id0", "id1", "id2"]


def test_factors_that_were_not_asked_for_cannot_be_taken_for_numbers(tmp_path):
    write_masked(tmp_path / "m", [example(1, 5)], {})
    (row,), _ = read_masked(tmp_path / "m", ["keep_prob"])
    np.testing.assert_array_equal(row.keep_prob, example(1, 5).keep_prob)
    np.testing.assert_array_equal(row.key_mask, example(1, 5).key_mask)
    for name in ("tfidf", "pos", "dep", "random"):
        assert np.isnan(getattr(row, name)).all()


def test_no_example_at_all(tmp_path):
    assert write_masked(tmp_path / "m", [], {"x": 1}) == 0
    rows, provenance = read_masked(tmp_path / "m")
    assert (list(rows), provenance) == ([], {"x": 1})


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
    part = path / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-9])
    with pytest.raises(DataError, match="not a readable Parquet file: missing or not the"):
        read_masked(path)
    note = manifest_note(path)
    part.write_bytes(whole[:-9] + b"0" * 9)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_masked(path)
    pq.write_table(pa.table({"id": ["a"]}), part)
    storage.write_json(
        path / "manifest.json",
        {"parts": [note | {"bytes": part.stat().st_size}], "provenance": {}},
    )
    with pytest.raises(DataError, match=r"columns .*; expected"):
        read_masked(path)
    storage.write_json(path / "manifest.json", {"parts": 3})
    with pytest.raises(DataError, match="expected parts and provenance"):
        read_masked(path)
    (path / "manifest.json").unlink()
    with pytest.raises(DataError, match="not complete"):
        read_masked(path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        read_masked(tmp_path / "file")


def manifest_note(path):
    return storage.read_json(path / "manifest.json")["parts"][0]


@pytest.mark.parametrize("change", [{"rows": 0}, {"rows": 2}, {"tokens": 3}, {"tokens": 5}])
def test_a_manifest_that_counts_otherwise_is_refused(tmp_path, change):
    write_masked(tmp_path / "m", [example(0, 4)], {})
    note = manifest_note(tmp_path / "m") | change
    storage.write_json(tmp_path / "m" / "manifest.json", {"parts": [note], "provenance": {}})
    with pytest.raises(DataError, match="than its manifest notes"):
        read_masked(tmp_path / "m")
