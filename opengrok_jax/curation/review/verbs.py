"""Human review: a page for one person, files for others, and what may be said afterwards.

curation/verdicts.jsonl  ->  queue  ->  page or files  ->  review/decisions.jsonl  ->  curate

RUN/review/   decisions.jsonl   what was decided; it only grows
              draw.json         how the queue was drawn, so that it is the same next time
              lock              held by the one process that writes here
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.curation.review import agreement, bound, decision_log, exchange, queueing
from opengrok_jax.curation.review.bound import Audit
from opengrok_jax.curation.review.queueing import Draw
from opengrok_jax.curation.review.server import Server
from opengrok_jax.curation.review.session import Session
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.progress import say
from opengrok_jax.records import Decision, Verdict

VERDICTS = Path("curation") / "verdicts.jsonl"
DRAW = Path(decision_log.FOLDER) / "draw.json"
DECISIONS = Path(decision_log.FOLDER) / decision_log.FILE


def serve(
    *,
    run: Path,
    reviewer: str,
    port: int = 0,
    draw: dict[str, Any] | None = None,
    ready: Callable[[str], None],
) -> int:
    """Serves the page until it is interrupted (Ctrl-C); answers how many answers are still open.

    Args:
      run, reviewer, port, draw: as in `serving`.
      ready: is called with the page's address once it can be opened.

    Raises:
      UserError: as `serving`.
    """
    with serving(run=run, reviewer=reviewer, port=port, draw=draw or {}) as server:
        ready(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        state = server.session.state()
        return state["total"] - state["done"]


@contextlib.contextmanager
def serving(*, run: Path, reviewer: str, port: int = 0, draw: dict[str, Any]) -> Iterator[Server]:
    """The page's server, listening; `serve_forever` answers.

    Args:
      run: the run folder.
      reviewer: whose decisions these are.
      port: 0 takes any that is free.
      draw: fields of `queueing.Draw` that shall differ from before.

    Raises:
      ConfigError: the reviewer's name, the draw or the port cannot be used.
      DataError: there are no verdicts, or a file is malformed.
      RunFolderError: another process reviews this run.
    """
    _check_name(reviewer)
    rows = verdicts(run)
    with decision_log.opened(run) as log:
        if log.torn:
            say(f"review: cut off {log.torn} bytes of a decision that was never confirmed")
        earlier = decision_log.read(log.path)
        drawn = drawn_for(run, earlier, draw)
        storage.write_json(run / DRAW, dataclasses.asdict(drawn))
        others = decision_log.outcomes(d for d in earlier if d.reviewer != reviewer)
        queue = queueing.queue(queueing.strata(rows, drawn), drawn, others)
        session = Session(queue, log, reviewer, earlier)
        try:
            server = Server(session, port)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port} cannot be used: {error}; --port 0 takes any") from None
        try:
            with server:
                yield server
        finally:
            session.close()  # before the file is


def export(*, run: Path, file: Path, draw: dict[str, Any] | None = None) -> int:
    """Writes the queue's answers, and all others with a decision; answers how many rows.

    Args:
      run: the run folder.
      file: its ending says the format.
      draw: as in `serving`.

    Raises:
      ConfigError: the file's ending names no format, or the draw cannot be used.
      DataError: there are no verdicts, or a file is malformed.
      RunFolderError: there is a `draw`, and another process reviews this run.
    """
    rows = verdicts(run)
    if draw:
        with decision_log.opened(run) as log:
            drawn = drawn_for(run, decision_log.read(log.path), draw)
            storage.write_json(run / DRAW, dataclasses.asdict(drawn))
    decisions = decision_log.read(run / DECISIONS)
    parts = queueing.strata(rows, drawn_for(run, decisions, {}))
    listed = {queueing.key(r) for r in (*parts.flagged, *parts.uncertain, *parts.sample)}
    listed |= set(decision_log.outcomes(decisions))
    # In the order of the answers, which tells nothing of why a row is there.
    return exchange.write(file, [row for row in rows if queueing.key(row) in listed], decisions)


def import_(*, run: Path, file: Path) -> exchange.Taken:
    """Takes in the decisions of a file; see `exchange.take`.

    Raises:
      ConfigError: the file's ending names no format.
      DataError: there are no verdicts, or the file is malformed; then nothing was taken in.
      RunFolderError: another process reviews this run.
    """
    rows = verdicts(run)
    with decision_log.opened(run) as log:
        return exchange.take(file, rows, log, decision_log.read(log.path))


# ---- what is known ----------------------------------------------------------------------------


def verdicts(run: Path) -> list[Verdict]:
    """The answers that curation judged.

    Raises:
      DataError: it has not, or the file is malformed.
    """
    if not (run / VERDICTS).exists():
        raise DataError(f"{run / VERDICTS}: no such file; run `opengrok curate` first")
    return storage.read_records(run / VERDICTS, Verdict)


def drawn_for(run: Path, decisions: Sequence[Decision], changes: dict[str, Any]) -> Draw:
    """How the queue is drawn: as before, but for the changes.

    Raises:
      ConfigError: another seed, after decisions were taken: the audit would be another one.
      DataError: the file is malformed.
    """
    before = {}
    if (run / DRAW).exists():
        before = storage.read_json(run / DRAW)
        names = {field.name for field in dataclasses.fields(Draw)}
        if (
            not isinstance(before, dict)
            or set(before) != names
            or not all(type(value) in (int, float) for value in before.values())
        ):
            raise DataError(f"{run / DRAW}: expected numbers, {', '.join(sorted(names))}")
    drawn = Draw(**before | changes)
    if decisions and before and drawn.seed != before["seed"]:
        raise ConfigError(
            f"--seed is {drawn.seed} and this review was drawn with {before['seed']}; another "
            "audit after decisions were taken would be no chance sample. Leave --seed out"
        )
    return drawn


def audited(rows: Iterable[Verdict], decisions: Iterable[Decision], drawn: Draw) -> Audit:
    """What the hidden audit says of the rows that nobody looked at; see `bound`."""
    parts = queueing.strata(list(rows), drawn)
    return bound.audit(
        sample=[queueing.key(row) for row in parts.sample],
        rest=[queueing.key(row) for row in parts.rest],
        marked=[queueing.key(row) for row in parts.uncertain],
        decisions=decisions,
    )


def summary(run: Path) -> list[str]:
    """Lines on what was decided, how far reviewers agree, and what may be said of the rest.

    Raises:
      DataError: there are no verdicts, or a file is malformed.
    """
    rows, decisions = verdicts(run), decision_log.read(run / DECISIONS)
    settled = decision_log.outcomes(decisions)
    there = {queueing.key(row) for row in rows}
    said = [d.decision for key, d in settled.items() if key in there]
    stale = len(settled) - len(said)
    lines = [
        f"{said.count('accept')} accepted, {said.count('edit')} edited, "
        f"{said.count('reject')} rejected"
        + (f"; {stale} on answers that changed since" if stale else "")
    ]
    for found in agreement.agreements(decisions):
        who = found.first if found.first != found.second else f"{found.first}, second look"
        other = f" and {found.second}" if found.first != found.second else ""
        kappa = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
        lines.append(f"{who}{other}: {found.same} of {found.rows} the same, kappa {kappa}")
    lines.append(bound.statement(audited(rows, decisions, drawn_for(run, decisions, {}))))
    return lines


def _check_name(reviewer: str) -> None:
    try:
        decision_log.check(
            Decision(prompt_id="", body_sha="", reviewer=reviewer, decision="skip", at="")
        )
    except DataError as error:
        raise ConfigError(f"--reviewer: {error}") from None
