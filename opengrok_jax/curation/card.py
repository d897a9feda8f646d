"""The data card: what a set of kept answers is, told by the files of its run and not by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opengrok_jax import diversity, records, storage
from opengrok_jax.curation.review import agreement, bound, decision_log, verbs
from opengrok_jax.records import Cell, Example
from opengrok_jax.rights import TERMS, Source, bare

TICKS = 10**10  # in a US dollar
WORDS = 100_000  # that `diversity.distinct` looks at, so that sets of other sizes compare


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the card tells.

    Attributes:
      sources: rows kept of each.
      answers, cost: of each source, kept or not: how many, and ticks (None: none was told).
      asked: counts of `collect`; curation: counts of `curate`.
      planned: cells of all prompts; kept: cells of the kept rows.
      figures: `diversity.figures` of the kept answers.
      balance: as in balance.json.
      review: lines on what people decided; empty where nobody did.
      first, last: when the first and the last answer was received, Unix seconds; 0.0 unknown.
    """

    sources: Mapping[Source, int]
    answers: Mapping[Source, int]
    cost: Mapping[Source, int | None]
    asked: dict[str, Any]
    curation: dict[str, Any]
    planned: Sequence[Cell]
    kept: Sequence[Cell]
    figures: dict[str, Any]
    balance: dict[str, Any]
    review: Sequence[str] = field(default=())
    first: float = 0.0
    last: float = 0.0


def gather(run_dir: Path, sources: Mapping[Source, int]) -> Facts:
    """Reads them from the folders of a run.

    Raises:
      DataError: a file is missing or malformed.
    """
    kept = storage.read_records(run_dir / "curation" / "kept.jsonl", Example)
    answers: Counter[Source] = Counter()
    cost: dict[Source, int | None] = {}
    times = []
    for line in storage.read_jsonl(_asked(run_dir, "teacher", "responses.jsonl")):
        reply = records.from_json(records.Response, line)
        source = Source(
            reply.source, bare(reply.endpoint), reply.model_asked, reply.model_served, reply.rights
        )
        answers[source] += 1
        told = reply.cost_ticks if reply.cost_ticks >= 0 else None
        before = cost.get(source)
        cost[source] = before if told is None else told + (before or 0)
        times += [reply.received_at] if reply.received_at else []
    return Facts(
        sources=sources,
        answers=answers,
        cost=cost,
        asked=_counts(run_dir / "teacher"),
        curation=_counts(run_dir / "curation"),
        planned=[
            records.from_json(Cell, line["cell"])
            for line in storage.read_jsonl(_asked(run_dir, "prompts", "prompts.jsonl"))
        ],
        kept=[example.cell for example in kept],
        figures=diversity.figures([example.response for example in kept], words=WORDS),
        balance=storage.read_json(run_dir / "curation" / "balance.json"),
        review=_review(run_dir),
        first=min(times, default=0.0),
        last=max(times, default=0.0),
    )


def _asked(run_dir: Path, folder: str, name: str) -> Path:
    """The file with what the refinement asked beside the plan; without that stage, the plan's."""
    refined = run_dir / "refinement" / name
    return refined if refined.exists() else run_dir / folder / name


def _counts(folder: Path) -> dict[str, Any]:
    manifest = storage.read_manifest(folder)
    return dict(manifest["counts"]) if manifest else {}


def _review(run_dir: Path) -> list[str]:
    """What people decided and how far it can be trusted, without their names."""
    decisions = decision_log.read(run_dir / verbs.DECISIONS)
    if not decisions:
        return []
    rows = verbs.verdicts(run_dir)
    there = {(row.prompt_id, row.body_sha) for row in rows}
    settled = decision_log.outcomes(decisions)
    said = Counter(d.decision for key, d in settled.items() if key in there)
    people = len({decision.reviewer for decision in decisions})
    lines = [
        f"{said['accept']} answers accepted, {said['edit']} edited and {said['reject']} rejected "
        f"by {people} {'person' if people == 1 else 'people'}."
    ]
    for found in agreement.agreements(decisions):
        who = "One person's two looks" if found.first == found.second else "Two people"
        kappa = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
        lines.append(f"{who} agreed on {found.same} of {found.rows} answers (kappa {kappa}).")
    drawn = verbs.drawn_for(run_dir, decisions, {})
    lines.append(bound.statement(verbs.audited(rows, decisions, drawn)))
    return lines


# ---- the page ---------------------------------------------------------------------------------


def render(facts: Facts, *, title: str, licence: str) -> str:
    """The card in Markdown."""
    parts = [
        f"# {_plain(title)}",
        _summary(facts, licence),
        "## Sources and rights",
        _sources(facts),
        "## How it was made",
        _made(facts),
        "## What it covers",
        _coverage(facts),
        "## Balance",
        _balance(facts),
        "## People's review",
        "\n".join(f"- {line}" for line in facts.review)
        or "Nobody has reviewed these answers: nothing is known about how many harmful ones the "
        "rules let through.",
        "## Personal data",
        _personal(facts),
        "## What it must not be used for",
        _bars(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(facts: Facts, licence: str) -> str:
    kinds = {source.kind for source in facts.sources}
    wrote = (
        "The answers were written by machines (`synthetic` is true in every such row)."
        if kinds != {"labelled"}
        else "The answers are the users' own labels; no machine wrote them."
    )
    if kinds > {"labelled"}:
        wrote += " Those of the source `labelled` are labels that people gave."
    when = ""
    if facts.first:
        days = sorted({_day(facts.first), _day(facts.last)})
        when = f"\n- Answers received: {' to '.join(days)}"
    return (
        f"Questions about social-media posts, and answers to them, for fine-tuning. {wrote}\n\n"
        f"- Rows: {sum(facts.sources.values())}\n"
        f"- Licence: {_plain(licence) or 'none is stated; without one nobody else may use it'}"
        f"{when}"
    )


def _sources(facts: Facts) -> str:
    rows = [
        (
            source.kind,
            source.endpoint,
            source.model_asked,
            source.model_served,
            source.rights,
            facts.sources[source],
            facts.answers.get(source, 0),
            _dollars(facts.cost.get(source)),
        )
        for source in sorted(facts.sources)
    ]
    head = (
        "kind", "endpoint", "model asked", "model served", "rights as declared", "rows", "answers",
        "cost of the answers",
    )  # fmt: skip
    said = (
        "The rights are what the person who collected the answers declared; each row carries its "
        "own. Endpoints are written without credentials."
    )
    if any(source.xai for source in facts.sources):
        said += (
            f" Some answers come from xAI or a model called Grok. {TERMS}; the agreement named "
            "above is the collector's claim."
        )
    return f"{_table(head, rows)}\n\n{said}"


def _made(facts: Facts) -> str:
    names = ("planned", "ok", "failed", "blocked", "orphaned")
    asked = ", ".join(f"{facts.asked[n]} {n}" for n in names if n in facts.asked)
    lines = [f"- Requests: {asked or 'not told'}"]
    got = facts.curation
    total = got.get("kept", 0) + got.get("rejected", 0)
    by = f", by rules `{got['rules']}`" if "rules" in got else ""
    lines.append(f"- Curation kept {got.get('kept', 0)} of {total} answers{by}")
    if reasons := got.get("reasons"):
        lines.append("- Rejected: " + ", ".join(f"{n} {r}" for r, n in reasons.items()))
    costs = [c for c in facts.cost.values() if c is not None]
    lines.append(f"- Cost of all answers, kept or not: {_dollars(sum(costs) if costs else None)}")
    return "\n".join(lines)


def _coverage(facts: Facts) -> str:
    axes = diversity.axes(facts.kept)
    planned = diversity.axes(facts.planned)
    rows = [
        (axis, found["values"], planned[axis]["values"], f"{found['balance']:.3f}", found["fewest"])
        for axis, found in axes.items()
        if planned[axis]["values"]
    ]
    head = ("axis", "values", "planned", "balance (1: all as often)", "rows of the rarest")
    cells = diversity.coverage(facts.kept, facts.planned)
    figures = facts.figures
    return (
        f"{_table(head, rows)}\n\n"
        f"Of the cells that were planned, {cells:.1%} hold a row. Of the answers' runs of one, two "
        f"and three words, {figures['distinct_1']:.3f}, {figures['distinct_2']:.3f} and "
        f"{figures['distinct_3']:.3f} are different ones (first {WORDS:,} words); self-BLEU is "
        f"{figures['self_bleu']:.3f} and the Vendi score {figures['vendi']:.1f}, of at most 500 "
        "answers drawn by chance."
    )


def _balance(facts: Facts) -> str:
    rows = []
    for topic, found in facts.balance["topics"].items():
        tones = [f"{found['sentiment'].get(t, 0):.0%}" for t in ("positive", "neutral", "negative")]
        sides = [f"{found['stance'].get(s, 0):.0%}" for s in ("for", "undecided", "against")]
        rows.append((topic or "(none)", found["kept"], *tones, *sides))
    head = ("topic", "rows", "positive", "neutral", "negative", "for", "undecided", "against")
    text = _table(head, rows) + (
        "\n\nBy the answer's own label where one was asked for, else by counting the words of a "
        "small lexicon, which sees neither negation nor irony."
    )
    gaps = [group for group in facts.balance["groups"] if group["flagged"]]
    if gaps:
        head = ("group", "rows", "kept", "kept of the rest", "95 % interval of the share kept")
        text += "\n\nThe checks hit these rows more, or less, often than chance explains:\n\n"
        text += _table(
            head,
            [
                (g["group"], g["rows"], f"{g['rate']:.1%}", f"{g['rest']:.1%}",
                 f"{g['low']:.1%} to {g['high']:.1%}")
                for g in gaps
            ],
        )  # fmt: skip
    else:
        text += (
            f"\n\nAmong {len(facts.balance['groups'])} groups of people and dialects that the rows "
            "name or show, none was kept more, or less, often than chance explains."
        )
    return text


def _personal(facts: Facts) -> str:
    found = facts.curation.get("pii", {})
    masked = ", ".join(f"{count} {kind}" for kind, count in found.items())
    return (
        f"Replaced by placeholders in the kept rows: {masked or 'nothing was found'}. Found by "
        "rules: e-mail addresses, phone numbers, card numbers and IBANs with a valid checksum, IP "
        "addresses, handles, secrets in web addresses. **Names of people and street addresses are "
        "not found** and may be in the text."
    )


def _bars(facts: Facts) -> str:
    lines = [
        "Training beyond what the rights above allow, source by source.",
        "Passing the answers off as written by people.",
        "Measuring public opinion: who is heard in it was planned, not sampled.",
        "Deciding about single people.",
        "Evaluating a model that was trained on it.",
    ]
    if any(source.xai for source in facts.sources):
        lines.append('Calling it, or a model trained on it, "Grok" or "by xAI".')
    else:
        lines.append(
            'Calling it, or a model trained on it, by the teacher\'s name. It is not "Grok".'
        )
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(str(c)) for c in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that is only text in a Markdown cell, whatever a config or an endpoint called itself."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "`", "*", "_", "[", "]", "<", ">", "#"):
        flat = flat.replace(sign, f"\\{sign}")
    return flat


def _dollars(ticks: int | None) -> str:
    """Ticks as US dollars, exactly.

    >>> _dollars(12_345_000_000), _dollars(0), _dollars(None)
    ('1.2345 USD', '0 USD', 'not told')
    """
    if ticks is None:
        return "not told"
    whole, rest = divmod(ticks, TICKS)
    return f"{whole}.{rest:010d}".rstrip("0").rstrip(".") + " USD"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
