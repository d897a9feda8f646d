import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.masking import distinct


def digests(text: str) -> np.ndarray:
    rows = [letter.encode().ljust(16, b"-") for letter in text]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16)


def test_the_drawing(tmp_path):
    with distinct.opened(tmp_path / "d.sqlite") as index:
        assert index.of(digests("AB"))[0].tolist() == [0, 1]
        places, new = index.of(digests("BCBDC"))
        assert (places.tolist(), new) == ([1, 2, 1, 3, 2], [1, 3])
        assert index.count == 4
    assert not list(tmp_path.iterdir())


@given(st.lists(st.text("abcdef", max_size=9), max_size=9))
def test_a_place_is_the_order_of_first_occurrence(tmp_path_factory, blocks):
    first = {letter: at for at, letter in enumerate(dict.fromkeys("".join(blocks)))}
    folder = tmp_path_factory.mktemp("distinct")
    small, distinct.RECENT = distinct.RECENT, 2  # most look-ups go to the disk
    try:
        with distinct.opened(folder / "sub" / "d.sqlite") as index:
            for block in blocks:
                places, new = index.of(digests(block))
                assert places.tolist() == [first[letter] for letter in block]
                assert [places[at] for at in new] == sorted({*places[new].tolist()})
            assert index.count == len(first)
    finally:
        distinct.RECENT = small


def test_an_index_begins_empty(tmp_path):
    (tmp_path / "d.sqlite").write_text("left by a killed process")
    with distinct.opened(tmp_path / "d.sqlite") as index:
        assert index.of(digests("A"))[1] == [0]
