"""Collect: asks the teacher every prompt and writes down the answers.

    prompts.jsonl -> journal.sqlite (as it happens) -> responses.jsonl (once all are there)
                                                       logprobs.jsonl  (where they were told)
                                                       orphans.jsonl   (sendings without a reply)
                                                       unanswered.jsonl (refused, or failed)

Resume is the same command: the journal knows what was answered. Nothing is read whole: a million
prompts take the memory of a thousand.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError, RunFolderError, TeacherError
from opengrok_jax.progress import say
from opengrok_jax.records import canonical_json
from opengrok_jax.teacher import (
    asking,
    explain,
    export,
    journal_file,
    longer,
    money,
    preflight,
    wire,
)
from opengrok_jax.teacher import journal as journal_module
from opengrok_jax.teacher import settings as settings_module
from opengrok_jax.teacher.budget import Budget
from opengrok_jax.teacher.estimate import wants_cap
from opengrok_jax.teacher.journal import Journal
from opengrok_jax.teacher.journal_plan import Plan
from opengrok_jax.teacher.pace import Pace
from opengrok_jax.teacher.preflight import Found
from opengrok_jax.teacher.rules import Cause, Patience, Stop
from opengrok_jax.teacher.settings import Teacher

TERMINATED = 143  # 128 + 15, as shells report a process that ended on SIGTERM


def run(
    *,
    prompts_file: Path,
    out: Path,
    kind: str,
    recorded_file: str = "",
    base_url: str = "",
    model: str = "",
    api: str = "chat",
    api_key_env: str = "",
    temperature: float = 0.7,
    max_tokens: int = 512,
    retry_max_tokens: int = 0,
    top_logprobs: int = 0,
    extra_body: str = "",
    concurrency: int = 8,
    requests_per_minute: int = 0,
    tokens_per_minute: int = 0,
    timeout_sec: float = 900.0,
    max_attempts: int = 5,
    may_fail: float = 0.0,
    max_blocked: float = 0.1,
    served_as: Sequence[str] = (),
    price_input: str = "",
    price_cached: str = "",
    price_output: str = "",
    price_request: str = "",
    price_blocked: str = "",
    cap: str = "",
    cap_tokens: int = 0,
    cap_requests: int = 0,
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
      api: "chat" for POST /chat/completions, "responses" for POST /responses.
      api_key_env: name of the environment variable that holds the key; "" sends none ("api").
      temperature, max_tokens: as the endpoint understands them.
      retry_max_tokens: an answer that was cut at `max_tokens` is asked for once more with this
        limit, and paid for once more ("api"); 0 keeps it as it is.
      top_logprobs: alternatives to ask for at each token, for `distill.loss` "topk"; 0 asks for
        none. Many endpoints give up to 20; one that ignores the wish is told of.
      extra_body: a JSON object of fields that this endpoint knows, put into every request; null
        takes a field out: '{"chat_template_kwargs": {"enable_thinking": false}}' keeps vLLM's
        Qwen from reasoning, '{"temperature": null}' is for models that take none.
      concurrency: requests in flight at once, at most; fewer after rate limits.
      requests_per_minute, tokens_per_minute: ceilings of our own; 0 is none.
      timeout_sec: the longest one exchange may take; short ones lose answers that were paid for.
      max_attempts: sendings of one prompt in this run, rate limits not counted.
      may_fail: share of the prompts that may be left without an answer after so many sendings, or
        because the endpoint cannot answer them; with more it does not end well.
      max_blocked: share of the last 200 prompts that the endpoint's content policy may refuse;
        beyond it nothing more is sent, since each may be charged.
      served_as: names beside `model` (and `model` with a date) under which it may answer.
      price_input, price_cached, price_output: US dollars for a million tokens, as decimals; "" is
        nothing, for `price_cached` the price of input.
      price_request, price_blocked: US dollars for an answer, and for a prompt that the content
        policy refuses.
      cap: US dollars that all runs in this folder may take; wanted where there are prices.
      cap_tokens, cap_requests: the same for tokens and for sendings; 0 is no bound.
      rights: what allows training on the answers; "api" does not start without.

    Returns:
      Counts: planned, ok, failed, blocked, orphaned (sendings that ended with an earlier run),
      requests, cost_ticks (1e-10 USD), finish_reasons, models_served, prompt_tokens,
      completion_tokens, with_logprobs, reasoned (answers whose reasoning was cut off).

    Raises:
      ConfigError: a value is out of range or missing.
      DataError: the prompts or recordings are missing or malformed.
      TeacherError: sending was stopped, or prompts failed for good; all answers are kept and the
        same command asks for the others again.
      SystemExit: status 143 after a SIGTERM; what was in flight is awaited and kept.
    """
    settings_module.in_range("concurrency", concurrency, 1, 1000)
    settings_module.in_range("max_attempts", max_attempts, 1, 100)
    if retry_max_tokens and retry_max_tokens <= max_tokens:
        raise ConfigError(
            f"teacher.retry_max_tokens is {retry_max_tokens}; expected more than teacher.max_tokens"
            f" ({max_tokens}), or 0"
        )
    settings_module.in_range("retry_max_tokens", retry_max_tokens, 0, 1_000_000)
    settings_module.in_range("may_fail", may_fail, 0.0, 1.0)
    settings_module.in_range("max_blocked", max_blocked, 0.0, 1.0)
    settings_module.in_range("requests_per_minute", requests_per_minute, 0, 10**9)
    settings_module.in_range("tokens_per_minute", tokens_per_minute, 0, 10**12)
    prices = money.prices(
        input=price_input,
        cached=price_cached,
        output=price_output,
        request=price_request,
        blocked=price_blocked,
    )
    teacher = settings_module.teacher(
        prompts_file=prompts_file,
        kind=kind,
        recorded_file=recorded_file,
        base_url=base_url,
        model=model,
        api=api,
        api_key_env=api_key_env,
        temperature=temperature,
        max_tokens=max_tokens,
        top_logprobs=top_logprobs,
        extra_body=extra_body,
        timeout_sec=timeout_sec,
        served_as=served_as,
        rights=rights,
    )
    settings_module.wants_rights(teacher)
    print_ = fingerprint(prompts_file, teacher)
    wants_cap(prices, cap, prompts_file, teacher.asking)
    caps = settings_module.caps(cap=cap, cap_tokens=cap_tokens, cap_requests=cap_requests)
    path = out / journal_file.NAME
    with storage.locked(out), journal_module.opened(path) as journal:
        _tell_orphans(journal.new_orphans)
        requests = (
            wire.request(p, teacher.asking) for p in settings_module.prompts_in(prompts_file)
        )
        plan = journal.plan(print_, teacher.endpoint, requests)
        judge = asking.Judge(teacher, plan.served())
        if again := plan.reread(judge):
            say(f"collect: {again} replies kept from earlier runs are answers by today's rules")
        budget = Budget(caps, journal.spent())
        pace = Pace(
            concurrency=concurrency,
            alone_first=teacher.book is None,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            chance=random.Random(),
            clock=time.monotonic,
        )
        found: Found | None = None

        def ask(plan: Plan, teacher: Teacher) -> Stop | None:
            nonlocal found, prices
            # Where all is answered, nobody need be there any more.
            if found is None and teacher.book is None and plan.settled() < plan.requests:
                found = asyncio.run(preflight.probe(teacher))
                prices = preflight.agreed(prices, found, teacher.endpoint)
                wants_cap(prices, cap, prompts_file, teacher.asking)
                settings_module.check_cap(caps, prices)
            asked = asking.ask(
                teacher,
                journal=journal,
                plan=plan,
                budget=budget,
                pace=pace,
                prices=prices,
                judge=judge,
                patience=Patience(attempts=max_attempts, max_blocked=max_blocked),
            )
            try:
                return asyncio.run(asked)
            except asyncio.CancelledError:  # by the second Ctrl-C
                raise KeyboardInterrupt from None

        stop, wider = ask(plan, teacher), None
        if stop is None and retry_max_tokens and teacher.book is None:
            wider = longer.plan(journal, plan, teacher, prompts_file, retry_max_tokens)
            if wider is not None:
                say(f"collect: {wider[0].requests} answers were cut; asking for longer ones")
                stop = ask(*wider)
        return _closed(stop, journal, plan, teacher, wider, budget, found, out, may_fail)


def _closed(
    stop: Stop | None,
    journal: Journal,
    plan: Plan,
    teacher: Teacher,
    wider: tuple[Plan, Teacher] | None,
    budget: Budget,
    found: Found | None,
    out: Path,
    may_fail: float,
) -> dict[str, Any]:
    """The end of a run: the books must balance, then the rows are written or the stop explained."""
    counts, spent = plan.counts(), journal.spent()
    if spent != budget.spent:
        raise RunFolderError(
            f"the journal's sums ({spent}) are not those of this run ({budget.spent}); another "
            "program changed it. Move it away and collect again"
        )
    orphaned = export.write_orphans(out, plan)
    export.write_unanswered(out, plan)
    if stop is not None and counts.ok < counts.planned:
        if stop.cause is Cause.INTERRUPTED:
            raise KeyboardInterrupt
        if stop.cause is Cause.TERMINATED:
            say("collect: stopped by SIGTERM; the same command goes on from here")
            raise SystemExit(TERMINATED)
    too_many = counts.failed > may_fail * counts.planned
    if stop is not None or too_many or counts.orphaned or counts.pending:
        raise TeacherError(
            explain.stopped(
                stop,
                counts=counts,
                failures=plan.failures(),
                teacher=teacher,
                budget=budget,
                hint=preflight.models_hint(teacher.asking, found or Found()),
                where=str(out / journal_file.NAME),
            )
        )
    if left := counts.failed + counts.blocked:
        why = f" ({counts.blocked} by the content policy)" if counts.blocked else ""
        say(
            f"collect: {left} of {counts.planned} prompts are left without an answer{why}: "
            f"{out / export.UNANSWERED}"
        )
    totals = export.write(out, plan, teacher, wider)
    if totals.rows != counts.ok:
        raise RunFolderError(f"{totals.rows} rows were written of {counts.ok} answers")
    if teacher.asking.top_logprobs and totals.with_logprobs < counts.ok:
        say(
            f"collect: {counts.ok - totals.with_logprobs} of {counts.ok} answers came without "
            "usable log-probabilities; their tokens will be learnt by cross-entropy alone"
        )
    if totals.reasoned:
        say(
            f"collect: {totals.reasoned} of {counts.ok} answers began with the model's reasoning, "
            "which is no part of them (the journal keeps it). Most servers can leave it out or do "
            "without, see teacher.extra_body"
        )
    return {
        **{name: asdict(counts)[name] for name in ("planned", "ok", "failed", "blocked")},
        "orphaned": orphaned,
        "requests": spent.requests,
        "cost_ticks": spent.ticks,
        **totals.plain(),
    }


def fingerprint(prompts_file: Path, teacher: Teacher) -> str:
    """Of all that the requests are made of."""
    if not prompts_file.exists():
        raise DataError(f"{prompts_file}: no such file")
    made_of = {
        "prompts": storage.file_sha256(prompts_file),
        "endpoint": teacher.endpoint,
        "asking": asdict(teacher.asking),
    }
    return canonical_json(made_of)


def _tell_orphans(prompts: Sequence[str]) -> None:
    if prompts:
        shown = ", ".join(prompts[:5]) + (" ..." if len(prompts) > 5 else "")
        say(
            f"collect: {len(prompts)} requests were in flight when an earlier run ended and may "
            f"have been paid: {shown} (all of them in {export.ORPHANS} at the end)"
        )
