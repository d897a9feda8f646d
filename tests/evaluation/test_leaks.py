import doctest

from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.evaluation import leaks
from opengrok_jax.evaluation.leaks import NEAR, find, folded


def test_exact_and_near() -> None:
    train = ["The bus is late again and it rains, thanks @Ada https://t.co/abc", "meh", ""]
    test = [
        "the bus is late AGAIN and it rains,  thanks @Bob https://t.co/xyz",  # folds to the same
        "The bus is late again and it rains, thanks @user http !",  # nearly
        "The bus is never late and it does not rain",  # another post
        "",  # empty ones never leak
        "meh",
        "mehh",
    ]
    found = find(test, train)
    assert (found.exact, found.near, found.all) == ((0, 4), (1,), (0, 1, 4))


def test_nothing() -> None:
    assert find([], ["a"]).all == find(["a"], []).all == ()


def test_doctests() -> None:
    assert doctest.testmod(leaks).failed == 0


def pieces(text: str) -> set[str]:
    return {text[at : at + 5] for at in range(max(1, len(text) - 4))}


texts = st.lists(st.text(alphabet="ab c", max_size=16), max_size=10)


@given(texts, texts)
def test_every_near_pair_is_found(test: list[str], train: list[str]) -> None:
    found = find(test, train)
    for at, text in enumerate(map(folded, test)):
        known = [folded(t) for t in train if folded(t)]
        exact = bool(text) and text in known
        near = any(
            len(pieces(text) & pieces(t)) / len(pieces(text) | pieces(t)) >= NEAR for t in known
        )
        assert (at in found.exact) == exact
        assert (at in found.near) == (bool(text) and near and not exact)


def test_the_real_overlap(shared_data) -> None:
    """TweetEval: one post of emotion's test set stands in its training set but for a mark, and four
    of offensive's letter by letter.
    """
    from opengrok_jax.storage import read_jsonl

    def posts(name: str, split: str) -> list[str]:
        file = shared_data / "tweeteval" / f"{name}.{split}.jsonl.gz"
        return [row["text"] for row in read_jsonl(file)]

    emotion = find(posts("emotion", "test"), posts("emotion", "train"))
    assert (len(emotion.exact), len(emotion.near)) == (0, 1)
    test, train = posts("offensive", "test"), posts("offensive", "train")
    same = {i for i, text in enumerate(test) if text in {*train}}
    assert len(same) == 4
    assert same <= {*find(test, train).exact}
