"""A run folder as the stages before `export` leave it, made by the rooms themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.curation import curate
from opengrok_jax.records import Prompt, Response
from tests.curation.curation_rows import prompt, response

TEXTS = [
    "The free buses please nearly everybody, though two posts ask who pays.",
    "Mostly jokes: the third scrub gave us bingo cards and three thousand wrong mugs.",
    "Fans mourn the lighthouse and its keeper, and one of them wants six years back.",
    "Tenants won their heating case and promptly took their coats off indoors.",
    "Write to ann@example.org, says a post about the album that nobody else has heard.",
]


def run_folder(
    folder: Path,
    texts: Sequence[str] = TEXTS,
    techniques: tuple[str, ...] = (),
    **more: Any,
) -> Path:
    """The folder after collect and curate; `more` are fields of every answer."""
    prompts = [prompt(f"Question {n}", techniques=techniques) for n in range(len(texts))]
    answers = [response(t, p, **more) for t, p in zip(texts, prompts, strict=True)]
    collected(folder, prompts, answers)
    curated(folder)
    return folder


def collected(folder: Path, prompts: list[Prompt], answers: list[Response]) -> None:
    storage.write_jsonl(folder / "refinement" / "prompts.jsonl", prompts)
    storage.write_jsonl(folder / "refinement" / "responses.jsonl", answers)
    counts = {"planned": len(prompts), "ok": len(answers), "failed": 0}
    storage.write_manifest(folder / "teacher", print_="t", outputs=[], counts=counts)


def curated(folder: Path) -> dict[str, Any]:
    counts = curate.run(
        prompts_file=folder / "refinement" / "prompts.jsonl",
        responses_file=folder / "refinement" / "responses.jsonl",
        decisions_file=folder / "review" / "decisions.jsonl",
        out=folder / "curation",
        valid_share=0.3,
    )
    names = [p.name for p in (folder / "curation").iterdir() if p.name != storage.MANIFEST]
    storage.write_manifest(folder / "curation", print_="c", outputs=names, counts=counts)
    return counts
