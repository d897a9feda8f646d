import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.evaluation import rouge as module
from opengrok_jax.evaluation.rouge import rouge

KINDS = ("rouge1", "rouge2", "rougeL")


def test_hand_computed() -> None:
    reference, summary = "the cat sat on the mat", "the cat on a mat"
    # words: the cat on mat of 6 and 5; pairs: (the cat) of 5 and 4; in order: the cat on mat
    assert rouge("rouge1", [reference], summary) == pytest.approx(2 * 4 / 11)
    assert rouge("rouge2", [reference], summary) == pytest.approx(2 * 1 / 9)
    assert rouge("rougeL", [reference], summary) == pytest.approx(2 * 4 / 11)
    assert rouge("rougeL", ["a b c"], "c b a") == pytest.approx(2 * 1 / 6)
    assert rouge("rouge1", ["nothing", reference], reference) == 1.0
    for kind in KINDS:
        assert rouge(kind, [reference], "") == 0.0
        assert rouge(kind, ["日本"], "日本") == 0.0


texts = st.text(alphabet="ab C-'9 é", max_size=40)


@given(st.lists(texts, min_size=1, max_size=3), texts)
def test_values_are_those_of_rouge_score(references: list[str], summary: str) -> None:
    theirs = pytest.importorskip("rouge_score.rouge_scorer", reason="extra 'test'")
    scored = theirs.RougeScorer([*KINDS], use_stemmer=False).score_multi(references, summary)
    for kind in KINDS:
        assert rouge(kind, references, summary) == pytest.approx(scored[kind].fmeasure)


def test_real_threads(shared_data) -> None:
    theirs = pytest.importorskip("rouge_score.rouge_scorer", reason="extra 'test'")
    from opengrok_jax.evaluation.tasks import load_items, make_task

    scorer = theirs.RougeScorer([*KINDS], use_stemmer=False)
    for item in load_items(make_task("tweetsumm", {}, str(shared_data)), limit=12):
        summary = item.text.splitlines()[0]
        scored = scorer.score_multi([*item.gold], summary)
        for kind in KINDS:
            assert rouge(kind, [*item.gold], summary) == pytest.approx(scored[kind].fmeasure)


def test_doctests() -> None:
    assert doctest.testmod(module).failed == 0
