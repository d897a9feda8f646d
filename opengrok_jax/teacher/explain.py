"""Why a collection stopped, in one line for the user: what came, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from opengrok_jax.teacher import export, money
from opengrok_jax.teacher.budget import Budget
from opengrok_jax.teacher.journal_plan import Counts
from opengrok_jax.teacher.outcome import Kind
from opengrok_jax.teacher.rules import BLOCKED_ROWS, Cause, Stop
from opengrok_jax.teacher.settings import Teacher


def stopped(
    stop: Stop | None,
    *,
    counts: Counts,
    failures: Iterable[tuple[str, str, str]],
    teacher: Teacher,
    budget: Budget,
    hint: str,
    where: str,
) -> str:
    """The message; `stop` None is a run that asked all and did not get all.

    Args:
      failures: as `Plan.failures` tells them.
      hint: what the preflight has to say on the model.
      where: the journal's path.
    """
    kept = f"All {counts.ok} answers so far are kept in {where}; the same command asks for the rest"
    if stop is None:
        return f"{_failed(counts, failures)}. {kept} again"
    if stop.cause is Cause.CAP:
        return f"{_cap(stop.detail, counts, budget)}. {kept}"
    if stop.cause in (Cause.INTERRUPTED, Cause.TERMINATED):
        return f"stopped; what was in flight was awaited. {kept}"
    if stop.cause is Cause.FIRST:
        return f"{teacher.endpoint}: {stop.detail}. {kept}"
    outcome = stop.outcome
    assert outcome is not None
    detail = _line(outcome.detail)
    what = f"{outcome.reason}: {detail}" if detail else outcome.reason
    if detail.startswith(outcome.reason):
        what = detail
    said = f"{teacher.endpoint} stopped the collection ({what})"
    if stop.cause is Cause.PRICE:
        return (
            f"{teacher.endpoint}: the last 50 answers cost more than 1.5 times what the prices in "
            f"the config say; set teacher.price_input and teacher.price_output anew. {kept}"
        )
    if stop.cause is Cause.LONG_WAIT:
        return f"{said}: it asks to wait {outcome.wait_sec or 0:.0f} s. {kept} then"
    if stop.cause is Cause.SLOW:
        return (
            f"{said}: it let nothing through for a while; lower teacher.concurrency or set "
            f"teacher.requests_per_minute. {kept}"
        )
    if stop.cause is Cause.BLOCKED:
        return (
            f"{said}: its content policy refused more than teacher.max_blocked allows of the last "
            f"{BLOCKED_ROWS} prompts ({counts.blocked} in all), and such answers may be charged; "
            f"see {export.UNANSWERED}, change the prompts, or set teacher.max_blocked higher to go "
            f"on. {kept}"
        )
    if stop.cause is Cause.DOWN:
        return f"{said}: prompt after prompt failed. {kept} once it is up again"
    return f"{said}: {_refused(outcome.kind, detail, teacher, hint)}. {kept} after that"


def _refused(kind: Kind, detail: str, teacher: Teacher, hint: str) -> str:
    model = teacher.asking.model
    if kind is Kind.OUT_OF_MONEY:
        return "the account is out of money: fill it up, or raise its limit"
    if kind is Kind.WRONG_MODEL:
        served = detail.rpartition(" ")[2]
        return (
            "its answer is kept apart; if that is the model you want, set "
            f"teacher.served_as=('{served}',)" + (f", or else: {hint}" if hint else "")
        )
    if kind is Kind.RETIRED:
        return f"choose another teacher.model than {model}" + (f" ({hint})" if hint else "")
    if hint:
        return hint
    key = f"the key in {teacher.key_env}" if teacher.key_env else "teacher.api_key_env (none named)"
    return f"check {key}, teacher.base_url, teacher.model ({model}) and what it was asked with"


def _failed(counts: Counts, failures: Iterable[tuple[str, str, str]]) -> str:
    reasons: Counter[str] = Counter()
    firsts: dict[str, tuple[str, str]] = {}
    for prompt_id, reason, detail in failures:
        reasons[reason] += 1
        firsts.setdefault(reason, (prompt_id, detail))
    reason, times = reasons.most_common(1)[0]
    prompt_id, detail = firsts[reason]
    return (
        f"{counts.failed} of {counts.planned} prompts got no answer; commonest reason: {reason} "
        f"({times}), as for prompt {prompt_id}: {_line(detail) or reason} (all of them in "
        f"{export.UNANSWERED}; teacher.may_fail={_share(counts)} goes on without them)"
    )


def _line(words: str) -> str:
    """An endpoint's words without their line breaks: a message is one line."""
    return " ".join(words.split())


def _share(counts: Counts) -> str:
    """The share that failed, rounded up to a thousandth."""
    return f"{-(-1000 * counts.failed // counts.planned) / 1000:g}"


def _cap(which: str, counts: Counts, budget: Budget) -> str:
    spent, caps = budget.spent, budget.caps
    if which == "cap":
        reached = f"{money.usd(spent.ticks, 10)} of {money.usd(caps.ticks or 0, 10)}"
    elif which == "cap_tokens":
        reached = f"{spent.tokens} of {caps.tokens} tokens"
    else:
        reached = f"{spent.requests} of {caps.requests} requests"
    left = counts.planned - counts.ok - counts.blocked
    return (
        f"teacher.{which} is reached: {reached} are spent or reserved, and one more request could "
        f"go above it; {left} of {counts.planned} prompts have no answer yet. Raise it to go on"
    )
