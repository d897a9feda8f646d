"""The measurement of what a response mask tells of the future, on cases with known answers."""

import argparse
import importlib.util
import json
import math

import numpy as np
import pytest


@pytest.fixture(scope="module")
def leak(repository):
    path = repository / "scripts" / "bench" / "mask_leak.py"
    spec = importlib.util.spec_from_file_location("mask_leak", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_entropies_of_known_tables(leak):
    coin = np.array([[0.0], [1.0]] * 50)
    same, other = coin.copy(), np.array([[0.0], [0.0], [1.0], [1.0]] * 25)
    assert leak.conditional_entropy(coin, same) == pytest.approx(0)
    assert leak.conditional_entropy(coin, other) == pytest.approx(1)
    assert leak.binary(0.5) == pytest.approx(1)
    assert leak.binary(np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-9)


def test_a_bit_tells_as_much_as_the_draw_lets_through(leak):
    """Causally all words are alike; the whole text parts them in two halves of p and 1 - p."""
    causal = np.zeros((200, 3))
    for p in (0.5, 0.7, 1.0):
        drawn = np.where(np.arange(200) % 2, p, 1 - p)
        wanted = 1 - float(leak.binary(p))
        assert leak.information(drawn, causal) == pytest.approx(wanted, abs=1e-6)
    apart = np.zeros((200, 3))
    apart[:, 1] = np.arange(200) % 2  # the causal reader knows the halves: nothing is news
    known = np.where(np.arange(200) % 2, 0.9, 0.1)
    assert leak.information(known, apart) == pytest.approx(0, abs=1e-9)


def test_looking_back_stays_within_a_text(leak):
    values = np.arange(1.0, 6.0)[:, None]
    found = leak.back(values, np.array([0, 0, 0, 1, 1]))
    assert found.shape == (5, 2 * leak.WINDOW)
    assert found[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert found[:, 2].tolist() == [0, 1, 2, 0, 4]
    assert found[:, 3].tolist() == [0, 1, 1, 0, 1]
    assert found[:, 4].tolist() == [0, 0, 1, 0, 0]


def test_tfidf_is_that_of_the_package(leak):
    from opengrok_jax.masking import syntax

    texts = ["a b b .", "a c .", "d d d a"]
    nlp = syntax.load_pipeline()
    whole = leak.annotated(nlp, texts)
    spread = leak.frequencies([whole[text].lower for text in texts])
    got = leak.factors(whole[texts[0]], spread)
    idf = {w: 1 + math.log(4 / (1 + d)) for w, d in {"a": 3, "b": 1, ".": 2}.items()}
    weight = [idf["a"], (1 + math.log(2)) * idf["b"], (1 + math.log(2)) * idf["b"], idf["."]]
    assert got[:, 0] == pytest.approx(np.array(weight) / max(weight))
    assert got[:, 1].tolist() == whole[texts[0]].pos.tolist()


def test_the_command_measures(leak, tmp_path):
    sentences = (
        "my sister loves this phone", "no way !! #fail", "the old dog that I saw was happy",
        "I never said that", "who will win the game tonight ?", "they gave the kids new books",
    )  # fmt: skip
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in (*sentences, sentences[0])))
    texts = leak.texts_of(path, "text", 100)
    assert texts == list(sentences)
    found = leak.measure(texts, argparse.Namespace(preset="balanced", seed=0))
    assert found["texts"] == 6
    assert found["keep_rate"]["full"] == pytest.approx(0.85, abs=0.2)
    assert 0 < found["changed"]["dep"] < 1
    assert found["changed"]["mask_bit"] < found["changed"]["mask_bit_of_other_draw"] + 0.1
    bits = found["bits"]
    assert 0 <= bits["mask_bit_about_the_rest"] <= bits["mask_bit"]
    assert bits["mask_bit_about_the_rest"] <= bits["pos_dep"]
