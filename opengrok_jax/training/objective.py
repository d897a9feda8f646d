"""What is minimised: cross-entropy on the teacher's answer, and terms that follow its mind.

Per loss-bearing position, with w = `weight`, f = `feature_weight`, r = `relation_weight`:

    (1 - w) cross-entropy + w divergence + f feature + r relation

`hard`, the report's objective, has cross-entropy alone. Where a position has no stored teacher
distribution (the tokenizers do not meet there), cross-entropy counts in full.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.attention import Rule
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import constrain
from opengrok_jax.training import divergences
from opengrok_jax.training.batches import Batch
from opengrok_jax.training.losses import CHUNK, cross_entropy, weighted_sum
from opengrok_jax.training.redraw import visible

Loss = Literal["hard", "topk", "forward_kl", "reverse_kl", "jensen_shannon"]
FULL = ("forward_kl", "reverse_kl", "jensen_shannon")  # they compare all V logits


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The terms and their weights.

    Attributes:
      loss: "hard" = cross-entropy alone; "topk" = stored top-k log-probabilities (divergences.py);
        the others compare with all logits of a teacher beside the student.
      weight: w, share of the divergence in [0, 1].
      temperature: of the full-logit divergences; stored log-probabilities are at 1.
      feature_weight: of the term on hidden states of both models.
      feature_layers: pairs of layers whose states are compared, (student's, teacher's), counted
        from 1; the last of a model means the decoder's output, after its norm. The term is the mean
        over the pairs. () = the decoders' outputs alone.
      relation_weight: of the term on angles among the decoders' outputs.
      relation_window: positions that each one is compared with.
    """

    loss: Loss = "hard"
    weight: float = 0.0
    temperature: float = 1.0
    feature_weight: float = 0.0
    feature_layers: tuple[tuple[int, int], ...] = ()
    relation_weight: float = 0.0
    relation_window: int = 8

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher runs beside the student."""
        return self.loss in FULL or bool(self.feature_weight or self.relation_weight)

    @property
    def needs_soft_targets(self) -> bool:
        """Whether stored log-probabilities are read."""
        return self.loss == "topk"

    @property
    def chunk(self) -> int:
        """Positions that meet the head at a time.

        A divergence holds several arrays of the logits' size where cross-entropy holds one.
        """
        return CHUNK if self.loss == "hard" else CHUNK // 4


HARD = Objective()


def read(given: Mapping[str, Any]) -> Objective:
    """The objective of a config's `distill` section; {} = the report's.

    Raises:
      ConfigError: an unknown key, a number out of range, or one that would change nothing.
    """
    known = {field.name: field.default for field in fields(Objective)}
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"distill has no {', '.join(unknown)}; it has {', '.join(known)}")
    value: dict[str, Any] = known | dict(given)
    loss, window = value["loss"], value["relation_window"]

    def require(holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise ConfigError(
                f"distill.{name} is {value[name]!r} with loss {loss!r}; expected {expected}"
            )

    require(loss in get_args(Loss), "loss", f"one of {', '.join(get_args(Loss))}")
    for name in ("weight", "temperature", "feature_weight", "relation_weight"):
        x = value[name]
        number = isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
        require(number and x >= 0, name, "a number from 0")
        value[name] = float(x)
    whole = isinstance(window, int) and not isinstance(window, bool)
    require(whole and window >= 1, "relation_window", "a whole number from 1")
    if loss == "hard":
        require(value["weight"] == 0, "weight", "0, or another loss")
    else:
        require(0 < value["weight"] <= 1, "weight", "a share above 0 and up to 1")
    if loss in FULL:
        require(value["temperature"] > 0, "temperature", "a number above 0")
    else:
        require(value["temperature"] == 1, "temperature", f"1, or one of {', '.join(FULL)}")
    value["feature_layers"] = _pairs(value["feature_layers"])
    if not value["feature_weight"]:
        expected = "() while feature_weight is 0"
        require(not value["feature_layers"], "feature_layers", expected)
    if not value["relation_weight"]:
        default = known["relation_window"]
        require(window == default, "relation_window", f"{default} while relation_weight is 0")
    return Objective(**value)


def _pairs(given: Any) -> tuple[tuple[int, int], ...]:
    """`feature_layers` as tuples; ConfigError for anything but pairs of numbers from 1."""
    listed = given if isinstance(given, (list, tuple)) else (given,)
    for pair in listed:
        two = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not two or not all(type(layer) is int and layer >= 1 for layer in pair):
            raise ConfigError(
                f"distill.feature_layers has {pair!r}; expected pairs of layers, the student's and "
                "the teacher's, counted from 1, such as ((8, 12), (16, 24))"
            )
    return tuple((mine, theirs) for mine, theirs in listed)


def check_teacher(student: Any, teacher: Any, objective: Objective) -> None:
    """Refuses a teacher whose logits or states cannot be compared with the student's.

    Args:
      student, teacher: their `Phi3Config`.

    Raises:
      ConfigError: another vocabulary with a full-logit divergence; another width, or a layer that
        is not there, with `feature`.
    """
    if objective.loss in FULL and student.vocab_size != teacher.vocab_size:
        raise ConfigError(
            f"the teacher has {teacher.vocab_size} logits and the student {student.vocab_size}; "
            f"distill.loss {objective.loss!r} needs one vocabulary. Store the teacher's top-k "
            "aligned to the student's tokens and use 'topk', or choose another student"
        )
    if objective.feature_weight and student.hidden_size != teacher.hidden_size:
        raise ConfigError(
            f"the teacher's states are {teacher.hidden_size} wide and the student's "
            f"{student.hidden_size}; distill.feature_weight needs one width. relation_weight "
            "compares angles and takes any"
        )
    for whose, config, at in (("student", student, 0), ("teacher", teacher, 1)):
        deepest = max((pair[at] for pair in objective.feature_layers), default=1)
        if deepest > config.num_hidden_layers:
            raise ConfigError(
                f"distill.feature_layers names layer {deepest} of the {whose}, which has "
                f"{config.num_hidden_layers}; expected 1 to {config.num_hidden_layers}"
            )


def summed_loss(
    model: Phi3,
    batch: Batch,
    *,
    objective: Objective,
    rule: Rule,
    capacity: int,
    groups: int,
    teacher: Phi3 | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(summed loss, total weight) of one batch: add up over microbatches, then divide once.

    The teacher reads every token: the key mask is the student's.

    Args:
      model: the student.
      batch: JAX arrays (B, T); `soft` is there if the objective needs it.
      objective: the terms.
      rule: of the student's masked attention.
      capacity, groups: C and G of `losses.weighted_sum`.
      teacher: there if the objective needs it; gets no gradient.
    """
    key_mask = visible(batch.key_mask, batch.positions, batch.redraw)
    pairs = objective.feature_layers
    hidden, mine = _states(model, batch, [pair[0] for pair in pairs], key_mask, rule)
    terms: dict[str, jax.Array] = {"hidden": hidden, "targets": batch.targets}
    if objective.needs_soft_targets:
        assert batch.soft is not None
        terms |= {"ids": batch.soft.ids, "logprobs": batch.soft.logprobs}
    if objective.needs_teacher:
        assert teacher is not None
        states, theirs = jax.lax.stop_gradient(_states(teacher, batch, [pair[1] for pair in pairs]))
        if objective.loss in FULL:
            terms["states"] = states
        if objective.feature_weight:
            # The backward pass keeps the states, and nothing in float32 that stands between.
            each = map(jax.checkpoint(divergences.feature), mine, theirs)
            terms["feature"] = functools.reduce(jnp.add, each) / len(mine)
        if objective.relation_weight:
            terms["relation"] = divergences.relation(
                hidden, states, batch.loss_weight, batch.segment_ids, objective.relation_window
            )

    def per_position(*rows: jax.Array) -> jax.Array:
        of = dict(zip(terms, rows, strict=True))
        logits = constrain(model.logits(of["hidden"]), "batch", None, "vocab")
        loss = cross_entropy(logits, of["targets"])
        if objective.needs_soft_targets:
            soft = divergences.topk_kl(logits, of["ids"], of["logprobs"])
            stored = jnp.any(of["ids"] >= 0, axis=-1)
            loss = jnp.where(stored, _mixed(loss, soft, objective.weight), loss)
        elif objective.loss in FULL:
            assert teacher is not None
            compare = getattr(divergences, objective.loss)
            theirs = jax.lax.stop_gradient(teacher.logits(of["states"]))
            soft = compare(logits, theirs, objective.temperature)
            loss = _mixed(loss, soft, objective.weight)
        if objective.feature_weight:
            loss += objective.feature_weight * of["feature"]
        if objective.relation_weight:
            loss += objective.relation_weight * of["relation"]
        return loss

    total = weighted_sum(
        per_position,
        tuple(terms.values()),
        batch.loss_weight,
        capacity=capacity,
        groups=groups,
        chunk=objective.chunk,
    )
    return total, jnp.sum(batch.norm_weight)


def _states(
    model: Phi3, batch: Batch, layers: list[int], key_mask: Any = None, rule: Rule = "none"
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The decoder's output, and the states of some layers; of none, that output."""
    given = (batch.tokens, batch.segment_ids, batch.positions, key_mask, rule)
    if not layers:
        hidden = model.hidden(*given)
        return hidden, (hidden,)
    *states, hidden = model.hidden_states(*given, layers=[*layers, model.config.num_hidden_layers])
    return hidden, tuple(states)


def _mixed(hard: jax.Array, soft: jax.Array, share: float) -> jax.Array:
    return (1 - share) * hard + share * soft
