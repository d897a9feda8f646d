"""The report: one self-contained page and its twin in Markdown, from a run's files alone.

Both are drawn from one account of the run, so they hold the same numbers; the page has the pictures
beside. A part of the run that is missing leaves a line that says which command makes it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import markdown, pages, storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation import (
    ablated,
    acquired,
    calibration,
    charts,
    confusion,
    mistakes,
    outcomes,
    seen,
    slices,
)
from opengrok_jax.evaluation.outcomes import METERS, Outcome
from opengrok_jax.inert import inert
from opengrok_jax.masked_file import manifest
from opengrok_jax.progress import duration, track
from opengrok_jax.records import Example, Prompt

LOSS_OF = {"token": "response token", "example": "response"}
PAGE, TWIN = "report.html", "report.md"
HERE = Path(__file__).parent


def run(
    *,
    prompts_file: Path,
    curation: Path,
    masked_file: Path,
    training: Path,
    evaluation: Path,
    question_masks: Path | None,
    unmasked: str,
    stages: Sequence[Mapping[str, Any]],
    out: Path,
    title: str = "OpenGrok-JAX run",
    examples: int = 8,
    bootstrap: int = 1000,
    seed: int = 0,
    ablation: str = "",
) -> dict[str, Any]:
    """Writes `out/report.html`, a page without scripts or outside assets, and `out/report.md`.

    Args:
      prompts_file: prompts.jsonl of the plan.
      curation, training, evaluation: folders of these stages.
      masked_file: masked.parquet.
      question_masks: the masks of evaluation/questions.jsonl; None = there are none.
      unmasked: why there are none, in words.
      stages: rows of `pipeline.status`.
      title: heading of the page.
      examples: how many training examples to show token by token.
      bootstrap, seed: resamples behind the intervals of the slices, and their seed.
      ablation: folder of a finished `opengrok ablate` that the page shows, too; "" = none.

    Raises:
      ConfigError: `examples` is negative, or `bootstrap` not positive; no ablation is there.
      DataError: a file of an earlier stage is missing or malformed.
    """
    if examples < 0 or bootstrap < 1 or seed < 0:
        raise ConfigError(
            f"report.examples is {examples}, report.bootstrap {bootstrap}, report.seed {seed}; "
            "expected 0 or more, 1 or more, 0 or more"
        )
    whole, found = outcomes.read(evaluation)
    posts = None
    if question_masks:
        chat = seen.chat_of(masked_file)
        posts = seen.Posts(evaluation / outcomes.QUESTIONS, question_masks, chat)
    kept = storage.read_records(curation / "kept.jsonl", Example)
    with track("report", total=len(found) + 1, unit="sections") as advance:
        tasks = []
        for outcome in found:
            tasks.append(_task(outcome, posts, bootstrap, seed))
            advance(1)
        account = {
            "title": title,
            "verdicts": outcomes.verdicts(found),
            "headline": outcomes.headline(outcomes.verdicts(found)),
            "tasks": tasks,
            "ablation": ablated.read(Path(ablation)) if ablation else None,
            "unmasked": unmasked,
            "api_asked": bool(whole["costs"]),
            "answer": answer,
            "marked": marked,
            "notes": whole["notes"],
            "learning": _learning(training),
            "cost": _cost(whole, stages, training, evaluation),
            **_data(prompts_file, curation, kept, masked_file, examples),
            "provenance": _provenance(kept, masked_file, stages),
        }
        advance(1)
    page = pages.render(HERE / "report.html.j2", **account)
    storage.write_text(out / TWIN, markdown.render(HERE / "report.md.j2", **account))
    storage.write_text(out / PAGE, page)
    return {"page": PAGE, "bytes": len(page.encode())}


# ---- what it learned --------------------------------------------------------------------------


def _task(outcome: Outcome, posts: seen.Posts | None, bootstrap: int, seed: int) -> dict[str, Any]:
    """All that is said of one task."""
    task = outcome.task
    texts = [p.text for p in outcome.predictions[outcome.shown[0]][0]] if outcome.shown else []
    hidden = posts.hidden(outcome) if posts and texts else None
    sliced = slices.scored(outcome, slices.kinds(texts, hidden), resamples=bootstrap, seed=seed)
    reliable = _reliable(outcome)
    return {
        "name": task.name,
        "kind": task.kind,
        "posts": len(texts),
        "shown": outcome.shown,
        "metrics": [
            {
                "name": outcomes.spelled(metric),
                "rows": rows,
                "chart": charts.intervals(rows) if metric == task.metric else "",
            }
            for metric, rows in outcome.by_metric.items()
        ],
        "compared": [c.verdict for c in outcome.comparisons],
        "groups": _by_group(outcome.groups),
        "without_leaks": outcome.without_leaks,
        "confusions": [
            (who, confusion.confusion(task, outcome.predictions[who]))
            for who in outcome.shown
            if task.kind == "label"
        ],
        "of_labels": [
            (who, confusion.of_labels(task, outcome.predictions[who]))
            for who in outcome.shown
            if task.kind in ("labels", "entities", "tags")
        ],
        "reliable": reliable,
        "reliability": charts.reliability(
            reliable, f"{task.name}: {'; '.join(f'{who} ECE {c.ece:.3f}' for who, c in reliable)}"
        )
        if reliable
        else "",
        "slices": sliced,
        "slices_chart": _slices_chart(outcome, sliced) if sliced else "",
        "mistakes": [
            (m, posts.spans(task.name, m.prediction.id, m.prediction.text) if posts else [])
            for m in mistakes.worst(outcome)
        ],
    }


def _reliable(outcome: Outcome) -> list[tuple[str, calibration.Calibration]]:
    """The calibration of those who give probabilities: the student's ways, then the best other."""
    names = [score.predictor for score in (*outcome.students, *outcome.others)]
    found = []
    for who in names:
        runs = [calibration.confidences(run) for run in outcome.predictions[who]]
        sure, right = (np.concatenate(side) for side in zip(*runs, strict=True))
        if len(sure):
            found.append((who, calibration.calibration(sure, right)))
    return found[:3]


def _by_group(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """group -> {"rows": posts, predictor: value}."""
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        table.setdefault(row["group"], {"posts": row["rows"]})[row["predictor"]] = row["value"]
    return table


def _slices_chart(outcome: Outcome, sliced: Mapping[Any, Sequence[slices.Slice]]) -> str:
    styles = dict(zip(outcome.shown, ((charts.BLUE, "o"), (charts.ORANGE, "s")), strict=False))
    rows = [
        (
            f"{name} ({found[0].posts:,} posts)",
            [
                charts.Mark(
                    value=s.value,
                    low=s.low,
                    high=s.high,
                    color=styles[s.predictor][0],
                    marker=styles[s.predictor][1],
                )
                for s in found
            ],
        )
        for (_, name), found in sliced.items()
    ]
    metric = outcomes.spelled(outcome.task.metric)
    return charts.forest(rows, metric, f"{outcome.task.name}: {metric} over kinds of posts")


def answer(value: Any) -> str:
    """Gold or an answer in words.

    >>> answer(None), answer("joy"), answer(("a", "b")), answer((("person", "Ada"),)), answer(())
    ('unreadable', 'joy', 'a, b', 'person Ada', 'none')
    """
    if value is None or isinstance(value, str):
        return "unreadable" if value is None else inert(value)
    parts = [part if isinstance(part, str) else " ".join(part) for part in value]
    return inert(", ".join(parts)) or "none"


def marked(spans: Sequence[seen.Span]) -> markdown.Source:
    """Text for Markdown, hidden stretches struck."""
    found = []
    for visible, run in itertools.groupby(spans, key=lambda span: span.visible):
        said = "".join(span.text for span in run)
        found.append(markdown.text(said) if visible else markdown.struck(said))
    return markdown.Source(" ".join(found))


# ---- how it came to be ------------------------------------------------------------------------


def _learning(training: Path) -> dict[str, Any]:
    summary = storage.read_json(training / "summary.json")
    rows = list(storage.read_jsonl(training / "metrics.jsonl"))
    evaluated = [(r["step"], r["valid_loss"]) for r in rows if r["valid_loss"] is not None]
    return {
        "summary": summary,
        "of": LOSS_OF[summary["normalize"]],
        "evaluated": evaluated,
        "last_train_loss": rows[-1]["train_loss"] if rows else None,
        "chart": charts.loss_curves(
            [row["step"] for row in rows],
            [row["train_loss"] for row in rows],
            evaluated,
            summary["best_step"],
            summary["stopped_early"],
            LOSS_OF[summary["normalize"]],
        ),
    }


def _data(
    prompts_file: Path, curation: Path, kept: Sequence[Example], masked: Path, examples: int
) -> dict[str, Any]:
    prompts = storage.read_records(prompts_file, Prompt)
    rejected = list(storage.read_jsonl(curation / "rejected.jsonl"))
    corpus = storage.read_json(masked.parent / "corpus.json")
    return {
        "asked": {"prompts": len(prompts), "maps": acquired.coverage(prompts)},
        "keeping": {
            "kept": len(kept),
            "rejected": len(rejected),
            "reasons": acquired.reasons(rejected),
        },
        "seeing": {
            "corpus": corpus,
            "rates": acquired.rates(corpus),
            "examples": list(seen.examples(masked, kept, examples)),
        },
    }


def _cost(
    whole: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    training: Path,
    evaluation: Path,
) -> dict[str, Any]:
    """Time of each stage's last run, money told by endpoints, where training's time went."""
    rows = [
        {
            "stage": row["stage"],
            "about": row["about"],
            "took": duration(row["seconds"]),
            "ticks": row["counts"].get("cost_ticks"),
        }
        for row in stages
        if row["done"] and row["seconds"] is not None
    ]
    spent: dict[str, float] = {}
    meters, asked = training / "meters.jsonl", evaluation / METERS
    for row in storage.read_jsonl(meters) if meters.exists() else ():
        for purpose, seconds in row["seconds"].items():
            spent[purpose] = spent.get(purpose, 0.0) + seconds
    total = sum(row["seconds"] for row in stages if row["done"] and row["seconds"] is not None)
    return {
        "stages": rows,
        "total": duration(total),
        "usd": sum(row["ticks"] or 0 for row in rows) / 1e10,
        "systems": {name: costs["words"] for name, costs in whole["costs"].items()},
        "padding": storage.read_json(asked)["padding"] if asked.exists() else {},
        "training": sorted(spent.items(), key=lambda pair: -pair[1]),
        "training_total": sum(spent.values()),
    }


def _provenance(
    kept: Sequence[Example], masked: Path, stages: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    settings = manifest(masked)["provenance"]
    return {
        "sources": sorted({example.source for example in kept}),
        "models": sorted({example.model_served for example in kept} - {""}),
        "rights": sorted({example.rights for example in kept} - {""}),
        "authors": acquired.authors(kept),
        "mask": json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False),
        "stages": [(row["stage"], row["fingerprint"]) for row in stages if row["done"]],
    }
