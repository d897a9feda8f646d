"""The answers a predictor was surest of and wrong about."""

from __future__ import annotations

from dataclasses import dataclass

from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.calibration import confidences
from opengrok_jax.evaluation.outcomes import Outcome

COUNT = 6


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong answer.

    Attributes:
      prediction: gold, what was said, the post.
      confidence: the probability of the wrong label; None for an answer without probabilities.
    """

    prediction: Prediction
    confidence: float | None


def worst(outcome: Outcome, count: int = COUNT) -> list[Mistake]:
    """The student's: the most confident first; without probabilities in the order of the posts.

    Of several seeds the first one's. An answer is wrong where it is not gold to the letter; of a
    summary or a cluster that says nothing, so they have none.
    """
    if not outcome.student or outcome.task.kind in ("summary", "clusters"):
        return []
    wrong = [p for p in outcome.predictions[outcome.student][0] if p.predicted != p.gold]
    scored = [p for p in wrong if p.scores and p.predicted is not None]
    if scored:
        found = zip(scored, confidences(scored)[0].tolist(), strict=True)
        ranked = sorted(found, key=lambda pair: -pair[1])[:count]
        return [Mistake(prediction=p, confidence=c) for p, c in ranked]
    return [Mistake(prediction=p, confidence=None) for p in wrong[:count]]
