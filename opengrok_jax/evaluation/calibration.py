"""Do the probabilities that a predictor gives its labels come true? Reliability and ECE.

Guo et al. 2017. The probability of a label is its likelihood over those of all labels of the task;
the confidence is that of the label that was answered. In ten bins of equal width, ECE is the mean
distance of confidence and accuracy, each bin by its share of the posts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from opengrok_jax.evaluation.answers import Prediction

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The posts whose confidence is in (low, high]; their mean confidence and accuracy."""

    low: float
    high: float
    posts: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The bins that hold a post, and what they come to, in [0, 1]."""

    bins: tuple[Bin, ...]
    ece: float
    posts: int
    confidence: float
    accuracy: float


def confidences(
    predictions: Sequence[Prediction],
) -> tuple[Float64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """(probability of the label answered, whether it is right) of the predictions with scores.

    log-scores   -1.0 -2.0 (right: the first)      probabilities   0.73 0.27
    """
    chosen = [p for p in predictions if p.scores and p.predicted is not None]
    result = np.zeros(len(chosen))
    for at, p in enumerate(chosen):
        logs = np.array(list(p.scores.values()))
        exps = np.exp(logs - logs.max())
        result[at] = exps[list(p.scores).index(str(p.predicted))] / exps.sum()
    return result, np.array([p.predicted == p.gold for p in chosen], bool)


def calibration(
    confidence: Float64[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int = BINS
) -> Calibration:
    """The reliability of at least one answer.

    confidence    .55  .95  .95  .92        bins  (.5, .6]: 1 post, .55, accuracy 1
    right          1    1    0    1               (.9, 1.]: 3 posts, .94, accuracy 2/3
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for at in range(bins):
        here = place == at
        if here.any():
            found.append(
                Bin(
                    low=at / bins,
                    high=(at + 1) / bins,
                    posts=int(here.sum()),
                    confidence=float(confidence[here].mean()),
                    accuracy=float(right[here].mean()),
                )
            )
    ece = sum(b.posts * abs(b.confidence - b.accuracy) for b in found) / len(confidence)
    return Calibration(
        bins=tuple(found),
        ece=float(ece),
        posts=len(confidence),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
    )
