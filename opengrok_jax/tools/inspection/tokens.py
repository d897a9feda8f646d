"""An example token by token: what spoke for it, what was drawn, and what came of it.

Everything is told from the masked examples alone: the factors and the settings are stored there,
the draw u follows from seed, id and place. The formula is computed once more, so that a stored
number which does not follow from it is said to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from opengrok_jax import chance
from opengrok_jax.masking import keep
from opengrok_jax.records import MaskedExample
from opengrok_jax.tokenizer import ROLES, TEMPLATE, ChatTokenizer

FACTORS = {"alpha": "tfidf", "beta": "pos", "gamma": "dep", "delta": "random"}


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token and its fate.

    Attributes:
      place: its index in the example.
      id, text: of the vocabulary; `text` may hold anything that a post holds.
      role: "template", "prompt" or "response".
      special: a control token.
      factors: by name, each in [0,1].
      terms: weight times factor, by the name of the factor.
      total: their sum and the bias.
      keep_prob, u, visible: as stored, and as drawn.
      free: whether it may be hidden at all.
      why: one sentence.
    """

    place: int
    id: int
    text: str
    role: str
    special: bool
    factors: dict[str, float]
    terms: dict[str, float]
    total: float
    keep_prob: float
    u: float
    visible: bool
    free: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Explained:
    """An example, explained.

    Attributes:
      number: its place in the folder.
      id, split: as in `MaskedExample`.
      settings: the numbers of the formula and what else made the mask.
      tokens: all of them, in order.
      visible_share: of the tokens that may be hidden; None where there is none.
      differing: tokens whose stored keep_prob or key_mask does not follow from the formula.
    """

    number: int
    id: str
    split: str
    settings: dict[str, Any]
    tokens: tuple[Token, ...]
    visible_share: float | None
    differing: int


SETTINGS = (
    *("preset", "alpha", "beta", "gamma", "delta", "bias", "target_keep_rate"),
    *("scope", "seed", "pipeline", "pos_tags", "relations"),
)


def explain(
    example: MaskedExample, number: int, made_with: dict[str, Any], chat: ChatTokenizer
) -> Explained:
    """Why each token is visible or hidden.

    Args:
      example: with all its factors.
      number: its place in the folder.
      made_with: the provenance of the folder.
      chat: the tokenizer that made the ids.
    """
    count = len(example.tokens)
    free = keep.maskable(example.roles, made_with["scope"])
    u = chance.of_tokens(made_with["seed"], [example.id], "draw", np.array([count]))
    terms = {
        factor: made_with[weight] * getattr(example, factor).astype(np.float64)
        for weight, factor in FACTORS.items()
    }
    total = np.sum(list(terms.values()), axis=0) + made_with["bias"]
    expected = np.where(free, keep.sigmoid(total), 1.0)
    agrees = np.abs(expected - example.keep_prob) < 1e-5
    agrees &= example.key_mask == ((u < example.keep_prob) | ~free)
    texts = [spelled(chat, index) for index in example.tokens.tolist()]
    tokens = []
    for t in range(count):
        special = chat.is_special(int(example.tokens[t]))
        tokens.append(
            Token(
                place=t,
                id=int(example.tokens[t]),
                text=texts[t],
                role=ROLES[example.roles[t]],
                special=special,
                factors={name: float(getattr(example, name)[t]) for name in FACTORS.values()},
                terms={name: float(values[t]) for name, values in terms.items()},
                total=float(total[t]),
                keep_prob=float(example.keep_prob[t]),
                u=float(u[t]),
                visible=bool(example.key_mask[t]),
                free=bool(free[t]),
                why=_why(example, t, made_with["scope"], special, bool(free[t]), float(u[t]))
                if agrees[t]
                else f"stored as keep_prob {example.keep_prob[t]:.3f} and "
                f"{'visible' if example.key_mask[t] else 'hidden'}, which the formula and the draw "
                f"do not give: {expected[t]:.3f}, u {u[t]:.3f}",
            )
        )
    return Explained(
        number=number,
        id=example.id,
        split=example.split,
        settings={name: made_with.get(name) for name in SETTINGS},
        tokens=tuple(tokens),
        visible_share=float(example.key_mask[free].mean()) if free.any() else None,
        differing=int((~agrees).sum()),
    )


def _why(example: MaskedExample, t: int, scope: str, special: bool, free: bool, u: float) -> str:
    if free:
        chance_, shown = float(example.keep_prob[t]), bool(example.key_mask[t])
        return f"{'kept' if shown else 'hidden'}: u {u:.3f} {'<' if shown else '>='} {chance_:.3f}"
    if t == 0:
        return "always kept: the first token, so that every query has a key"
    if t == len(example.tokens) - 1:
        return "always kept: the last token, which the student must learn to say"
    if special:
        return "always kept: a control token"
    if example.roles[t] == TEMPLATE:
        return "always kept: of the template"
    return f"always kept: outside the scope {scope!r}"


def spelled(chat: ChatTokenizer, index: int) -> str:
    """A token as text: its bytes where they are characters, else as the vocabulary spells it."""
    if chat.is_special(index):
        return chat.token_text(index)
    try:
        return chat.token_bytes(index).decode()
    except UnicodeDecodeError:
        return chat.token_text(index)
