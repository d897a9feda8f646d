"""How likely a token stays visible, and the draw that decides it.

    keep_prob = sigmoid(alpha tfidf + beta pos + gamma dep + delta random + bias)
    key_mask  = u < keep_prob

`random` and `u` are two independent uniforms in [0,1). Both are pure functions of (seed, example
id, purpose, index of the token), see `chance`: no order, no shard and no other example changes
them. Without a bias the formula keeps at least half of all tokens as long as no weight is negative,
hence `calibrate`, which looks at all tokens of the corpus through a histogram that adds up exactly.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from opengrok_jax.errors import ConfigError
from opengrok_jax.tokenizer import PROMPT, RESPONSE

# Which roles may be hidden; the report's own choice is the first.
SCOPES: dict[str, tuple[int, ...]] = {
    "prompt+response": (PROMPT, RESPONSE),
    "prompt": (PROMPT,),
}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The numbers of the formula.

    Attributes:
      alpha, beta, gamma, delta: weights of tfidf, pos, dep and random.
      bias: added to the sum; with a target it is found by `calibrate`.
      target_keep_rate: mean keep_prob of the tokens that may be hidden; None keeps `bias`.
    """

    alpha: float
    beta: float
    gamma: float
    delta: float
    bias: float = 0.0
    target_keep_rate: float | None = None


PRESETS: dict[str, Weights] = {
    # The report's formula as printed, its four weights (left blank there) all 1.
    "paper": Weights(alpha=1.0, beta=1.0, gamma=1.0, delta=1.0),
    # Equal say for the three kinds of evidence: over the tokens of posts and of answers tfidf has a
    # standard deviation of 0.22 to 0.26, pos of 0.50, dep of 0.44 to 0.47.
    "balanced": Weights(alpha=2.0, beta=1.0, gamma=1.0, delta=1.0, target_keep_rate=0.85),
    # One kind of evidence alone, each at the same rate. `random` is the control of the ablation:
    # as many tokens hidden, and no evidence at all.
    "tfidf": Weights(alpha=4.0, beta=0.0, gamma=0.0, delta=0.0, target_keep_rate=0.85),
    "pos": Weights(alpha=0.0, beta=4.0, gamma=0.0, delta=0.0, target_keep_rate=0.85),
    "dep": Weights(alpha=0.0, beta=0.0, gamma=4.0, delta=0.0, target_keep_rate=0.85),
    "random": Weights(alpha=0.0, beta=0.0, gamma=0.0, delta=4.0, target_keep_rate=0.85),
}


def choose(preset: str, given: Weights) -> Weights:
    """The weights of a preset, or those given where `preset` is "".

    Raises:
      ConfigError: unknown preset; a number that is not finite; a target outside (0,1); a bias
        together with a target, which would replace it.
    """
    if preset:
        if preset not in PRESETS:
            raise ConfigError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
        return PRESETS[preset]
    for name in ("alpha", "beta", "gamma", "delta", "bias"):
        if not math.isfinite(value := getattr(given, name)):
            raise ConfigError(f"{name} must be a finite number, got {value}")
    target = given.target_keep_rate
    if target is not None and not 0.0 < target < 1.0:
        raise ConfigError(
            f"target_keep_rate must lie between 0 and 1 (0.85 hides 15 % of the tokens) or be "
            f"None for no calibration, got {target}"
        )
    if target is not None and given.bias != 0.0:
        raise ConfigError(
            f"bias is {given.bias} and target_keep_rate is {target}, but a target finds the bias "
            "itself; set target_keep_rate to None to use your bias, or bias to 0"
        )
    return given


def check_scope(scope: str) -> None:
    """Raises ConfigError for a scope that does not exist."""
    if scope not in SCOPES:
        raise ConfigError(f"scope {scope!r} is unknown; choose one of {', '.join(SCOPES)}")


def maskable(roles: np.ndarray, scope: str, lengths: np.ndarray | None = None) -> np.ndarray:
    """True for tokens that may be hidden: content in scope, never the first or the last token.

        text             <|user|> Hi there <|end|> <|assistant|> Hello you <|end|>
        roles                0     1   1      0          0         2    2     2
        prompt+response      0     1   1      0          0         1    1     0
        prompt               0     1   1      0          0         0    0     0

    The first token stays because a query needs one visible key, the last because it is the
    `<|end|>` that the student must learn to say.

    Args:
      roles: int8 [T], of all examples, one after the other.
      scope: a key of `SCOPES`.
      lengths: int [N], tokens of each example; None = there is one.

    Returns:
      bool [T].
    """
    lengths = np.array([len(roles)]) if lengths is None else lengths
    result = np.isin(roles, SCOPES[scope])
    ends = np.cumsum(lengths)[np.asarray(lengths) > 0]
    result[ends - 1] = False
    result[np.concatenate([[0], ends[:-1]])[: len(ends)]] = False
    return result


def logits(
    tfidf: np.ndarray, pos: np.ndarray, dep: np.ndarray, random: np.ndarray, weights: Weights
) -> np.ndarray:
    """The weighted sum of the four factors, without the bias; float64 [T]."""
    return (
        weights.alpha * tfidf.astype(np.float64)
        + weights.beta * pos.astype(np.float64)
        + weights.gamma * dep.astype(np.float64)
        + weights.delta * random.astype(np.float64)
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow; float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def keep_prob(sums: np.ndarray, bias: float, free: np.ndarray) -> np.ndarray:
    """P(token stays visible): the formula in float64, rounded once; 1 where `free` is False.

    Args:
      sums: float64 [T], the `logits`.
      bias: of the formula.
      free: bool [T], as `maskable` says.

    Returns:
      float32 [T].
    """
    return np.where(free, sigmoid(sums + bias), 1.0).astype(np.float32)


# ---- calibration --------------------------------------------------------------------------------

BINS = 1 << 16
_UNITS = 1 << 24  # a bin's width in the whole numbers that residuals are added up in


@dataclass(frozen=True, kw_only=True)
class Sums:
    """The logits of any number of tokens, as a histogram that adds up without rounding.

    Attributes:
      low, high: between which the logits of some weights lie.
      counts: int64 [BINS], tokens in each bin.
      residuals: int64 [BINS], the sum of their distances from the middle of the bin, each rounded
        to 2**-24 of a bin's width.
    """

    low: float
    high: float
    counts: np.ndarray
    residuals: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        """The histogram of both; whole numbers, so that no order of adding changes a bit."""
        assert (self.low, self.high) == (other.low, other.high)
        return dataclasses.replace(
            self, counts=self.counts + other.counts, residuals=self.residuals + other.residuals
        )


def sums_of(values: np.ndarray, weights: Weights) -> Sums:
    """The histogram of some logits.

    Args:
      values: float64 [N], of the tokens that may be hidden.
      weights: of the formula; the factors lie in [0,1], so these say between what it lies.
    """
    four = (weights.alpha, weights.beta, weights.gamma, weights.delta)
    low, high = sum(min(w, 0.0) for w in four), sum(max(w, 0.0) for w in four)
    high = high if high > low else low + 1.0
    width = (high - low) / BINS
    at = np.clip(((values - low) / width).astype(np.int64), 0, BINS - 1)
    off = (values - low) / width - at - 0.5
    units = np.rint(off * _UNITS).astype(np.int64)
    counts = np.bincount(at, minlength=BINS).astype(np.int64)
    residuals = np.zeros(BINS, np.int64)
    np.add.at(residuals, at, units)
    return Sums(low=low, high=high, counts=counts, residuals=residuals)


def mean_keep_prob(sums: Sums, bias: float) -> float:
    """The mean of sigmoid(logit + bias) over the tokens of a histogram.

    Each bin is expanded to first order about its middle, so that a token is wrong by at most
    max|sigmoid''| / 8 = 0.0121 times the square of the bin's width: 7e-11 for weights that add up
    to 5, whose bins are 5 / 65536 wide.
    """
    width = (sums.high - sums.low) / BINS
    some = np.flatnonzero(sums.counts)
    middle = sigmoid(sums.low + (some + 0.5) * width + bias)
    slope = middle * (1.0 - middle) * width / _UNITS
    total = math.fsum(sums.counts[some] * middle) + math.fsum(sums.residuals[some] * slope)
    return total / int(sums.counts.sum())


def calibrate(sums: Sums, target: float) -> float:
    """The bias at which the mean keep_prob is `target`, by bisection.

    Args:
      sums: of all tokens that may be hidden, at least one.
      target: in (0,1).

    Returns:
      The bias; the mean of `mean_keep_prob` is within 1e-12 of the target, the true mean within
      the bound that stands there.
    """
    middle = math.log(target / (1.0 - target))
    # At these two every single token lies below, and above, the target.
    low, high = middle - sums.high, middle - sums.low
    for _ in range(200):
        bias = 0.5 * (low + high)
        mean = mean_keep_prob(sums, bias)
        if abs(mean - target) < 1e-12 or bias in (low, high):
            return bias
        low, high = (bias, high) if mean < target else (low, bias)
    return 0.5 * (low + high)
