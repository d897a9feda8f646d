import random

import numpy as np
import pytest

from opengrok_jax.curation.duplicates import MISSED, PERMUTATIONS, bands, jaccard, near_duplicates
from opengrok_jax.curation.shingles import shingles
from opengrok_jax.errors import ConfigError

TEXT = "people are glad about the free buses though some of them wonder who will pay"
ALIKE = "people are glad about the free buses though some of them wonder who shall pay"
OTHER = "the third launch was scrubbed again and the mugs carry a wrong date by now"


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
    similarity = jaccard(shingles(answers[0][1]), shingles(answers[1][1]))
    assert jaccard(shingles(answers[1][1]), shingles(answers[2][1])) == similarity
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
        if any(jaccard(shingles(text), shingles(texts[k])) >= 0.5 for k in kept):
            expected.add(index)
        else:
            kept.append(index)
    assert 20 < len(expected) < 54
    found = near_duplicates([("a", text) for text in texts], 0.5)
    assert set(found) == expected
    assert found == near_duplicates([("a", text) for text in texts], 0.5)


@pytest.mark.parametrize("similarity", [0.1, 0.4, 0.8, 0.99, 1.0])
def test_the_bands_miss_next_to_nothing(similarity):
    # drawn: rows agree by chance `similarity`; how often does no band agree as a whole?
    count, rows = bands(similarity)
    assert count * rows <= PERMUTATIONS
    draws = np.random.default_rng(0).random((20_000, count, rows)) < similarity
    assert (~draws.all(axis=2).any(axis=1)).mean() <= 2 * MISSED


@pytest.mark.parametrize("similarity", [0.0, -1.0, 1.5])
def test_the_range_is_checked(similarity):
    with pytest.raises(ConfigError, match="duplicate_similarity"):
        near_duplicates([], similarity)


def test_no_answers():
    assert near_duplicates([], 0.5) == {}
