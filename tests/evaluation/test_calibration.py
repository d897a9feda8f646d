import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from opengrok_jax.evaluation import calibration
from opengrok_jax.evaluation.answers import Prediction


def prediction(gold: str, **scores: float) -> Prediction:
    return Prediction(
        id="x", text="x", gold=gold, predicted=max(scores, key=scores.__getitem__), scores=scores
    )


def test_a_confidence_is_the_likelihood_over_all_labels():
    unread = Prediction(id="x", text="x", gold="a", predicted=None)
    sure, right = calibration.confidences(
        [prediction("a", a=-1.0, b=-2.0), unread, prediction("a", a=-900.0, b=-899.0)]
    )
    assert sure == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-1))])
    assert right.tolist() == [True, False]


def test_the_drawing():
    """
    confidence    .55  .95  .95  .92        bins  (.5, .6]: 1 post, .55, accuracy 1
    right          1    1    0    1               (.9, 1.]: 3 posts, .94, accuracy 2/3
    """
    one = calibration.calibration(np.array([0.55, 0.95, 0.95, 0.92]), np.array([1, 1, 0, 1], bool))
    assert [(b.low, b.high, b.posts) for b in one.bins] == [(0.5, 0.6, 1), (0.9, 1.0, 3)]
    assert one.bins[1].confidence == pytest.approx(0.94)
    assert one.bins[1].accuracy == pytest.approx(2 / 3)
    assert one.ece == pytest.approx((0.45 + 3 * (0.94 - 2 / 3)) / 4)
    assert (one.posts, one.accuracy) == (4, 0.75)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.011, 0.989), st.booleans()), min_size=1, max_size=60))
def test_scikit_learn_draws_the_same_curve(pairs):
    sure, right = np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])
    sure = np.round(sure, 2) + 0.001  # not on an edge, which belongs to the other bin there
    one = calibration.calibration(sure, right)
    accuracy, confidence = calibration_curve(right, sure, n_bins=10)
    assert [b.accuracy for b in one.bins] == pytest.approx(accuracy)
    assert [b.confidence for b in one.bins] == pytest.approx(confidence)
    assert 0 <= one.ece <= 1
    assert sum(b.posts for b in one.bins) == len(pairs)


def test_perfect_and_worst():
    sure = np.ones(5)
    assert calibration.calibration(sure, np.ones(5, bool)).ece == 0
    assert calibration.calibration(sure, np.zeros(5, bool)).ece == 1


def test_doctests():
    assert doctest.testmod(calibration).failed == 0
