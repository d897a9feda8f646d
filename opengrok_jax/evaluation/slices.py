"""Where a predictor is good and where it is not: the score over kinds of posts.

length     words, in thirds of the posts
hashtags   with and without
emoji      with and without
masked     the share of the post's tokens that the mask would hide, in thirds of the posts
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from opengrok_jax.evaluation import metrics, resampling
from opengrok_jax.evaluation.outcomes import Outcome

_HASHTAG = re.compile(r"(?<!\w)#\w")
# Pictographs, dingbats, flags, and the blocks between them that hold emoji.
_EMOJI = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]")
FEWEST = 10  # posts of a slice below which a score says nothing


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Some of the posts: `chosen` says which; `name` reads after "posts"."""

    by: str
    name: str
    chosen: Bool[np.ndarray, " posts"]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A predictor's score over some posts, with its 95 % interval."""

    by: str
    name: str
    posts: int
    predictor: str
    value: float
    low: float
    high: float


def kinds(texts: Sequence[str], hidden: Sequence[float] | None) -> list[Kind]:
    """The kinds that hold a post, but not all.

    Args:
      hidden: of each post the share of its tokens that the mask would hide; None = not known.
    """
    words = np.array([len(text.split()) for text in texts], float)
    found = _thirds("length", words, lambda x: f"{x:.0f}", "words")
    for by, pattern in (("hashtags", _HASHTAG), ("emoji", _EMOJI)):
        there = np.array([bool(pattern.search(text)) for text in texts])
        found += [
            Kind(by=by, name=f"with {by}", chosen=there),
            Kind(by=by, name=f"without {by}", chosen=~there),
        ]
    if hidden is not None:
        found += _thirds("masked", np.array(hidden), lambda x: f"{100 * x:.0f} %", "hidden")
    return [kind for kind in found if kind.chosen.any() and not kind.chosen.all()]


def _thirds(by: str, values: np.ndarray, spelled, unit: str) -> list[Kind]:
    """Up to a third of the posts, the next third, the rest; ties stay together."""
    edges = np.quantile(values, [1 / 3, 2 / 3], method="lower")
    place = np.searchsorted(edges, values, side="left")
    found = []
    for at in range(3):
        chosen = place == at
        if chosen.any():
            low, high = spelled(values[chosen].min()), spelled(values[chosen].max())
            span = low if low == high else f"{low} to {high}"
            found.append(Kind(by=by, name=f"{span} {unit}", chosen=chosen))
    return found


def scored(
    outcome: Outcome, found: Sequence[Kind], *, resamples: int, seed: int
) -> Mapping[tuple[str, str], list[Slice]]:
    """(by, name) -> the score of each of `outcome.shown` there, by the task's metric.

    The metric is the official one over these posts alone. All predictors and slices are resampled
    alike; a resample is of all posts, so that the size of the slice varies as it would.
    """
    systems = [
        [metrics.scorer(outcome.task, outcome.task.metric, run) for run in outcome.predictions[who]]
        for who in outcome.shown
    ]
    result: dict[tuple[str, str], list[Slice]] = {}
    for kind in found:
        posts = int(kind.chosen.sum())
        if posts < FEWEST:
            continue
        drawn = resampling.resample(
            systems,
            len(kind.chosen),
            resamples=resamples,
            seed=seed,
            weights=kind.chosen.astype(np.float64),
        )
        result[kind.by, kind.name] = [
            Slice(
                by=kind.by,
                name=kind.name,
                posts=posts,
                predictor=who,
                value=one.value,
                low=low,
                high=high,
            )
            for who, one in zip(outcome.shown, drawn, strict=True)
            for low, high in [resampling.interval(one)]
        ]
    return result
