import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.errors import DataError, StorageError
from opengrok_jax.masking import arrays


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_texts_come_back(texts):
    assert arrays.unpack(arrays.pack(texts)) == texts


def test_arrays_come_back_and_are_the_same_bytes(tmp_path):
    given = {"a": np.arange(5, dtype=np.uint16), "b": np.zeros((0, 3), bool)}
    given |= arrays.under("t", arrays.pack(["x", "é"]))
    for name in ("one", "two"):
        arrays.save(tmp_path / name / "f.npz", given)
    assert (tmp_path / "one/f.npz").read_bytes() == (tmp_path / "two/f.npz").read_bytes()
    found = arrays.load(tmp_path / "one" / "f.npz")
    assert arrays.unpack(arrays.taken("t", found)) == ["x", "é"]
    for name in ("a", "b"):
        assert found[name].dtype == given[name].dtype
        np.testing.assert_array_equal(found[name], given[name])


@pytest.mark.parametrize("body", [b"", b"no archive", None])
def test_a_missing_or_damaged_file_is_one_line(tmp_path, body):
    path = tmp_path / "f.npz"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(DataError, match=r"cannot be read .* remove the folder `cache`"):
        arrays.load(path)


def test_a_file_cut_short_is_damaged(tmp_path):
    path = tmp_path / "f.npz"
    arrays.save(path, {"a": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read"):
        arrays.load(path)


def test_a_disk_that_refuses_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        arrays.save(tmp_path / "file" / "f.npz", {})


def test_joined_keeps_the_dtype():
    assert arrays.joined([], np.int8).dtype == np.int8
    assert arrays.joined([np.zeros((2, 3), np.int32)], np.int32).shape == (2, 3)
