"""Collect: asks the teacher every prompt and writes down the answers.

    prompts.jsonl -> journal.sqlite (as it happens) -> responses.jsonl (once all are there)
                                                       logprobs.jsonl  (where they were told)

Resume is the same command: the journal knows what was answered.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError, TeacherError, needs_extra
from opengrok_jax.progress import say, track
from opengrok_jax.records import Logprobs, Prompt, Response
from opengrok_jax.teacher import answers, wire
from opengrok_jax.teacher import client as client_module
from opengrok_jax.teacher import journal as journal_module
from opengrok_jax.teacher.client import Client, Secret
from opengrok_jax.teacher.journal import Journal
from opengrok_jax.teacher.sending import Patience, ask_all
from opengrok_jax.teacher.wire import Kind, Outcome, Request

with needs_extra("acquire"):
    import httpx

KINDS = ("recorded", "labelled", "api")
RESPONSES, LOGPROBS = "responses.jsonl", "logprobs.jsonl"
RIGHTS_MISSING = (
    "teacher.rights is empty. xAI's terms bar training on its output without a written order "
    "form, and other providers have terms of their own: say what allows you to train on these "
    "answers, as 'own-model' or the name of the agreement; it is kept with the data"
)
# What ships and what the user labelled needs no declaration; a file of recordings may have one.
RIGHTS_SHIPPED = "recorded answers of the OpenGrok-JAX project, Apache-2.0"
RIGHTS_RECORDED = "the user's own recordings"
RIGHTS_LABELLED = "the user's own labels"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Whom we ask; `transport` None is the network."""

    source: str
    endpoint: str
    model: str
    rights: str
    key: Secret
    transport: httpx.AsyncBaseTransport | None


def run(
    *,
    prompts_file: Path,
    out: Path,
    kind: str,
    recorded_file: str = "",
    base_url: str = "",
    model: str = "",
    api_key_env: str = "",
    temperature: float = 0.7,
    max_tokens: int = 512,
    top_logprobs: int = 0,
    concurrency: int = 8,
    timeout_sec: float = 900.0,
    max_attempts: int = 5,
    rights: str = "",
) -> dict:
    """Writes `out/journal.sqlite` and, once every prompt is settled, `out/responses.jsonl`.

    Args:
      prompts_file: records.Prompt rows.
      out: folder of this stage.
      kind: "recorded" answers from a file, "labelled" answers with the prompts' gold labels,
        "api" asks an OpenAI-compatible endpoint.
      recorded_file: recordings, see `answers.recorded`; "" stands for the ones that ship.
      base_url, model: the endpoint and its model ("api").
      api_key_env: name of the environment variable that holds the key; "" sends none ("api").
      temperature, max_tokens: as the endpoint understands them.
      top_logprobs: alternatives to ask for at each token, for `distill.loss` "topk"; 0 asks for
        none. Many endpoints give up to 20, some ignore it, which the summary tells.
      concurrency: requests in flight at once.
      timeout_sec: the longest one exchange may take; short ones lose answers that were paid for.
      max_attempts: sendings of one prompt in this run.
      rights: what allows training on the answers; "api" does not start without.

    Returns:
      Counts: planned, ok, failed, blocked, orphaned (in flight when an earlier run died),
      finish_reasons, models_served, prompt_tokens, completion_tokens, with_logprobs.

    Raises:
      ConfigError: a value is out of range or missing.
      DataError: the prompts or recordings are missing or malformed.
      TeacherError: sending was stopped, or prompts failed for good; all answers are kept and the
        same command asks for the others again.
    """
    _check_ranges(temperature, max_tokens, top_logprobs, concurrency, timeout_sec, max_attempts)
    prompts = storage.read_records(prompts_file, Prompt)
    if not prompts:
        raise DataError(f"{prompts_file} holds no prompt")
    teacher = _teacher(kind, prompts, recorded_file, base_url, model, api_key_env, rights)
    requests = [
        wire.request(
            p,
            model=teacher.model,
            temperature=temperature,
            max_tokens=max_tokens,
            top_logprobs=top_logprobs,
        )
        for p in prompts
    ]
    path = out / journal_module.NAME
    with storage.locked(out), journal_module.opened(path, teacher.endpoint) as journal:
        if journal.orphans:
            say(f"collect: {journal.orphans} requests were in flight when an earlier run ended")
        journal.plan(requests)
        patience = Patience(attempts=max_attempts)
        stopped_by = asyncio.run(
            _ask(teacher, journal, requests, concurrency, timeout_sec, patience)
        )
        counts = journal.counts()
        if stopped_by or counts.failed or counts.pending:
            raise TeacherError(_explain(stopped_by, journal, teacher, api_key_env, path))
        told = storage.write_jsonl(out / LOGPROBS, _logprobs(journal))
        if top_logprobs and told < counts.ok:
            say(
                f"collect: {counts.ok - told} of {counts.ok} answers came without usable "
                "log-probabilities; their tokens will be learnt by cross-entropy alone"
            )
        responses = _responses(journal, teacher)
        storage.write_jsonl(out / RESPONSES, responses)
        return _summary(journal, responses) | {"with_logprobs": told}


def _check_ranges(
    temperature: float,
    max_tokens: int,
    top_logprobs: int,
    concurrency: int,
    timeout_sec: float,
    max_attempts: int,
) -> None:
    for name, value, least, most in (
        ("temperature", temperature, 0.0, 2.0),
        ("max_tokens", max_tokens, 1, 1_000_000),
        ("top_logprobs", top_logprobs, 0, 1000),
        ("concurrency", concurrency, 1, 1000),
        ("timeout_sec", timeout_sec, 0.001, 86_400.0),
        ("max_attempts", max_attempts, 1, 100),
    ):
        if not (math.isfinite(value) and least <= value <= most):
            raise ConfigError(f"teacher.{name} is {value}; expected {least} to {most}")


def _teacher(
    kind: str,
    prompts: Sequence[Prompt],
    recorded_file: str,
    base_url: str,
    model: str,
    api_key_env: str,
    rights: str,
) -> Teacher:
    if kind not in KINDS:
        raise ConfigError(f"teacher.kind is {kind!r}; expected {', '.join(KINDS)}")
    rights = rights.strip()
    if kind == "api":
        if not base_url or not model:
            raise ConfigError("teacher.kind 'api' needs teacher.base_url and teacher.model")
        if not rights:
            raise ConfigError(RIGHTS_MISSING)
        return Teacher(
            source=kind,
            endpoint=client_module.endpoint(base_url),
            model=model,
            rights=rights,
            key=client_module.secret_from(api_key_env),
            transport=None,
        )
    if kind == "recorded":
        book = answers.recorded(Path(recorded_file) if recorded_file else answers.SHIPPED)
        rights = rights or (RIGHTS_RECORDED if recorded_file else RIGHTS_SHIPPED)
    else:
        book = answers.labelled(prompts)
        rights = rights or RIGHTS_LABELLED
    return Teacher(
        source=kind,
        endpoint=f"http://{kind}.invalid/v1",  # a name that by RFC 2606 no network resolves
        model=answers.name(kind, book),
        rights=rights,
        key=Secret(""),
        transport=answers.BookTransport(book),
    )


async def _ask(
    teacher: Teacher,
    journal: Journal,
    requests: Sequence[Request],
    concurrency: int,
    timeout_sec: float,
    patience: Patience,
) -> Outcome | None:
    pending, failures = journal.pending(), journal.failures_of()
    # Prompts that failed before come last: a prompt that always fails must not hold up the rest.
    queue = sorted((r for r in requests if r.key in pending), key=lambda r: failures.get(r.key, 0))
    client = Client(
        base_url=teacher.endpoint,
        key=teacher.key,
        timeout_sec=timeout_sec,
        connections=concurrency,
        transport=teacher.transport,
    )
    done = len(requests) - len(queue)
    tally: Counter[str] = Counter()
    with track("collect", total=len(requests), unit="answers", done=done) as advance:

        def settled(outcome: Outcome) -> None:
            if outcome.kind is not Kind.OK:
                tally["blocked" if outcome.kind is Kind.BLOCKED else "failed"] += 1
            advance(1, note=", ".join(f"{n} {what}" for what, n in sorted(tally.items())))

        async with client:
            return await ask_all(
                queue,
                client=client,
                journal=journal,
                concurrency=concurrency,
                patience=patience,
                settled=settled,
                chance=random.Random(),
            )


def _explain(
    stopped_by: Outcome | None, journal: Journal, teacher: Teacher, key_env: str, path: Path
) -> str:
    """What went wrong and what to do, for the error message."""
    counts = journal.counts()
    kept = f"All {counts.ok} answers so far are kept in {path}; the same command asks for the rest"
    if stopped_by is None:
        failed = journal.failed()
        reasons = Counter(reason for _, reason, _ in failed)
        reason, times = reasons.most_common(1)[0]
        first, detail = next((p, d) for p, r, d in failed if r == reason)
        return (
            f"{counts.failed} of {counts.planned} prompts got no answer; commonest reason: "
            f"{reason} ({times}), as for prompt {first}: {detail or reason}. {kept} again"
        )
    what = f"{stopped_by.reason}: {stopped_by.detail}" if stopped_by.detail else stopped_by.reason
    said = f"{teacher.endpoint} stopped the collection ({what})"
    if stopped_by.kind is Kind.OUT_OF_MONEY:
        return f"{said}: the account is out of money. {kept} once it is filled up"
    if stopped_by.kind is Kind.FATAL:
        key = f"the key in {key_env}" if key_env else "teacher.api_key_env (none is named)"
        return (
            f"{said}: check {key}, teacher.base_url and teacher.model ({teacher.model}). "
            f"{kept} after that"
        )
    if stopped_by.wait_sec:
        return f"{said}: it asks to wait {stopped_by.wait_sec:.0f} s. {kept} then"
    return f"{said}: prompt after prompt failed. {kept} once it is up again"


def _responses(journal: Journal, teacher: Teacher) -> list[Response]:
    """The accepted answers in the order of the prompts, parsed anew from the raw replies."""
    rows = []
    for key, prompt_id, reply in journal.answers():
        answer = wire.read(reply).answer
        if answer is None:
            raise DataError(
                f"the reply kept for prompt {prompt_id} holds no answer any more; the journal was "
                "written by another version of opengrok: use that, or collect into another folder"
            )
        rows.append(
            Response(
                prompt_id=prompt_id,
                request_key=key,
                text=answer.text,
                finish_reason=answer.finish_reason,
                model_asked=teacher.model,
                model_served=answer.model,
                source=teacher.source,
                endpoint=teacher.endpoint,
                rights=teacher.rights,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
            )
        )
    return rows


def _logprobs(journal: Journal) -> Iterator[Logprobs]:
    """What was told with the accepted answers, one at a time: it is much larger than they are."""
    for _, prompt_id, reply in journal.answers():
        answer = wire.read(reply).answer
        if answer is not None and answer.tokens:
            yield Logprobs(
                prompt_id=prompt_id, text=answer.text, tokens=answer.tokens, top=answer.top
            )


def _summary(journal: Journal, responses: Sequence[Response]) -> dict[str, Any]:
    counts = asdict(journal.counts())
    return {
        **{name: counts[name] for name in ("planned", "ok", "failed", "blocked")},
        "orphaned": journal.orphaned(),
        "finish_reasons": dict(Counter(r.finish_reason for r in responses).most_common()),
        "models_served": dict(Counter(r.model_served for r in responses).most_common()),
        "prompt_tokens": sum(r.prompt_tokens for r in responses),
        "completion_tokens": sum(r.completion_tokens for r in responses),
    }
