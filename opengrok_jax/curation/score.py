"""How good an answer is, in parts: what the refinement of prompts goes by.

    part         in [0,1]                                                     weight
    relevance    what it shares with what was asked about, by weight of words   .30
    form         share of the checkable demands that it meets                   .20
    specificity  how rare its words are in a fixed reference                    .15
    novelty      1 - likeness to the most like answer kept so far               .20
    gain         the student's own loss on it, where there is a file of them    .15
    total = weighted mean - penalties (toxicity, personal data), 0 where a check rejects it

Parts that do not apply (a label has no specificity; no student yet) are left out of the mean.
Validity is the verdict of the checks, so an answer that is refused, cut, off topic or harmful has
total 0. The score steers what is asked; what is kept is decided by the checks alone.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opengrok_jax.curation.checks import judge
from opengrok_jax.curation.duplicates import MIN_WORDS, jaccard
from opengrok_jax.curation.form import obeyed
from opengrok_jax.curation.judging import masked
from opengrok_jax.curation.looks import PROSE, Reason, Settings
from opengrok_jax.curation.relevance import ENOUGH, terms, weight
from opengrok_jax.curation.shingles import Triple, triples, words
from opengrok_jax.records import Prompt, Response

WEIGHTS = {"relevance": 0.30, "form": 0.20, "specificity": 0.15, "novelty": 0.20, "gain": 0.15}
RARE = 6.0  # nats: the mean weight of the words of an answer than which none is more specific
TOXICITY, PERSONAL = 0.3, 0.1  # penalty for a harm score of 1, and for one piece of personal data
QUANTILE = 0.9  # of the student's losses in a cell, above which more is no gain: garbage is there


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An answer's score.

    Attributes:
      prompt_id: as in `Response`.
      accepted: no check rejects it, and nothing accepted before says the same.
      reason: of the rejection, as in `looks.Reason`; "" where accepted.
      parts: name -> part, those that apply.
      penalties: name -> what is taken off.
      total: in [0,1].
    """

    prompt_id: str
    accepted: bool
    reason: str
    parts: dict
    penalties: dict
    total: float


class Scorer:
    """Scores answers one after the other; holds what it accepted, for likeness.

    Args:
      settings: of the checks.
      similarity: as in `duplicates.near_duplicates`.
      gains: `gains` of the student's losses; empty without a student.
    """

    def __init__(
        self, settings: Settings, similarity: float, gains: Mapping[str, float] | None = None
    ) -> None:
        self._settings, self._similarity, self._gains = settings, similarity, gains or {}
        self._sets: dict[str, list[frozenset[Triple]]] = defaultdict(list)
        self._having: dict[str, dict[Triple, list[int]]] = defaultdict(lambda: defaultdict(list))

    def score(self, prompt: Prompt, response: Response, form: Mapping[str, object]) -> Scored:
        """The score of an answer, which is remembered if it is accepted.

        Args:
          form: checkable demands, see `form.obeyed`.
        """
        prompt, response, found = masked(prompt, response, True)
        scores, findings = judge(prompt, response, self._settings)
        reason = next((f.reason for f in findings if f.certain), "")
        likeness, keys = self._likeness(prompt, response)
        if not reason and likeness >= self._similarity and len(words(response.text)) >= MIN_WORDS:
            reason = str(Reason.NEAR_DUPLICATE)
        parts = {"relevance": relevance(prompt, response), "form": obeyed(response.text, form)}
        if prompt.cell.intent in PROSE:
            parts["specificity"] = specificity(response.text)
        parts["novelty"] = 1.0 - likeness
        if prompt.id in self._gains:
            parts["gain"] = self._gains[prompt.id]
        penalties = {
            "toxicity": TOXICITY * scores.get("harm", 0.0),
            "personal": min(PERSONAL * _personal(prompt, response, found), 3 * PERSONAL),
        }
        mean = sum(WEIGHTS[k] * v for k, v in parts.items()) / sum(WEIGHTS[k] for k in parts)
        if not reason:
            self._remember(prompt.cell.intent, keys)
        return Scored(
            prompt_id=prompt.id,
            accepted=not reason,
            reason=reason,
            parts={name: round(value, 4) for name, value in parts.items()},
            penalties={name: round(value, 4) for name, value in penalties.items() if value},
            total=0.0 if reason else round(max(0.0, mean - sum(penalties.values())), 4),
        )

    def _likeness(self, prompt: Prompt, response: Response) -> tuple[float, frozenset[Triple]]:
        """Likeness to the most like accepted answer of the intent; a label counts with its post."""
        text = response.text
        if len(words(text)) < MIN_WORDS:
            text = "\n".join((*(prompt.posts or (prompt.messages[-1].content,)), text))
        keys, intent = triples(text), prompt.cell.intent
        shared = Counter(i for key in keys for i in self._having[intent].get(key, ()))
        sets = self._sets[intent]
        return max((jaccard(keys, sets[i]) for i in shared), default=0.0), keys

    def _remember(self, intent: str, keys: frozenset[Triple]) -> None:
        for key in keys:
            self._having[intent][key].append(len(self._sets[intent]))
        self._sets[intent].append(keys)


def _personal(prompt: Prompt, response: Response, found: Counter[str]) -> int:
    """Placeholders in the answer that the prompt does not have as well."""
    asked = " ".join(m.content for m in prompt.messages)
    return sum(
        f"[{kind.upper()}]" in response.text and f"[{kind.upper()}]" not in asked for kind in found
    )


def relevance(prompt: Prompt, response: Response) -> float:
    """Weight of the words shared with posts, topic and event, over what is enough, at most 1.

    Of an answer too short for that: the share of its words that the prompt has.
    """
    row = words(response.text)
    if not row:
        return 0.0
    asked = terms(" ".join((prompt.messages[-1].content, *prompt.posts, prompt.cell.topic)))
    said = terms(response.text)
    if len(row) < MIN_WORDS:
        return len(said & asked) / len(said)
    return min(1.0, sum(map(weight, said & asked)) / (2 * ENOUGH))


def specificity(text: str) -> float:
    """Mean weight of the different words, over `RARE`, at most 1."""
    said = terms(text)
    return min(1.0, sum(map(weight, said)) / (len(said) * RARE)) if said else 0.0


def gains(losses: Mapping[str, float], cells: Mapping[str, object]) -> dict[str, float]:
    """The student's losses, by prompt id, as gains in [0,1]: what it does not know yet.

    Losses are clipped to the `QUANTILE` of their cell, so that garbage, on which a loss is
    largest, earns no more than what is hard; then 0.5 is the mean of the cell and 1 twice that.

    Args:
      losses: prompt id -> mean loss of a token of the answer, in nats.
      cells: prompt id -> its cell; ids without one are left out.
    """
    of_cell: dict[object, list[float]] = defaultdict(list)
    for name, loss in losses.items():
        if name in cells:
            of_cell[cells[name]].append(loss)
    mean = {}
    for cell, values in of_cell.items():
        most = _quantile(values)
        mean[cell] = (most, statistics.fmean(min(v, most) for v in values))
    result = {}
    for name, loss in losses.items():
        if name in cells:
            most, middle = mean[cells[name]]
            result[name] = min(1.0, 0.5 * min(loss, most) / middle) if middle > 0 else 0.0
    return result


def _quantile(values: Sequence[float]) -> float:
    ranked = sorted(values)
    return ranked[int(QUANTILE * (len(ranked) - 1))]
