"""Answers that were cut at max_tokens, asked for once more with a larger limit.

The question with the larger limit is another question with a key of its own, so both answers stay
in the journal and both are paid for; the longer one takes the place of the other.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

from opengrok_jax.records import canonical_json
from opengrok_jax.teacher import settings as settings_module
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.journal import Journal
from opengrok_jax.teacher.journal_plan import Accepted, Plan
from opengrok_jax.teacher.settings import Teacher


def plan(
    journal: Journal, first: Plan, teacher: Teacher, prompts_file: Path, max_tokens: int
) -> tuple[Plan, Teacher] | None:
    """What to ask again, and as whom; None where no answer of `first` was cut."""
    cut, names = set(), hashlib.sha256()
    for accepted in first.answers():
        answer = wire.read(accepted.reply).answer
        if answer is not None and answer.finish_reason == "length":
            cut.add(accepted.prompt_id)
            names.update(accepted.prompt_id.encode() + b"\n")
    if not cut:
        return None
    asking = dataclasses.replace(teacher.asking, max_tokens=max_tokens)
    made_of = {
        "cut": names.hexdigest(),
        "endpoint": teacher.endpoint,
        "asking": dataclasses.asdict(asking),
    }
    requests = (
        wire.request(prompt, asking)
        for prompt in settings_module.prompts_in(prompts_file)
        if prompt.id in cut
    )
    again = journal.plan(canonical_json(made_of), teacher.endpoint, requests)
    return again, dataclasses.replace(teacher, asking=asking)


def merged(
    first: Plan, teacher: Teacher, again: tuple[Plan, Teacher] | None
) -> Iterator[tuple[Accepted, Teacher]]:
    """The answers in the order of the first plan, each with whom it was asked of."""
    others = again[0].answers() if again else iter(())
    other = next(others, None)
    for accepted in first.answers():
        if again and other is not None and other.prompt_id == accepted.prompt_id:
            yield other, again[1]
            other = next(others, None)
        else:
            yield accepted, teacher
