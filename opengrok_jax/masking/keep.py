"""How likely a token stays visible, and the draw that decides it.

    keep_prob = sigmoid(alpha tfidf + beta pos + gamma dep + delta random + bias)
    key_mask  = u < keep_prob

`random` and `u` are two independent uniforms in [0,1). Both are pure functions of (seed, example
id, purpose, index of the token): no order, no shard and no other example changes them. Without a
bias the formula keeps at least half of all tokens whatever the weights are, hence `calibrate`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opengrok_jax.errors import ConfigError
from opengrok_jax.records import MaskedExample, canonical_json
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
    # One kind of evidence alone, and none at all: the controls of the ablation.
    "statistics": Weights(alpha=4.0, beta=0.0, gamma=0.0, delta=0.0, target_keep_rate=0.85),
    "syntax": Weights(alpha=0.0, beta=2.0, gamma=2.0, delta=0.0, target_keep_rate=0.85),
    "chance": Weights(alpha=0.0, beta=0.0, gamma=0.0, delta=0.0, target_keep_rate=0.85),
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


def uniform(seed: int, example_id: str, purpose: str, count: int) -> np.ndarray:
    """`count` uniforms in [0,1), a pure function of the arguments; entry i does not know `count`.

    Philox is a counter-based generator: here SHA-256 makes its key from seed, id and purpose, and
    the index of the token is the counter. The bits come from `random_raw`, whose stream NumPy
    promises never to change.

    Returns:
      float32 [count], multiples of 2**-24.
    """
    name = canonical_json([seed, example_id, purpose])
    key = int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:16], "big")
    raw = np.random.Philox(key=key).random_raw(count)
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def maskable(roles: np.ndarray, scope: str) -> np.ndarray:
    """True for tokens that may be hidden: content in scope, never the first or the last token.

        text             <|user|> Hi there <|end|> <|assistant|> Hello you <|end|>
        roles                0     1   1      0          0         2    2     2
        prompt+response      0     1   1      0          0         1    1     0
        prompt               0     1   1      0          0         0    0     0

    The first token stays because a query needs one visible key, the last because it is the
    `<|end|>` that the student must learn to say.

    Returns:
      bool [T].
    """
    result = np.isin(roles, SCOPES[scope])
    result[:1] = result[-1:] = False
    return result


def logits(example: MaskedExample, weights: Weights) -> np.ndarray:
    """The weighted sum of the four factors, without the bias; float64 [T]."""
    return (
        weights.alpha * example.tfidf.astype(np.float64)
        + weights.beta * example.pos
        + weights.gamma * example.dep
        + weights.delta * example.random
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow; float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def calibrate(sums: np.ndarray, target: float) -> float:
    """The bias at which the mean of sigmoid(sums + bias) is `target`, by bisection.

    Args:
      sums: float64 [N], the logits of all tokens that may be hidden; N >= 1.
      target: in (0,1).

    Returns:
      The bias, with the mean within 1e-9 of the target.
    """
    middle = math.log(target / (1.0 - target))
    # At these two every single token lies below, and above, the target.
    low, high = middle - float(sums.max()), middle - float(sums.min())
    for _ in range(100):
        bias = 0.5 * (low + high)
        mean = float(sigmoid(sums + bias).mean())
        if abs(mean - target) < 1e-9:
            return bias
        low, high = (bias, high) if mean < target else (low, bias)
    return 0.5 * (low + high)


def draw(
    examples: Sequence[MaskedExample], weights: Weights, *, scope: str, seed: int
) -> tuple[list[MaskedExample], Weights]:
    """Sets keep_prob and key_mask from the stored factors; the annotator is not needed.

    Args:
      examples: with their factors; keep_prob and key_mask are replaced.
      weights: with a target, the bias is calibrated over all tokens that may be hidden.
      scope: a key of `SCOPES`.
      seed: of the draw u.

    Returns:
      The examples, with keep_prob = 1 and key_mask = True outside the scope, and the weights with
      the bias that was used.
    """
    free = [maskable(example.roles, scope) for example in examples]
    sums = [logits(example, weights) for example in examples]
    if weights.target_keep_rate is not None and any(f.any() for f in free):
        pool = np.concatenate([s[f] for s, f in zip(sums, free, strict=True)])
        bias = calibrate(pool, weights.target_keep_rate)
        weights = dataclasses.replace(weights, bias=bias)
    result = []
    for example, can_go, total in zip(examples, free, sums, strict=True):
        chance = np.where(can_go, sigmoid(total + weights.bias), 1.0).astype(np.float32)
        u = uniform(seed, example.id, "draw", len(example.tokens))
        visible = (u < chance) | ~can_go
        result.append(dataclasses.replace(example, keep_prob=chance, key_mask=visible))
    return result, weights
