"""What the journal holds, as rows for the next rooms; parsed anew from the raw replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.records import Logprobs, Response
from opengrok_jax.teacher import longer, wire
from opengrok_jax.teacher.journal_plan import Accepted, Plan
from opengrok_jax.teacher.outcome import Answer
from opengrok_jax.teacher.settings import Teacher

RESPONSES, LOGPROBS = "responses.jsonl", "logprobs.jsonl"
ORPHANS, UNANSWERED = "orphans.jsonl", "unanswered.jsonl"


@dataclass
class Totals:
    """Sums over the written rows."""

    rows: int = 0
    with_logprobs: int = 0
    reasoned: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: Counter[str] = field(default_factory=Counter)
    models_served: Counter[str] = field(default_factory=Counter)

    def add(self, row: Response) -> None:
        """Counts a row."""
        self.rows += 1
        self.with_logprobs += row.has_logprobs
        self.prompt_tokens += row.prompt_tokens
        self.completion_tokens += row.completion_tokens
        self.finish_reasons[row.finish_reason] += 1
        self.models_served[row.model_served] += 1

    def plain(self) -> dict[str, Any]:
        """For the summary."""
        return {
            "finish_reasons": dict(self.finish_reasons.most_common()),
            "models_served": dict(self.models_served.most_common()),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "with_logprobs": self.with_logprobs,
            "reasoned": self.reasoned,
        }


def write(
    out: Path, plan: Plan, teacher: Teacher, again: tuple[Plan, Teacher] | None = None
) -> Totals:
    """Writes responses and log-probabilities in the order of the prompts, a row at a time.

    Args:
      again: where answers that were cut have longer ones, see `longer`.

    Raises:
      DataError: a reply kept as an answer holds none any more.
    """
    totals = Totals()

    def logprobs() -> Iterator[Logprobs]:
        for accepted, answer, _ in _answers(plan, teacher, again):
            if answer.tokens:
                yield Logprobs(
                    prompt_id=accepted.prompt_id,
                    text=answer.text,
                    tokens=answer.tokens,
                    top=answer.top,
                )

    def responses() -> Iterator[Response]:
        for accepted, answer, asked in _answers(plan, teacher, again):
            row = _response(accepted, answer, asked)
            totals.add(row)
            totals.reasoned += answer.reasoned
            yield row

    # Two passes where there are log-probabilities: they are much larger than the answers.
    storage.write_jsonl(out / LOGPROBS, logprobs() if teacher.asking.top_logprobs else ())
    storage.write_jsonl(out / RESPONSES, responses())
    return totals


def write_orphans(out: Path, plan: Plan) -> int:
    """Names every sending that ended with its process; it may have been paid. Their number."""
    rows = [
        {"prompt_id": prompt, "sent_at": sent_at, "reserved_ticks": reserved}
        for prompt, sent_at, reserved in plan.orphans()
    ]
    if rows or (out / ORPHANS).exists():
        storage.write_jsonl(out / ORPHANS, rows)
    return len(rows)


def write_unanswered(out: Path, plan: Plan) -> None:
    """Names every prompt that was refused, or failed, with the endpoint's words."""
    rows = [
        {"prompt_id": prompt, "state": state, "reason": reason, "detail": detail}
        for prompt, state, reason, detail in plan.unanswered()
    ]
    if rows or (out / UNANSWERED).exists():
        storage.write_jsonl(out / UNANSWERED, rows)


def _answers(
    plan: Plan, teacher: Teacher, again: tuple[Plan, Teacher] | None
) -> Iterator[tuple[Accepted, Answer, Teacher]]:
    for accepted, asked in longer.merged(plan, teacher, again):
        answer = wire.read(accepted.reply).answer
        if answer is None:
            raise DataError(
                f"the reply kept for prompt {accepted.prompt_id} holds no answer any more; the "
                "journal was written by another version of opengrok: use that, or collect into "
                "another folder"
            )
        yield accepted, answer, asked


def _response(accepted: Accepted, answer: Answer, teacher: Teacher) -> Response:
    return Response(
        prompt_id=accepted.prompt_id,
        request_key=accepted.key,
        text=answer.text,
        finish_reason=answer.finish_reason,
        model_asked=teacher.asking.model,
        model_served=answer.model,
        source=teacher.source,
        endpoint=teacher.endpoint,
        rights=teacher.rights,
        prompt_tokens=answer.usage.prompt_tokens,
        completion_tokens=answer.usage.completion_tokens,
        cost_ticks=-1 if accepted.cost is None else accepted.cost,
        # What was recorded or labelled was there before; the same run gives the same bytes then.
        received_at=accepted.reply.received_at if teacher.source == "api" else 0.0,
        temperature=teacher.asking.temperature,
        max_tokens=teacher.asking.max_tokens,
        fingerprint=answer.fingerprint,
        has_logprobs=bool(answer.tokens),
    )
