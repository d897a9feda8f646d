"""The files of a small finished run, its posts and answers meant to do harm, for the report's tests."""

from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import storage, tokenizer
from opengrok_jax.evaluation.outcomes import question_id
from opengrok_jax.masked_file import write_masked
from opengrok_jax.records import Cell, Example, MaskedExample, Message, Prompt, Score, to_json

HOSTILE = (
    '<script>alert(1)</script> "quoted" & | [x](http://evil.x) *b* <img src=x onerror=alert(2)> '
    "\u202eevil\u202c \x1b[31m {{7*7}} 👨‍👩‍👧"
)
LABELS = ("good", "bad")
STUDENT, MAJORITY, TFIDF = "student (likelihood)", "majority", "tf-idf + logistic regression"
VALUES = {STUDENT: 0.5, MAJORITY: 0.333, TFIDF: 0.712}
STAGES = [
    {
        "stage": "collect", "about": "ask", "done": True, "seconds": 61.0, "fingerprint": "ab" * 32,
        "counts": {"cost_ticks": 25_000_000},
    },
    {"stage": "mask", "about": "weigh", "done": False, "seconds": None, "fingerprint": "", "counts": {}},
]  # fmt: skip


def example(number: int, intent: str) -> Example:
    return Example(
        id=f"{number:016x}",
        messages=(Message(role="user", content=HOSTILE),),
        response="fine </div> thanks",
        split="train",
        cell=Cell(intent=intent, topic="food", platform="X"),
        source="recorded",
        model_served="m-1",
        rights="own",
    )


def masked(name: str, content: str, response: str | None = None) -> MaskedExample:
    """A mask by chance: about every second token hidden."""
    encoded = tokenizer.load().encode_chat((Message(role="user", content=content),), response)
    count = len(encoded.tokens)
    chance = np.random.default_rng(len(name))
    factors = {
        n: chance.random(count, np.float32) for n in ("tfidf", "pos", "dep", "random", "keep_prob")
    }
    return MaskedExample(
        id=name,
        split="train",
        tokens=encoded.tokens,
        roles=encoded.roles,
        key_mask=(factors["keep_prob"] > 0.5) | encoded.special,
        **factors,
    )


def posts() -> list[str]:
    return [f"{HOSTILE} {n}" if n % 4 == 0 else f"post number {n} " + "so " * n for n in range(24)]


def ask(post: str) -> str:
    return f"How is it? {post} Answer."


def predictions() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {STUDENT: [], MAJORITY: [], TFIDF: []}
    for n, text in enumerate(posts()):
        for who in found:
            sure = -0.01 * (n + 1)
            said = {STUDENT: LABELS[n % 3 % 2], MAJORITY: "bad", TFIDF: LABELS[n % 2]}[who]
            other = LABELS[1 - LABELS.index(said)]
            found[who].append(
                {
                    "id": f"p{n}", "text": text, "gold": LABELS[n % 2], "predicted": said,
                    "answer": "", "scores": {} if who == MAJORITY else {said: sure, other: -4.0},
                }
            )  # fmt: skip
    return found


def scores() -> dict[str, Any]:
    task, metric = "mood", "macro_f1"
    compared = [
        {
            "task": task, "metric": metric, "a": STUDENT, "b": who, "difference": 0.5 - VALUES[who],
            "low": -0.1, "high": 0.2, "p": 0.01, "p_corrected": p, "mcnemar": None,
            "verdict": f"the verdict on {who} <i>",
        }
        for who, p in ((MAJORITY, 0.4), (TFIDF, 0.02))
    ]  # fmt: skip
    rows = [
        Score(
            task=task, metric=m, predictor=who, value=v, low=v - 0.05, high=v + 0.05, rows=24,
            unparsable=0.125 if who == STUDENT else 0.0,
        )
        for m in (metric, "accuracy")
        for who, v in VALUES.items()
    ]  # fmt: skip
    groups = [
        {"task": task, "metric": metric, "group": "<en>", "predictor": who, "value": v, "rows": 9}
        for who, v in VALUES.items()
    ]
    form = {
        "kind": "label", "labels": LABELS, "types": [], "metric": metric, "posts": 24,
        "predictions": {who: [f"mood.{n}.jsonl"] for n, who in enumerate(VALUES)},
    }  # fmt: skip
    return {
        "scores": [to_json(row) for row in rows], "notes": ["a note <b>"], "comparisons": compared,
        "groups": groups, "without_leaks": [], "costs": {},
        "tasks": {task: form},
    }  # fmt: skip


def write(folder: Path) -> dict[str, Any]:
    """The arguments of `report.run`."""
    kept = [example(n, intent) for n, intent in enumerate(["sentiment", "rewrite", "sentiment"])]
    prompts = [Prompt(id=k.id, messages=k.messages, cell=k.cell, template="t") for k in kept]
    storage.write_jsonl(folder / "prompts.jsonl", [*prompts, Prompt(
        id="f" * 16, messages=kept[0].messages, cell=Cell(intent="rewrite", topic="music"), template="t")])  # fmt: skip
    storage.write_jsonl(folder / "curation" / "kept.jsonl", kept)
    rejected = {"prompt_id": "a", "reason": "too_short", "detail": HOSTILE, "response": HOSTILE}
    storage.write_jsonl(folder / "curation" / "rejected.jsonl", [rejected, rejected])
    provenance = {"tokenizer": "", "vocab_size": 4096, "alpha": 2.0}
    write_masked(
        folder / "masking" / "masked.parquet",
        [masked(k.id, HOSTILE, k.response) for k in kept],
        provenance,
    )
    storage.write_json(
        folder / "masking" / "corpus.json",
        {
            "keep_rate": 0.85,
            "by_role": {
                "prompt": {"tokens": 2000, "keep_rate": 0.8},
                "response": {"tokens": 0, "keep_rate": None},
            },
            "by_upos": {"NOUN": {"tokens": 7, "keep_rate": 0.912}},
        },
    )
    training = folder / "training"
    storage.write_jsonl(
        training / "metrics.jsonl",
        [
            {"step": s, "train_loss": 3.0 / s, "valid_loss": 3.1 / s if s % 2 == 0 else None}
            for s in range(1, 9)
        ],
    )
    storage.write_jsonl(training / "meters.jsonl", [{"seconds": {"step": 3.0, "save": 1.0}}])
    storage.write_json(
        training / "summary.json",
        {
            "best_step": 6, "best_valid_loss": 0.517, "last_step": 8, "stopped_early": True,
            "normalize": "example", "parameters": 1234567, "train_examples": 3,
            "valid_examples": 1, "rows": 2, "packing_efficiency": 0.9,
        },
    )  # fmt: skip
    evaluation = folder / "evaluation"
    storage.write_json(evaluation / "scores.json", scores())
    padding = {"student": {"tokens": 1234, "share": 0.071}}
    storage.write_json(evaluation / "meters.json", {"padding": padding})
    for number, rows in enumerate(predictions().values()):
        storage.write_jsonl(evaluation / "predictions" / f"mood.{number}.jsonl", rows)
    asked = [(question_id("mood", f"p{n}"), ask(post)) for n, post in enumerate(posts())]
    storage.write_jsonl(
        evaluation / "questions.jsonl",
        [{"id": n, "messages": [{"role": "user", "content": c}]} for n, c in asked],
    )
    write_masked(folder / "questions.parquet", [masked(n, c) for n, c in asked], provenance)
    return {
        "prompts_file": folder / "prompts.jsonl",
        "curation": folder / "curation",
        "masked_file": folder / "masking" / "masked.parquet",
        "training": training,
        "evaluation": evaluation,
        "question_masks": folder / "questions.parquet",
        "unmasked": "",
        "stages": STAGES,
        "out": folder / "report",
        "bootstrap": 20,
    }
