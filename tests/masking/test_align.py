import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import tokenizer
from opengrok_jax.masking import align
from opengrok_jax.records import Message

POSTS = (
    "I want pies ☕",
    "ok 👨‍👩‍👧 family 👍🏽🇺🇸!!",
    "  wow\r\nnext  line\n\nﬁne … ½ ＠user #b2b",
    "naïve ́ combining, 中文字 and\ta tab",
)


def test_the_drawing_of_token_scores():
    spans = np.array([[0, 1], [1, 4], [4, 6], [6, 9], [9, 12], [11, 11], [11, 11], [11, 12]])
    starts, ends = np.array([0, 2, 7, 11]), np.array([1, 6, 11, 12])
    scores = np.array([1, 3, 2, 4], np.float32)
    result = align.token_scores(spans, starts, ends, scores)
    assert result.dtype == np.float32
    assert result.tolist() == [1, 3, 3, 2, 4, 4, 4, 4]


def test_the_drawing_of_first_word():
    spans = np.array([[0, 1], [1, 4], [4, 6], [6, 7], [7, 7], [7, 12]])
    starts, ends = np.array([0, 2, 7]), np.array([1, 6, 11])
    assert align.first_word(spans, starts, ends).tolist() == [0, 1, 1, -1, 2, 2]


@st.composite
def spans_and_words(draw):
    length = draw(st.integers(0, 30))
    cuts = sorted(draw(st.sets(st.integers(0, length), max_size=12)))
    words = [(a, b) for a, b in itertools.pairwise(cuts) if draw(st.booleans())]
    at = st.integers(0, length)
    tokens = [tuple(sorted((draw(at), draw(at)))) for _ in range(draw(st.integers(0, 12)))]
    scores = [[draw(st.integers(0, 4)), draw(st.integers(0, 1))] for _ in words]
    return tokens, words, scores


@given(spans_and_words())
def test_every_token_has_the_maximum_over_the_code_points_it_shares(case):
    tokens, words, scores = case
    spans = np.array(tokens, np.int32).reshape(-1, 2)
    starts = np.array([a for a, _ in words], np.int32)
    ends = np.array([b for _, b in words], np.int32)
    found = align.token_scores(
        spans, starts, ends, np.array(scores, np.float32).reshape(len(words), 2)
    )
    first = align.first_word(spans, starts, ends)
    assert found.shape == (len(tokens), 2)
    assert first.shape == (len(tokens),)
    for (low, high), row, index in zip(tokens, found.tolist(), first.tolist(), strict=True):
        mine = set(range(low, max(high, low + 1)))
        touched = [n for n, (a, b) in enumerate(words) if mine & set(range(a, b))]
        assert row == [max([scores[n][f] for n in touched], default=0) for f in (0, 1)]
        assert index == min(touched, default=-1)


def check_no_loss_and_no_leak(chat: tokenizer.ChatTokenizer):
    for post in POSTS:
        encoded = chat.encode_chat((Message(role="user", content=post),), post)
        words, at = [], 0
        for word in encoded.text.split():
            at = encoded.text.index(word, at)
            words.append((at, at := at + len(word)))
        starts, ends = np.array(words, np.int32).T
        every_other = np.array([n % 2 for n in range(len(words))], np.float32)
        scores = align.token_scores(encoded.spans, starts, ends, every_other)
        spans = [range(a, max(b, a + 1)) for a, b in encoded.spans.tolist()]
        for (a, b), score in zip(words, every_other, strict=True):
            here = [s for s, span in zip(scores, spans, strict=True) if {*span} & {*range(a, b)}]
            assert here, "a word without a token"
            assert not score or all(here), "a scored word with a token of score 0"
        for token, span in zip(scores, spans, strict=True):
            under = [
                s for (a, b), s in zip(words, every_other, strict=True) if {*span} & {*range(a, b)}
            ]
            assert token == max(under, default=0), "a score that no word has given"


def test_no_scored_word_is_lost_with_the_embedded_tokenizer():
    check_no_loss_and_no_leak(tokenizer.load())


def test_no_scored_word_is_lost_with_phi3s_tokenizer(shared_data):
    check_no_loss_and_no_leak(tokenizer.load(str(shared_data / "phi3-tokenizer")))


def test_all_bytes_of_an_emoji_share_its_score(shared_data):
    chat = tokenizer.load(str(shared_data / "phi3-tokenizer"))
    encoded = chat.encode_chat((Message(role="user", content="ok 👨‍👩‍👧 yes"),))
    start = encoded.text.index("👨")
    family = np.array([start]), np.array([start + 5])  # five code points, one word
    scores = align.token_scores(encoded.spans, *family, np.array([0.5], np.float32))
    assert np.count_nonzero(scores) >= 14
    assert scores[np.nonzero(scores)] == pytest.approx(0.5)
