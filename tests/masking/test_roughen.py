import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.masking.roughen import roughen
from opengrok_jax.masking.treebank import Sentence


def row(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CONCERT = Sentence(
    words=row("Mary is going to the great concert tonight . Would you come ?"),
    spaces=(True,) * 7 + (False, True, True, True, False, False),
    upos=row("PROPN AUX VERB ADP DET ADJ NOUN NOUN PUNCT AUX PRON VERB PUNCT"),
    heads=(2, 2, 2, 6, 6, 6, 2, 2, 2, 11, 11, 11, 11),
    deps=row("nsubj aux ROOT case det amod obl obl punct aux nsubj ROOT punct"),
    document="d",
)  # fmt: skip
BARE = Sentence(("?",), (True,), ("PUNCT",), (0,), ("ROOT",))


def root(sentence: Sentence, i: int) -> int:
    for _ in sentence.words:
        i = sentence.heads[i]
    return i


@given(st.integers(0, 2**32), st.sampled_from([CONCERT, BARE]))
def test_trees_stay_trees(seed, clean):
    rough = roughen(clean, Random(seed))
    lengths = {len(getattr(rough, name)) for name in ("words", "spaces", "upos", "heads", "deps")}
    assert len(lengths) == 1
    assert all(word and not re.search(r"\s", word) for word in rough.words)
    roots = [root(rough, i) for i in range(len(rough.words))]
    assert all(rough.heads[i] == i for i in roots)  # no cycle
    assert [r for i, r in enumerate(roots) if i == 0 or roots[i - 1] != r] == sorted(set(roots))
    assert len(set(roots)) == clean.deps.count("ROOT")
    assert {i for i, dep in enumerate(rough.deps) if dep == "ROOT"} == set(roots)


@given(st.integers(0, 2**32))
def test_gold_words_keep_tag_relation_and_order(seed):
    """Nothing but stops is dropped, nothing but post furniture is added."""
    rough = roughen(CONCERT, Random(seed))
    added = {"discourse", "vocative", "list", "punct"} | (
        {"case", "nmod"} if "via" in rough.words else set()
    )
    rows = [r for r in zip(rough.upos, rough.deps, strict=True) if r[1] not in added]
    gold = [r for r in zip(CONCERT.upos, CONCERT.deps, strict=True) if r[1] not in added]
    assert rows == gold
    relation = dict(zip(rough.words, rough.deps, strict=True))
    for word, dep in relation.items():
        if word.startswith("http"):
            assert dep == "list"


def test_the_seed_decides():
    many = [roughen(CONCERT, Random(seed)) for seed in range(50)]
    assert many == [roughen(CONCERT, Random(seed)) for seed in range(50)]
    assert len(set(many)) > 45


@pytest.fixture(scope="module")
def thousand_posts():
    return [roughen(CONCERT, Random(seed)).text for seed in range(1000)]


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        (r"^RT @\w+: ", 0.17, 0.27),  # opener, wanted in 22 %
        (r" (https?:|http|URL|HTTPURL)", 0.25, 0.35),  # link, 30 %
        (r"^(?=.*[a-z])[^A-Z]*$", 0.10, 0.43),  # lower case throughout
        (r"\b(u|ya|yu)\b", 0.05, 0.25),  # `you`: 35 % of careless writers (50 %)
        (r" #\w+", 0.25, 0.50),  # trailing tags 28 %, and words made tags
        (r"\?$", 0.05, 0.50),  # some posts still end in their stop
    ],
)
def test_each_kind_of_noise_occurs_as_often_as_wanted(thousand_posts, pattern, least, most):
    found = [bool(re.search(pattern, text)) for text in thousand_posts]
    assert least < sum(found) / len(found) < most


def test_the_text_stays_readable_as_words():
    """Words that ran together before (`tonight.`) may still; no other pair does."""
    for seed in range(300):
        rough = roughen(CONCERT, Random(seed))
        joined = [
            (rough.words[i], rough.words[i + 1])
            for i in range(len(rough.words) - 1)
            if not rough.spaces[i]
        ]
        for left, right in joined:
            assert left.startswith("@") or right[0] in ".!?…", (left, right)
