"""The refinement loop: scores what was answered, proposes what to ask next, until it ends.

    fold(planned)   round 1: propose, ask, fold   round 2: ...   ended by budget, stall or rounds

What is known is folded from rows in their order, and the choices of a round come from the seed and
its number: so a loop that begins again over the same rows goes on as if it had never stopped. A
prompt that got no answer in its round is a miss from then on: it is written down as one and not
asked again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opengrok_jax import records, storage
from opengrok_jax.errors import DataError
from opengrok_jax.progress import say
from opengrok_jax.records import Prompt, Response

# The answers to prompts by their ids; in the place of one, why there is none.
Ask = Callable[[Sequence[Prompt]], Mapping[str, Response | str]]
NO_ANSWER, MISSED = "no_answer", "missed.jsonl"


class Loop:
    """The loop itself: folds in what was answered, proposes, has it asked, until it ends.

    Args:
      planned, answers: of the stages before.
      prompts: that section of the config; names the files of axes, posts, templates, techniques.
      elites, similarity, seed: see `run`.
      losses: prompt id -> loss of a student.
      unanswered: planned prompts without an answer, and why: "blocked" or another word.
    """

    def __init__(
        self,
        *,
        planned: Sequence[Prompt],
        answers: Sequence[Response],
        prompts: Mapping[str, Any],
        elites: int,
        similarity: float,
        losses: Mapping[str, float],
        seed: int,
        unanswered: Mapping[str, str] | None = None,
    ) -> None:
        from opengrok_jax.curation import score
        from opengrok_jax.curation.looks import Settings
        from opengrok_jax.prompts import archive, genome, propose

        names = ("axes_file", "posts_file", "templates_file", "techniques_file")
        self._repertoire = genome.Repertoire.load(**{n: prompts.get(n, "") for n in names})
        self.planned, self.answers = list(planned), list(answers)
        self.responses = {response.prompt_id: response for response in answers}
        self.missed = dict(unanswered or {})
        self.unit, self._cost_of = _unit(answers)
        self._seed = seed
        intents = dict.fromkeys(p.cell.intent for p in planned)
        cells = archive.planned(self._repertoire, intents)
        self._known = propose.Known(archive.Archive(cells, elites), self._repertoire)
        ids = {p.id: archive.key(p.cell) for p in planned}
        self._scorer = score.Scorer(Settings(), similarity, score.gains(losses, ids))
        self.lineage: list[dict[str, Any]] = []
        self.proposed: list[propose.Proposal] = []
        self.qd_scores: list[float] = []
        self.spent = 0
        self._fold(
            propose.Proposal(prompt=p, genome=genome.of(p, self._repertoire)) for p in planned
        )
        self.base = self.spent

    def go(
        self,
        *,
        ask: Ask,
        proposed_file: Path,
        rounds: int,
        batch: int,
        budget: int,
        stall: float,
        patience: int,
    ) -> str:
        """Round after round; answers what ended the loop.

        Args:
          ask: all prompts proposed so far, short of the misses -> the answers.
          proposed_file: where proposals stand before they are asked; the misses stand beside it.
          rounds, batch, stall, patience: see `run`.
          budget: in `unit`.
        """
        from opengrok_jax.prompts.plan import seeded
        from opengrok_jax.prompts.propose import propose

        before = _read(proposed_file, self._repertoire) if proposed_file.exists() else []
        missed_file = proposed_file.with_name(MISSED)
        if before and missed_file.exists():
            for miss in storage.read_jsonl(missed_file):
                self.missed[miss["prompt_id"]] = miss["reason"]
        for number in range(1, rounds + 1):
            now = [row for row in before if row.round == number]
            if not now:
                if why := self._ends(budget, stall, patience):
                    return why
                left = (budget - (self.spent - self.base)) * len(self.lineage) // self.spent
                chance = seeded(f"{self._seed}/refine/{number}")
                # Not ever smaller towards the end: what a round learns from must be some rows.
                size = max(-(-batch // 4), min(batch, left))
                now = propose(self._known, size, number, chance)
                if not now:
                    return "no further prompt could be made"
                storage.write_jsonl(proposed_file, map(_plain, [*self.proposed, *now]))
            self.proposed += now
            self._take(ask, now, missed_file)
            self._fold(now)
            say(f"refine: round {number}, {len(now)} prompts; {self.told()}")
        return f"all {rounds} rounds were done"

    def _take(self, ask: Ask, now: Sequence[Any], missed_file: Path) -> None:
        """Has the round answered; without an answer it is a miss, noted before it counts."""
        wanted = [row.prompt for row in self.proposed if row.prompt.id not in self.missed]
        found = ask(wanted) if wanted else {}
        self.responses |= {i: one for i, one in found.items() if isinstance(one, Response)}
        before = len(self.missed)
        for prompt in (row.prompt for row in now):
            if prompt.id not in self.responses and prompt.id not in self.missed:
                self.missed[prompt.id] = str(found.get(prompt.id, NO_ANSWER))
        if len(self.missed) > before:
            rows = [{"prompt_id": i, "reason": reason} for i, reason in self.missed.items()]
            storage.write_jsonl(missed_file, rows)

    def _ends(self, budget: int, stall: float, patience: int) -> str:
        if self.spent - self.base >= budget:
            return f"the budget of {budget} {self.unit} is used up"
        scores = self.qd_scores
        if len(scores) > patience and scores[-1] < scores[-1 - patience] * (1 + stall):
            return f"the QD-score grew by less than {stall:.0%} in {patience} rounds"
        return ""

    def _fold(self, rows: Iterable[Any]) -> None:
        """Scores the answers of one round, in order, and takes them in."""
        from opengrok_jax.prompts import genome, propose

        for row in rows:
            response = self.responses.get(row.prompt.id)
            if response is None:
                why = self.missed.get(row.prompt.id, "blocked")
                told = {"accepted": False, "reason": why, "parts": {}, "penalties": {}}
                told, cost = {**told, "total": 0.0}, 1 if self.unit == "requests" else 0
            else:
                form = genome.form(row.genome, self._repertoire)
                scored = self._scorer.score(row.prompt, response, form)
                told, cost = dataclasses.asdict(scored), self._cost_of(response)
            propose.fold(self._known, row, told["accepted"], told["reason"], told["total"], cost)
            self.spent += cost
            self.lineage.append(
                {
                    "child": row.prompt.id,
                    "parent": row.parent,
                    "operator": row.operator,
                    "round": row.round,
                    **{n: told[n] for n in ("accepted", "reason", "total", "parts", "penalties")},
                    "cost": cost,
                }
            )
        self.qd_scores.append(round(self._known.archive.qd_score, 6))

    def told(self) -> str:
        """Where it stands, for a reader."""
        archive = self._known.archive
        spent = self.spent - self.base
        return (
            f"{len(archive.filled)} of {len(archive.cells)} cells, QD-score "
            f"{self.qd_scores[-1]:.3f}, {spent} {self.unit} spent"
        )

    def counts(self) -> dict[str, Any]:
        """Figures for the manifest."""
        own = [row for row in self.lineage if row["round"]]
        archive = self._known.archive
        return {
            "rounds": len(self.qd_scores) - 1,
            "asked": len(own),
            "accepted": sum(row["accepted"] for row in own),
            "unanswered": sum(row["child"] not in self.responses for row in own),
            "spent": self.spent - self.base,
            "unit": self.unit,
            "qd_score_before": self.qd_scores[0],
            "qd_score": self.qd_scores[-1],
            "cells_filled": len(archive.filled),
            "cells": len(archive.cells),
        }

    def picture(self) -> dict[str, Any]:
        """The archive for a reader: cells in order, with their elites' prompts and scores."""
        archive = self._known.archive
        cells = [
            {
                "cell": dict(zip(("intent", "platform", "style", "hardness"), where, strict=True)),
                "elites": [{"prompt": e.prompt_id, "score": e.score} for e in archive.at(where)],
            }
            for where in sorted(archive.cells)
        ]
        return {"qd_scores": self.qd_scores, "cells": cells}


def _unit(answers: Sequence[Response]) -> tuple[str, Callable[[Response], int]]:
    """What costs are counted in, and how; the best that all answers tell."""
    if answers and all(r.cost_ticks > 0 for r in answers):
        return "ticks", lambda r: max(r.cost_ticks, 0)
    if answers and all(r.prompt_tokens + r.completion_tokens > 0 for r in answers):
        return "tokens", lambda r: r.prompt_tokens + r.completion_tokens
    return "requests", lambda r: 1


def _plain(row: Any) -> dict[str, Any]:
    return {
        "prompt": records.to_json(row.prompt),
        "parent": row.parent,
        "operator": row.operator,
        "round": row.round,
    }


def _read(path: Path, repertoire: Any) -> list[Any]:
    """The proposals of earlier runs."""
    from opengrok_jax.prompts import genome
    from opengrok_jax.prompts.propose import Proposal

    rows = []
    for number, row in enumerate(storage.read_jsonl(path), start=1):
        try:
            prompt = records.from_json(Prompt, row["prompt"])
            made_of = genome.of(prompt, repertoire)
            rows.append(
                Proposal(
                    prompt=prompt,
                    genome=made_of,
                    parent=row["parent"],
                    operator=row["operator"],
                    round=row["round"],
                )
            )
        except (DataError, KeyError) as error:
            raise DataError(f"{path}, record {number}: {error}") from None
    return rows
