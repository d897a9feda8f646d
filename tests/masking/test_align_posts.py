"""Words to tokens on whole posts, against oracles that use neither offsets nor NumPy.

Where a token stands is told by its bytes alone: the bytes of the tokens of a turn are its text, so
each token's code points follow from counting. What a token scores is told by sets of code points.
"""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings

from opengrok_jax import masked_file, tokenizer
from opengrok_jax.masking import align, build, syntax
from opengrok_jax.records import Cell, Example, Message
from tests.masking.annotated import join, stored
from tests.masking.posts import EDGES, LONG, posts


@pytest.fixture(scope="module")
def nlp():
    return syntax.load_pipeline()


@pytest.fixture(scope="module", params=["embedded", "phi3"])
def folder(request):
    """The name of a tokenizer, as a config gives it."""
    if request.param == "embedded":
        return ""
    return str(request.getfixturevalue("shared_data") / "phi3-tokenizer")


@pytest.fixture(scope="module")
def chat(folder):
    return tokenizer.load(folder)


def code_points(chat, encoded, contents: list[str]) -> list[set[int]]:
    """The code points of `encoded.text` that each token's bytes touch; `contents` of each turn."""
    between = [text for content in contents[:-1] for text in ("\n" + content, "\n")]
    between.append("\n" + contents[-1])
    tokens = encoded.tokens.tolist()
    result: list[set[int]] = []
    at = number = 0
    for full in between:
        name = chat.token_text(tokens[number])
        assert encoded.special[number]
        assert encoded.text[at : at + len(name)] == name
        result.append(set(range(at, at + len(name))))
        at, number, run = at + len(name), number + 1, []
        while number < len(tokens) and not encoded.special[number]:
            run.append(chat.token_bytes(tokens[number]))
            number += 1
        text = b"".join(run).decode()
        assert text[:1] in ("", " "), "the file puts a space before a text, and nothing else"
        kept = text[1:]
        lost = len(full) - len(kept)
        assert full.replace("▁", " ").endswith(kept), "the tokens spell the turn"
        assert not full[:lost].strip(), "only white space before a turn is swallowed"
        # The added space lies on the first code point; every other character has its own.
        owners = [max(n - 1, 0) for n, char in enumerate(text) for _ in char.encode()]
        used = 0
        for piece in run:
            mine = owners[used : used + len(piece)]
            result.append({at + lost + point for point in mine})
            used += len(piece)
        at += len(full)
    if number < len(tokens):
        name = chat.token_text(tokens[number])
        assert encoded.text[at:] == name
        result.append(set(range(at, at + len(name))))
    assert len(result) == len(tokens)
    return result


def check_spans_and_scores(chat, nlp, post: str) -> None:
    post = syntax.well_formed(post)
    encoded = chat.encode_chat((Message(role="user", content=post),), post)
    touched = code_points(chat, encoded, [post, post])
    spans = [set(range(a, max(b, a + 1))) for a, b in encoded.spans.tolist()]
    for number, (span, mine) in enumerate(zip(spans, touched, strict=True)):
        # Bytes say which character a token is part of; the span must be just that.
        assert mine == span, (number, mine, span)

    found = stored(nlp, post)
    places = [encoded.text.index("\n") + 1, len(encoded.text) - len("<|end|>") - len(post)]
    words = join((at, found) for at in places)
    # A score of its own for every word, zero for every third, so that each mistake shows.
    scores = np.array([(n * 7 % 97 + 1) / 100 if n % 3 else 0.0 for n in range(len(words.starts))])
    got = align.token_scores(encoded.spans, words.starts, words.ends, scores.astype(np.float32))
    under = [set(range(a, b)) for a, b in zip(words.starts, words.ends, strict=True)]
    owner = {point: n for n, points in enumerate(under) for point in points}
    best = [0.0] * len(under)
    for number, mine in enumerate(touched):
        over = {owner[point] for point in mine if point in owner}
        assert got[number] == np.float32(max([scores[n] for n in over], default=0.0))
        assert not (encoded.special[number] and over), "a control token under a word"
        for n in over:
            best[n] = max(best[n], float(got[number]))
    for n, (score, reached) in enumerate(zip(scores, best, strict=True)):
        assert reached >= np.float32(score), ("a scored word without a token", words.lower[n])


def test_every_kind_of_post(chat, nlp):
    for post in EDGES:
        check_spans_and_scores(chat, nlp, post)


@pytest.mark.parametrize("post", LONG, ids=range(len(LONG)))
def test_ten_thousand_characters(chat, nlp, post):
    check_spans_and_scores(chat, nlp, post)


@given(post=posts)
@settings(max_examples=60)
def test_any_post(chat, nlp, post):
    check_spans_and_scores(chat, nlp, post)


# ---- the same through the whole room ------------------------------------------------------------


def key_words(nlp, text: str) -> list[tuple[set[int], bool, bool]]:
    """Code points, pos and dep of every word, straight from spaCy's tokens."""
    doc = nlp(text)
    ends = set()
    for token in doc:
        if syntax.relation_name(token.dep_) in syntax.RELATIONS:
            ends |= {token.i, token.head.i}
    return [
        (set(range(t.idx, t.idx + len(t.text))), t.pos_ in syntax.POS_TAGS, t.i in ends)
        for t in doc
        if not t.is_space
    ]


def test_what_the_build_stores(chat, folder, nlp, tmp_path):
    """Each token of the artifact has the maximum of its words, the template has nothing."""
    pairs = [(post, EDGES[-1 - n]) for n, post in enumerate(EDGES) if len(post) < 60]
    examples = [
        Example(
            id=f"{n:016x}", messages=(Message(role="user", content=post),), response=answer,
            split="train", cell=Cell(intent="x"), source="recorded", model_served="m", rights="r",
        )
        for n, (post, answer) in enumerate(pairs)
    ]  # fmt: skip
    # Escaped, which is how lone surrogates come in a file.
    lines = [json.dumps(dataclasses.asdict(example)) for example in examples]
    (tmp_path / "examples.jsonl").write_text("\n".join(lines))
    build.run(examples_file=tmp_path / "examples.jsonl", out=tmp_path / "out", tokenizer=folder)
    masked, _ = masked_file.read_masked(tmp_path / "out" / "masked.parquet")
    assert [row.id for row in masked] == [example.id for example in examples]
    scored = 0
    for row, (post, answer) in zip(masked, pairs, strict=True):
        post, answer = syntax.well_formed(post), syntax.well_formed(answer)
        encoded = chat.encode_chat((Message(role="user", content=post),), answer)
        assert row.tokens.tolist() == encoded.tokens.tolist()
        touched = code_points(chat, encoded, [post, answer])
        words = []
        for at, text in (
            (len("<|user|>\n"), post),
            (len(encoded.text) - len("<|end|>") - len(answer), answer),
        ):
            words += [({at + p for p in mine}, pos, dep) for mine, pos, dep in key_words(nlp, text)]
        for number, mine in enumerate(touched):
            over = [word for word in words if word[0] & mine]
            content = row.roles[number] != tokenizer.TEMPLATE and not encoded.special[number]
            assert row.pos[number] == (content and any(pos for _, pos, _ in over))
            assert row.dep[number] == (content and any(dep for _, _, dep in over))
            assert (row.tfidf[number] > 0) == (content and bool(over))
            assert content or not over, "a word under the template"
            scored += bool(row.pos[number])
        for mine, pos, dep in words:
            here = [n for n, points in enumerate(touched) if points & mine]
            assert here
            assert not pos or all(row.pos[n] for n in here)
            assert not dep or all(row.dep[n] for n in here)
    assert scored > 100
