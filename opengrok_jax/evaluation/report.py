"""The report: one self-contained page, from what was asked to what was learned."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import storage, tokenizer
from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.evaluation import charts
from opengrok_jax.masked_file import read_masked
from opengrok_jax.progress import track
from opengrok_jax.records import Example, MaskedExample, Prompt, Score

AXES = ("topic", "platform", "style", "hardness")
REASONS_SHOWN = 12
LOSS_OF = {"token": "response token", "example": "response"}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of text that one or several tokens cover, as the page shows it."""

    text: str
    role: str
    visible: bool
    keep_prob: float
    tip: str


def run(
    *,
    prompts_file: Path,
    curation: Path,
    masked_file: Path,
    training: Path,
    evaluation: Path,
    out: Path,
    title: str = "OpenGrok-JAX run",
    examples: int = 8,
) -> dict:
    """Writes `out/report.html`, a page without scripts or outside assets.

    Args:
      prompts_file: prompts.jsonl of the plan.
      curation, training, evaluation: folders of these stages.
      masked_file: masked.parquet.
      title: heading of the page.
      examples: how many examples to show token by token.

    Raises:
      ConfigError: `examples` is negative.
      DataError: a file of an earlier stage is missing or malformed.
    """
    if examples < 0:
        raise ConfigError(f"report.examples is {examples}; expected 0 or more")
    with needs_extra("evaluate"):
        import jinja2
    with track("report", total=5, unit="sections") as advance:
        prompts = storage.read_records(prompts_file, Prompt)
        asked = {"prompts": len(prompts), "maps": coverage(prompts)}
        advance(1)
        kept = storage.read_records(curation / "kept.jsonl", Example)
        rejected = list(storage.read_jsonl(curation / "rejected.jsonl"))
        keeping = {"kept": len(kept), "rejected": len(rejected), "reasons": reasons(rejected)}
        advance(1)
        masked, provenance = read_masked(masked_file)
        corpus = storage.read_json(masked_file.parent / "corpus.json")
        seeing = {
            "corpus": corpus,
            "rates": rates(corpus),
            "examples": shown(kept, masked, provenance, examples),
        }
        advance(1)
        summary = storage.read_json(training / "summary.json")
        metrics = list(storage.read_jsonl(training / "metrics.jsonl"))
        learning = {
            "summary": summary,
            "of": LOSS_OF[summary["normalize"]],
            "chart": _loss_chart(metrics, summary),
        }
        advance(1)
        results = storage.read_json(evaluation / "scores.json")
        scores = [Score(**row) for row in results["scores"]]
        tasks = by_task(scores, results.get("comparisons", []))
        advance(1)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        asked=asked,
        keeping=keeping,
        seeing=seeing,
        learning=learning,
        tasks=tasks,
        notes=results["notes"],
        provenance=json.dumps(provenance, indent=1, sort_keys=True, ensure_ascii=False),
        sources=sorted({e.source for e in kept}),
    )
    storage.write_text(out / "report.html", page)
    return {"page": "report.html", "bytes": len(page.encode())}


def coverage(prompts: list[Prompt]) -> list[dict[str, Any]]:
    """Heat maps of intent against each other axis: rows, columns, counts, the largest count.

    Axes that no prompt uses are left out, and so are intents that do not use the axis; "" on an
    axis in use reads "any" and does not count for the largest.
    """
    maps = []
    for axis in AXES:
        counts = Counter((p.cell.intent, getattr(p.cell, axis)) for p in prompts)
        values = sorted({value for _, value in counts} - {""})
        intents = list(dict.fromkeys(p.cell.intent for p in prompts))
        intents = [i for i in intents if any(counts[i, value] for value in values)]
        if not intents:
            continue
        columns = values + ([""] if any(counts[i, ""] for i in intents) else [])
        rows = [[counts[intent, value] for value in columns] for intent in intents]
        maps.append(
            {
                "axis": axis,
                "columns": [value or "any" for value in columns],
                "rows": list(zip(intents, rows, strict=True)),
                "largest": max(counts[i, value] for i in intents for value in values),
                "empty": sum(not counts[i, value] for i in intents for value in values),
            }
        )
    return maps


def reasons(rejected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each reason with its count and its first row, the commonest first."""
    counts = Counter(row["reason"] for row in rejected)
    first = {row["reason"]: row for row in reversed(rejected)}
    return [
        {
            "reason": reason.replace("_", " "),
            "count": count,
            "detail": first[reason]["detail"],
            "response": first[reason]["response"],
        }
        for reason, count in counts.most_common(REASONS_SHOWN)
    ]


def rates(corpus: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name, tokens and visible share of prompts, responses, and each part of speech."""
    rows = [(role, corpus["by_role"][role]) for role in ("prompt", "response")]
    tags = sorted(corpus["by_upos"].items(), key=lambda row: -row[1]["tokens"])
    return [(name, row) for name, row in rows + tags if row["tokens"]]


def shown(
    kept: list[Example], masked: Sequence[MaskedExample], provenance: dict[str, Any], count: int
) -> list[dict[str, Any]]:
    """Examples token by token, from as many intents as there is room for."""
    encoder = tokenizer.load(provenance["tokenizer"])
    places = {row.id: at for at, row in enumerate(masked)}
    queues: dict[str, list[Example]] = {}
    for example in kept:
        if example.id in places:
            queues.setdefault(example.cell.intent, []).append(example)
    chosen: list[Example] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    result = []
    for example in chosen:
        row = masked[places[example.id]]
        encoded = encoder.encode_chat(example.messages, example.response)
        hideable = ~encoded.special & (row.roles != tokenizer.TEMPLATE)
        result.append(
            {
                "id": example.id,
                "intent": example.cell.intent.replace("_", " "),
                "where": " · ".join(filter(None, (example.cell.topic, example.cell.platform))),
                "split": example.split,
                "kept": float(row.key_mask[hideable].mean()) if hideable.any() else 1.0,
                "tokens": len(row.tokens),
                "pieces": pieces(encoded, row),
            }
        )
    return result


def pieces(encoded: tokenizer.Encoded, row: MaskedExample) -> list[Piece]:
    """The rendered chat cut where its tokens are; bytes of one character are one piece.

    text      H  i     👍          !
    spans   (0,2)    (3,4)x4     (4,5)
    pieces    Hi      👍           !
    """
    result = []
    start = 0
    while start < len(encoded.tokens):
        low, high = encoded.spans[start]
        stop = start + 1
        while stop < len(encoded.tokens) and encoded.spans[stop][0] < high:
            high = max(high, encoded.spans[stop][1])
            stop += 1
        part = slice(start, stop)
        next_low = encoded.spans[stop][0] if stop < len(encoded.tokens) else len(encoded.text)
        factors = " · ".join(
            f"{name} {float(np.max(getattr(row, key)[part])):.2f}"
            for name, key in (
                ("keep", "keep_prob"),
                ("tf-idf", "tfidf"),
                ("POS", "pos"),
                ("dependency", "dep"),
                ("random", "random"),
            )
        )
        visible = bool(row.key_mask[part].any())
        special = bool(encoded.special[start])
        role = "special" if special else tokenizer.ROLES[int(row.roles[start])]
        result.append(
            Piece(
                text=encoded.text[low : max(high, next_low)],
                role=role,
                visible=visible,
                keep_prob=float(row.keep_prob[part].max()),
                tip="always visible" if special else f"{factors}{'' if visible else ' · hidden'}",
            )
        )
        start = stop
    return result


def _loss_chart(metrics: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    return charts.loss_curves(
        [row["step"] for row in metrics],
        [row["train_loss"] for row in metrics],
        [(row["step"], row["valid_loss"]) for row in metrics if row["valid_loss"] is not None],
        summary["best_step"],
        summary["stopped_early"],
        LOSS_OF[summary["normalize"]],
    )


def by_task(scores: list[Score], comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each task and metric its scores, its chart, and what the comparisons say, in words."""
    tasks = []
    for name, metric in dict.fromkeys((score.task, score.metric) for score in scores):
        rows = [score for score in scores if (score.task, score.metric) == (name, metric)]
        said = [c["verdict"] for c in comparisons if (c["task"], c["metric"]) == (name, metric)]
        tasks.append(
            {
                "name": name,
                "metric": rows[0].metric.replace("_", " "),
                "rows": rows,
                "chart": charts.intervals(rows),
                "reading": ". ".join(said) + "." if said else reading(rows),
            }
        )
    return tasks


def reading(rows: list[Score]) -> str:
    """What the best student's interval says against each floor, in words.

    >>> def score(who, value, low, high):
    ...     return Score(task="t", metric="m", predictor=who, value=value, low=low, high=high,
    ...                  rows=9)
    >>> reading([score("student (likelihood)", 0.5, 0.4, 0.6), score("majority", 0.2, 0.2, 0.2),
    ...          score("tf-idf + logistic regression", 0.55, 0.5, 0.7)])
    'The student (likelihood) is above majority and within the noise of tf-idf + logistic \
regression.'
    """
    students = [row for row in rows if row.predictor.startswith("student")]
    floors = [row for row in rows if not row.predictor.startswith("student")]
    if not students or not floors:
        return ""
    best = max(students, key=lambda row: row.value)
    said = []
    for floor in floors:
        if best.low > floor.high:
            place = "above"
        elif best.high < floor.low:
            place = "below"
        else:
            place = "within the noise of"
        said.append(f"{place} {floor.predictor}")
    return f"The {best.predictor} is {' and '.join(said)}."
