"""Refine: goes on asking where it pays, going by the answers.

    planned prompts, answers  ->  score  ->  propose  ->  ask  ->  score  ->  ...
                                               proposed.jsonl   asked/journal.sqlite

Between collect and curate; knows the rooms prompts (what to ask next), teacher (asking) and
curation (what the answers are worth). With `rounds` 0 it hands on what was collected. State is
derived from rows: after a kill the same command reads what was proposed and what was answered,
and goes on; nothing answered is asked again. The resumed loop is that of an uninterrupted run
that got the same answers at the same cost, byte for byte: only what was in flight at the kill is
asked anew, and a teacher with a temperature may answer that in other words.

    prompts.jsonl, responses.jsonl, logprobs.jsonl   what was planned and collected, then the loop's
    lineage.jsonl   each prompt: parent, operator, round, accepted or reason, score in parts, cost
    archive.json    each cell's elites, and the QD-score after each round
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.progress import say
from opengrok_jax.records import Prompt, Response
from opengrok_jax.refine_loop import NO_ANSWER, Loop

PROMPTS, RESPONSES, LOGPROBS = "prompts.jsonl", "responses.jsonl", "logprobs.jsonl"
LINEAGE, ARCHIVE, PROPOSED, ASKED = "lineage.jsonl", "archive.json", "proposed.jsonl", "asked"
UNANSWERED = "unanswered.jsonl"  # of a collection


def run(
    *,
    prompts_file: Path,
    responses_file: Path,
    logprobs_file: Path,
    out: Path,
    prompts: Mapping[str, Any],
    teacher: Mapping[str, Any],
    rounds: int = 0,
    batch: int = 64,
    elites: int = 4,
    budget_share: float = 0.2,
    stall: float = 0.01,
    patience: int = 3,
    similarity: float = 0.4,
    losses_file: str = "",
    seed: int = 0,
) -> dict:
    """Writes the files named above to `out`.

    Args:
      prompts_file, responses_file, logprobs_file: what was planned and collected.
      out: folder of this stage; `asked` in it is the loop's own journal.
      prompts, teacher: those sections of the config. Caps of the teacher's section hold for the
        loop by itself, apart from what collect may take.
      rounds: at most so many rounds of questions; 0 asks nothing.
      batch: prompts of a round, at most.
      elites: genomes kept for a cell.
      budget_share: what the loop may spend, over what collect spent: the next round is not begun
        beyond it. In ticks where every answer's cost is known, else in tokens, else in requests.
      stall: the loop ends after `patience` rounds in which the QD-score grew by less than this
        share in all.
      patience: see `stall`.
      similarity: as `curation.duplicate_similarity`.
      losses_file: JSONL of {"prompt_id", "loss"}: a student's mean loss on answers of an earlier
        run, which then count as what it still has to learn; "" without.
      seed: of all choices; same seed and answers, same prompts.

    Returns:
      Counts: rounds, asked, accepted and unanswered (of those), spent, budget and their unit,
      qd_score before and after, cells filled and planned, stopped_by.

    Raises:
      ConfigError: a value is out of range, or rounds are asked of a teacher that knows only the
        planned prompts.
      DataError: a file is missing or malformed.
      TeacherError: as in collect.
    """
    _check(prompts, teacher, rounds, batch, elites, budget_share, stall, patience)
    if not rounds:
        for source, name in (
            (prompts_file, PROMPTS),
            (responses_file, RESPONSES),
            (logprobs_file, LOGPROBS),
        ):
            with storage.replacing(out / name) as file, open(source, "rb") as before:
                shutil.copyfileobj(before, file)
        storage.write_jsonl(out / LINEAGE, [])
        storage.write_json(out / ARCHIVE, {"qd_scores": [], "cells": []})
        return {"rounds": 0, "asked": 0, "accepted": 0, "stopped_by": "no rounds wanted"}
    loop = Loop(
        planned=storage.read_records(prompts_file, Prompt),
        answers=storage.read_records(responses_file, Response),
        prompts=prompts,
        elites=elites,
        similarity=similarity,
        losses=_losses(losses_file),
        seed=seed,
        unanswered=_unanswered(responses_file.parent),
    )
    budget = int(budget_share * loop.spent)
    stopped_by = loop.go(
        ask=lambda asked: _ask(asked, out / ASKED, teacher),
        proposed_file=out / PROPOSED,
        rounds=rounds,
        batch=batch,
        budget=budget,
        stall=stall,
        patience=patience,
    )
    say(f"refine: {stopped_by}; {loop.told()}")
    asked_prompts = [row.prompt for row in loop.proposed]
    own = [loop.responses[p.id] for p in asked_prompts if p.id in loop.responses]
    storage.write_jsonl(out / PROMPTS, [*loop.planned, *asked_prompts])
    storage.write_jsonl(out / RESPONSES, [*loop.answers, *own])
    more = out / ASKED / LOGPROBS
    storage.write_jsonl(out / LOGPROBS, _joined(logprobs_file, more))
    storage.write_jsonl(out / LINEAGE, loop.lineage)
    storage.write_json(out / ARCHIVE, loop.picture())
    return {**loop.counts(), "budget": budget, "stopped_by": stopped_by}


def _check(
    prompts: Mapping[str, Any],
    teacher: Mapping[str, Any],
    rounds: int,
    batch: int,
    elites: int,
    budget_share: float,
    stall: float,
    patience: int,
) -> None:
    for name, value, least, most in (
        ("rounds", rounds, 0, 10_000),
        ("batch", batch, 1, 100_000),
        ("elites", elites, 1, 1000),
        ("budget_share", budget_share, 0.0, 1000.0),
        ("stall", stall, 0.0, 1.0),
        ("patience", patience, 1, 10_000),
    ):
        if not least <= value <= most:
            raise ConfigError(f"refinement.{name} is {value}; expected {least} to {most}")
    if rounds and prompts.get("source", "axes") != "axes":
        raise ConfigError(
            "refinement.rounds needs prompts.source='axes': one instruction asked of your posts "
            "has no cells to refine; set refinement.rounds to 0"
        )
    if rounds and teacher.get("kind") != "api":
        raise ConfigError(
            f"refinement.rounds needs a teacher that can answer new prompts, and a "
            f"{teacher.get('kind')} one knows only the planned ones: set teacher.kind to 'api' "
            "(`opengrok simulate-teacher` serves one without a model), or refinement.rounds to 0"
        )


def _losses(path: str) -> dict[str, float]:
    if not path:
        return {}
    found = {}
    for number, row in enumerate(storage.read_jsonl(Path(path)), start=1):
        name, loss = row.get("prompt_id"), row.get("loss")
        if not isinstance(name, str) or not isinstance(loss, (int, float)) or not loss >= 0:
            raise DataError(
                f'{path}, row {number}: expected {{"prompt_id": ..., "loss": ...}} with a loss of '
                f"0 or more, got {str(row)[:80]}"
            )
        found[name] = float(loss)
    return found


def _ask(
    prompts: Sequence[Prompt], folder: Path, teacher: Mapping[str, Any]
) -> dict[str, Response | str]:
    """The answers to all prompts given, or why there is none; what is known is not asked again."""
    from opengrok_jax.teacher import collect

    folder.mkdir(parents=True, exist_ok=True)
    storage.write_jsonl(folder / PROMPTS, prompts)
    # One prompt that cannot be answered is a miss of the loop, and no reason to end it.
    collect.run(prompts_file=folder / PROMPTS, out=folder, **{**teacher, "may_fail": 1.0})
    found = storage.read_records(folder / RESPONSES, Response)
    return _unanswered(folder) | {response.prompt_id: response for response in found}


def _unanswered(folder: Path) -> dict[str, str]:
    """Why prompts of a collection have no answer: "blocked" by a policy, or another word."""
    path = folder / UNANSWERED
    rows = storage.read_jsonl(path) if path.exists() else ()
    return {r["prompt_id"]: "blocked" if r["state"] == "blocked" else NO_ANSWER for r in rows}


def _joined(*paths: Path) -> Iterator[dict[str, Any]]:
    for path in paths:
        if path.exists():
            yield from storage.read_jsonl(path)
