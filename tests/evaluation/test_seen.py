"""Tokens as a page shows them, and which of a question's tokens are the post's."""

from pathlib import Path

import numpy as np
import pytest

from opengrok_jax import tokenizer
from opengrok_jax.evaluation import outcomes, seen
from opengrok_jax.masked_file import read_masked
from opengrok_jax.records import Message
from tests.evaluation import finished


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    return finished.write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def posts(arguments) -> seen.Posts:
    chat = seen.chat_of(arguments["masked_file"])
    asked = Path(arguments["evaluation"]) / outcomes.QUESTIONS
    return seen.Posts(asked, arguments["question_masks"], chat)


def test_the_bytes_of_a_character_are_one_span():
    """
    tokens   Hi   0xF0 0x9F 0x91 0x8D   !           visible where one of its tokens is
    spans    Hi           👍            !
    """
    chat = tokenizer.load()
    row = finished.masked("x", "Hi 🦤!")
    start = next(n for n, t in enumerate(row.tokens) if chat.token_text(int(t)).startswith("<0xF0"))
    row.key_mask[start : start + 4] = [False, True, False, False]
    found = seen.spans(chat, row)
    at = [span.text for span in found].index("🦤")
    assert found[at].visible
    assert found[at].keep_prob == row.keep_prob[start : start + 4].max()
    row.key_mask[start + 1] = False
    assert not seen.spans(chat, row)[at].visible
    assert "hidden" in seen.spans(chat, row)[at].tip
    assert found[0].role == "special"
    assert found[0].tip == "always visible"


def test_a_part_of_a_row_has_that_parts_masks():
    chat, row = tokenizer.load(), finished.masked("x", "one two three four five")
    whole, part = seen.spans(chat, row), seen.spans(chat, row, slice(3, 6))
    assert [s.text for s in part] == [s.text for s in whole[3:6]]
    assert [s.keep_prob for s in part] == row.keep_prob[3:6].tolist()


def test_examples_come_from_as_many_intents_as_there_is_room_for(arguments):
    kept = [finished.example(n, intent) for n, intent in enumerate(["a", "a", "b"])]
    found = list(seen.examples(arguments["masked_file"], kept, 2))
    assert [one["intent"] for one in found] == ["a", "b"]
    masked, _ = read_masked(arguments["masked_file"])
    inside = (masked[0].roles != tokenizer.TEMPLATE) & ~np.array(
        [tokenizer.load().is_special(int(t)) for t in masked[0].tokens]
    )
    assert found[0]["kept"] == pytest.approx(masked[0].key_mask[inside].mean())
    unknown = finished.example(77, "c")
    assert list(seen.examples(arguments["masked_file"], [unknown], 2)) == []


def test_a_posts_tokens_are_those_between_the_instructions(posts, arguments):
    masks, _ = read_masked(arguments["question_masks"])
    _, (outcome,) = outcomes.read(arguments["evaluation"])
    shares = posts.hidden(outcome)
    chat = tokenizer.load()
    for n, text in enumerate(finished.posts()):
        # Another way to the same tokens: the question without the post's end, and without it.
        row = next(r for r in masks if r.id == f"mood/p{n}")
        until = chat.encode_chat((Message(role="user", content="How is it? " + text),))
        before = len(chat.encode_chat((Message(role="user", content="How is it?"),)).tokens) - 2
        stop = len(until.tokens) - 2
        before += chat.token_text(int(row.tokens[before])) == "▁"  # the space between
        assert np.array_equal(row.tokens[:stop], until.tokens[:stop])
        assert shares[n] == pytest.approx(float(1 - row.key_mask[before:stop].mean()))
        shown = posts.spans("mood", f"p{n}", text)
        assert [s.visible for s in shown].count(False) <= (~row.key_mask[before:stop]).sum()


def test_what_was_not_asked_has_no_masks(posts):
    assert posts.spans("mood", "nobody", "text") == []
    assert posts.spans("mood", "p1", "") == []
    assert posts.spans("mood", "p1", "words that are not in the question") == []
