import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.curation import duplicates
from opengrok_jax.curation.duplicates import jaccard, sketch
from opengrok_jax.curation.shingles import triples
from opengrok_jax.errors import ConfigError

TEXT = "people are glad about the free buses though some of them wonder who will pay"
ALIKE = "people are glad about the free buses though some of them wonder who shall pay"
OTHER = "the third launch was scrubbed again and the mugs carry a wrong date by now"


def near_duplicates(answers, similarity):
    intents = [intent for intent, _ in answers]
    return duplicates.near_duplicates(intents, [sketch(*a) for a in answers], similarity)


def test_the_first_is_kept_and_the_later_point_at_it():
    answers = [("a", TEXT), ("a", OTHER), ("a", ALIKE), ("a", TEXT.upper() + "!")]
    found = near_duplicates(answers, 0.6)
    assert {index: first for index, (first, _) in found.items()} == {2: 0, 3: 0}
    assert found[3][1] == 1.0
    # 13 triples each, of which the change of one word but last touches two
    assert found[2][1] == pytest.approx(11 / 15)


def test_the_line_is_the_exact_index():
    answers = [("a", TEXT), ("a", ALIKE)]
    assert near_duplicates(answers, 11 / 15) == {1: (0, 11 / 15)}
    assert near_duplicates(answers, 11 / 15 + 1e-9) == {}


def test_other_intents_are_not_compared():
    assert near_duplicates([("a", TEXT), ("b", TEXT)], 0.5) == {}


def test_labels_are_never_duplicates():
    assert (
        near_duplicates([("a", "joy")] * 5 + [("a", "one two three four five six seven")] * 2, 0.1)
        == {}
    )
    assert near_duplicates([("a", "one two three four five six seven eight")] * 2, 0.1) == {
        1: (0, 1.0)
    }


def test_what_is_rejected_takes_nobody_with_it():
    # b repeats a, c repeats b but not a: c stays
    a = list("abcdefghijkl")
    b, c = [*a[3:], "m", "n", "o"], [*a[6:], "m", "n", "o", "p", "q", "r"]
    answers = [("x", " ".join(row)) for row in (a, b, c)]
    similarity = jaccard(triples(answers[0][1]), triples(answers[1][1]))
    assert jaccard(triples(answers[1][1]), triples(answers[2][1])) == similarity
    assert set(near_duplicates(answers, similarity)) == {1}


def test_all_pairs_above_the_line_are_found():
    # against the plain double loop: 60 texts, each with a few words changed from one of six
    chance = random.Random(7)
    vocabulary = [f"w{n}" for n in range(500)]
    seeds = [[chance.choice(vocabulary) for _ in range(40)] for _ in range(6)]
    texts = []
    for n in range(60):
        row = list(seeds[n % 6])
        for _ in range(chance.randrange(6)):
            row[chance.randrange(40)] = chance.choice(vocabulary)
        texts.append(" ".join(row))
    kept, expected = [], set()
    for index, text in enumerate(texts):
        if any(jaccard(triples(text), triples(texts[k])) >= 0.5 for k in kept):
            expected.add(index)
        else:
            kept.append(index)
    assert 20 < len(expected) < 54
    found = near_duplicates([("a", text) for text in texts], 0.5)
    assert set(found) == expected
    assert found == near_duplicates([("a", text) for text in texts], 0.5)


def plainly(texts, similarity):
    """The same by comparing every answer with every kept one."""
    kept, found = [], {}
    for index, text in enumerate(texts):
        likeness = {k: jaccard(triples(text), triples(texts[k])) for k in kept}
        best = max(likeness, key=likeness.__getitem__, default=None)
        if best is not None and likeness[best] >= similarity:
            found[index] = (best, likeness[best])
        else:
            kept.append(index)
    return found


WORDS = st.lists(st.sampled_from("abcde"), min_size=8, max_size=14).map(" ".join)


@given(st.lists(WORDS, max_size=14), st.sampled_from([0.1, 0.25, 1 / 3, 0.4, 0.5, 0.8, 1.0]))
def test_it_is_the_plain_double_loop(texts, similarity):
    assert near_duplicates([("a", text) for text in texts], similarity) == plainly(
        texts, similarity
    )


def test_short_prose_is_compared_as_a_whole():
    short = [("platform_post", t) for t in ("So true!", "so TRUE", "So very true")]
    assert near_duplicates(short, 0.1) == {1: (0, 1.0)}
    assert near_duplicates([("sentiment", "So true!")] * 2, 0.1) == {}


@pytest.mark.parametrize("similarity", [0.0, -1.0, 1.5])
def test_the_range_is_checked(similarity):
    with pytest.raises(ConfigError, match="duplicate_similarity"):
        near_duplicates([], similarity)


def test_no_answers():
    assert near_duplicates([], 0.5) == {}
