"""One answer, judged: personal data masked, checked, sketched; in one process or in several.

Personal data is masked first, in prompt and answer alike, so that no file of this room holds any
and all checks see what the student would see.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from opengrok_jax import records
from opengrok_jax.curation import balance, pii
from opengrok_jax.curation.checks import HUMAN_SOURCES, judge
from opengrok_jax.curation.duplicates import sketch
from opengrok_jax.curation.looks import FINAL, Settings
from opengrok_jax.records import Prompt, Provenance, Response, Verdict

Pair = tuple[Prompt, Response]
CHUNK = 256  # rows handed to a process at once
WORTH = 4000  # rows from which several processes are quicker than one
TOLD = tuple(
    {f.name for f in dataclasses.fields(Response)}.intersection(
        f.name for f in dataclasses.fields(Provenance)
    )
)  # what a reply tells of its making


@dataclass(frozen=True, kw_only=True)
class How:
    """What every row is judged by; see `curate.run`."""

    settings: Settings
    mask_handles: bool
    rules: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A row as the rules alone see it, the other rows apart.

    Attributes:
      verdict: `keep` as if there were no other row and no person.
      response, provenance: for the example that it may become; the text masked.
      sketch: as `duplicates.sketch` makes it.
      marks: as `balance.marks` makes them.
    """

    verdict: Verdict
    response: Response
    provenance: Provenance
    sketch: np.ndarray
    marks: tuple[str, ...]


def judged(pairs: Iterable[Pair], how: How, workers: int) -> Iterator[Judged]:
    """The pairs in order, judged; `workers` processes, 1 stays in this one."""
    if workers <= 1:
        for pair in pairs:
            yield one(*pair, how)
        return
    pairs = iter(pairs)
    # Spawned, not forked: whoever calls may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(how,)) as pool:
        running: deque[Future[list[Judged]]] = deque()
        try:
            while chunk := list(islice(pairs, CHUNK)):
                running.append(pool.submit(_chunk, chunk))
                if len(running) > 3 * workers:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def workers_for(rows: int) -> int:
    """How many processes pay for so many rows."""
    return 1 if rows < WORTH else min(8, len(os.sched_getaffinity(0)) if _AFFINITY else 2)


_AFFINITY = hasattr(os, "sched_getaffinity")  # not on macOS
_how: How | None = None


def _begin(how: How) -> None:
    global _how
    _how = how


def _chunk(pairs: list[Pair]) -> list[Judged]:
    assert _how is not None
    return [one(*pair, _how) for pair in pairs]


def one(prompt: Prompt, response: Response, how: How) -> Judged:
    """One pair, judged."""
    prompt, response, found = masked(prompt, response, how.mask_handles)
    scores, findings = judge(prompt, response, how.settings)
    certain = [f for f in findings if f.certain]
    first = certain[0] if certain else None
    verdict = Verdict(
        prompt_id=prompt.id,
        body_sha=records.body_sha(response.text),
        keep=first is None,
        reason=first.reason if first else "",
        check=first.check if first else "",
        detail=first.detail if first else "",
        flagged=first is not None and not any(f.reason in FINAL for f in certain),
        uncertain=first is None and bool(findings),
        findings=tuple(findings),
        scores=scores,
        masked={str(kind): count for kind, count in sorted(found.items())},
        rules=how.rules,
        messages=prompt.messages,
        posts=prompt.posts,
        label=prompt.label,
        response=response.text,
        cell=prompt.cell,
    )
    provenance = Provenance(
        **{name: getattr(response, name) for name in TOLD},
        template=prompt.template,
        techniques=prompt.techniques,
        rules=how.rules,
        synthetic=response.source not in HUMAN_SOURCES,
    )
    # Labels that people gave are alike on purpose, long ones too: none repeats another.
    told = "" if response.source in HUMAN_SOURCES else response.text
    return Judged(
        verdict=verdict,
        response=response,
        provenance=provenance,
        sketch=sketch(prompt.cell.intent, told),
        marks=balance.marks(prompt, response),
    )


def masked(
    prompt: Prompt, response: Response, handles: bool
) -> tuple[Prompt, Response, Counter[str]]:
    """The pair with personal data replaced everywhere in it, the label included.

    A label or an entity that quotes the post must go on quoting it. What was masked in messages
    and answer is counted by kind.
    """
    found: Counter[str] = Counter()
    messages = []
    for message in prompt.messages:
        text, kinds = pii.mask(message.content, handles)
        found += kinds
        messages.append(dataclasses.replace(message, content=text) if kinds else message)
    text, kinds = pii.mask(response.text, handles)
    found += kinds
    prompt = dataclasses.replace(
        prompt,
        messages=tuple(messages),
        # Quoted in the messages, and counted there.
        posts=tuple(pii.mask(post, handles)[0] for post in prompt.posts),
        label=pii.mask(prompt.label, handles)[0],
    )
    return prompt, dataclasses.replace(response, text=text), found
