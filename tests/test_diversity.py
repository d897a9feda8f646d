import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import diversity
from opengrok_jax.records import Cell
from opengrok_jax.storage import read_jsonl

SENTENCES = st.lists(
    st.lists(st.sampled_from(["tea", "bus", "rain", "a", "the", "cup"]), max_size=9).map(" ".join),
    max_size=7,
)


def test_distinct_is_the_drawing():
    assert diversity.distinct(["a b a b", "a b"], 2) == 2 / 4
    assert diversity.distinct(["a b a b", "c d"], 1, words=3) == 2 / 3
    assert diversity.distinct([], 2) == 0.0


@given(SENTENCES)
def test_self_bleu_is_what_the_definition_counts(texts):
    """Against the definition written out, text by text, reference by reference."""
    rows = [text.split() for text in texts if text]
    scores = []
    for index, row in enumerate(rows):
        others = rows[:index] + rows[index + 1 :]
        if not others:
            continue
        total = 1.0
        for n in (1, 2, 3, 4):
            own = Counter(tuple(row[i : i + n]) for i in range(len(row) - n + 1))
            hits = sum(
                min(
                    c,
                    max(Counter(zip(*(o[k:] for k in range(n)), strict=False))[g] for o in others),
                )
                for g, c in own.items()
            )
            smooth = int(n > 1)
            total *= (hits + smooth) / (own.total() + smooth)
        nearest = min((len(o) for o in others), key=lambda m: (abs(m - len(row)), m))
        scores.append(total**0.25 * math.exp(min(0.0, 1 - nearest / len(row))))
    expected = sum(scores) / len(scores) if scores else 0.0
    assert diversity.self_bleu(texts) == pytest.approx(expected)


def test_vendi_counts_what_differs():
    one = ["the buses are late again in Aldermoor"] * 9
    assert diversity.vendi(one) == pytest.approx(1.0)
    both = one + ["Mira Tolan plays folk on Sunday"] * 9
    assert 1.8 < diversity.vendi(both) <= 2.0
    assert diversity.vendi([]) == diversity.vendi(["", " "]) == 0.0


def test_vendi_of_the_covariance_is_that_of_the_kernel():
    texts = [
        f"{a} in {b}" for a in ("rain", "buses", "rents") for b in ("May", "June", "Port Selby")
    ]
    vectors = diversity.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)
    values = np.linalg.eigvalsh(vectors @ vectors.T / len(texts))
    values = values[values > 1e-12]
    assert diversity.vendi(texts) == pytest.approx(np.exp(-(values * np.log(values)).sum()))


def test_more_templates_are_worth_more():
    """The case that an IDF of the set itself gets wrong: one template came out first."""
    chance = random.Random(0)
    slots = [
        chr(97 + i) + chr(97 + j) + "ox " + chr(97 + j) * 4 for i in range(14) for j in range(14)
    ]
    templates = [
        "What are people saying about {}?", "Summarize the latest trends in {}.",
        "Write a post about {} for a friend.", "In one line, the mood on {}.",
        "Give three bullets on {}.", "Who is unhappy with {}, and why?",
        "Turn {} into a headline.", "Explain the fuss over {} to somebody offline.",
    ]  # fmt: skip
    worth = [
        diversity.vendi(
            [chance.choice(templates[:k]).format(chance.choice(slots)) for _ in range(600)]
        )
        for k in (1, 3, 8)
    ]
    assert worth[0] < worth[1] < worth[2]


def test_the_frozen_idf_is_made_of_what_ships(repository):
    assets = repository / "opengrok_jax" / "assets"
    texts = [row["text"] for row in read_jsonl(assets / "posts.jsonl")]
    texts += [row["response"] for row in read_jsonl(assets / "recorded.jsonl")]
    made, frozen = diversity.make_idf(texts), np.load(diversity.IDF_FILE, allow_pickle=False)
    assert frozen.shape == (diversity.BUCKETS,)
    assert (frozen >= 0).all()
    # Not exactly: posts may be mended later, the frozen weights stay.
    assert np.abs(made - frozen).mean() < 0.1


def test_make_idf_counts_texts_not_occurrences():
    idf = diversity.make_idf(["aaaa aaaa", "bbbb"])
    assert sorted({round(float(v), 4) for v in idf}) == [
        round(math.log(3 / 2), 4),
        round(math.log(3), 4),
    ]


def test_balance_and_coverage():
    assert diversity.balance("abab") == pytest.approx(1.0)
    assert diversity.balance("aaaa") == 0.0
    assert diversity.balance("abab", possible=4) == pytest.approx(0.5)
    assert diversity.coverage([1, 2, 9], [1, 2, 3, 4]) == 0.5
    assert diversity.coverage([], []) == 0.0


def test_axes_leave_out_what_does_not_apply():
    cells = [Cell(intent="a", style=s) for s in ("", "dry", "dry", "warm")]
    found = diversity.axes(cells)
    assert found["intent"] == {"values": 1, "balance": 0.0, "fewest": 4}
    assert found["style"]["values"] == 2
    assert found["style"]["fewest"] == 1
    shares = [Fraction(2, 3), Fraction(1, 3)]
    entropy = -sum(float(s) * math.log2(s) for s in shares)
    assert found["style"]["balance"] == pytest.approx(entropy, abs=1e-4)


def test_figures_are_the_same_for_the_same_seed_whatever_the_size_of_the_sample():
    texts = [" ".join(p) for p in itertools.permutations(["tea", "bus", "rain", "cup"])]
    assert diversity.figures(texts, sample=7, seed=1) == diversity.figures(texts, sample=7, seed=1)
    whole = diversity.figures(texts, sample=0)
    assert whole["texts"] == 24
    assert whole["distinct_1"] == round(4 / 96, 4)
    assert whole["vendi"] >= diversity.figures(texts, sample=3)["vendi"]
