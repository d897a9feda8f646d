"""The report's run: the posts that were asked about get their masks, then the page is drawn.

Rooms 4 and 7 meet here through files: evaluation/questions.jsonl in, report/questions.parquet out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opengrok_jax import pipeline, stages, storage
from opengrok_jax.errors import ConfigError, MissingExtra
from opengrok_jax.progress import say

MASKS = "questions.parquet"


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
    bootstrap: int = 1000,
    seed: int = 0,
    ablation: str = "",
) -> dict[str, Any]:
    """Writes report.html, report.md, and the masks of the posts that were asked about.

    Where the annotator that made the mask is not at hand, the page says so and does without them.

    Args:
      prompts_file, curation, masked_file, training, evaluation: files and folders of a run.
      out: folder of this stage, beside theirs.
      title, examples, bootstrap, seed, ablation: as in `evaluation.report.run`.

    Raises:
      UserError: as `evaluation.report.run`.
    """
    from opengrok_jax.evaluation import outcomes, report
    from opengrok_jax.masking import prompts

    masks: Path | None = out / MASKS
    unmasked = ""
    try:
        prompts.run(
            masking=masked_file.parent, prompts_file=evaluation / outcomes.QUESTIONS, out=masks
        )
    except (ConfigError, MissingExtra) as error:
        masks, unmasked = None, str(error)
        say(f"report: without masks of the posts that were asked about: {unmasked}")
    return report.run(
        prompts_file=prompts_file,
        curation=curation,
        masked_file=masked_file,
        training=training,
        evaluation=evaluation,
        question_masks=masks,
        unmasked=unmasked,
        stages=_stages(out.parent),
        out=out,
        title=title,
        examples=examples,
        bootstrap=bootstrap,
        seed=seed,
        ablation=ablation,
    )


def _stages(folder: Path) -> list[dict[str, Any]]:
    """What `pipeline.status` says, and what each finished stage was made of."""
    rows = pipeline.status(folder)
    for row, stage in zip(rows, stages.STAGES, strict=True):
        manifest = storage.read_manifest(folder / stage.folder)
        row["fingerprint"] = manifest["fingerprint"] if manifest else ""
    return rows
