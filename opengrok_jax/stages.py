"""The stages in order: what each reads, writes and keeps, and which settings bind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from opengrok_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One room's place in the pipeline.

    Attributes:
      verb: its name on the command line.
      about: what it does, in one line.
      module: where its `run` is.
      section: its part of the config.
      folder: its folder in the run folder.
      reads: argument of `run` -> file or folder of an earlier stage.
      borrows: arguments of `run` that are the section of an earlier stage of what it reads; so a
        change there is a change of what it reads.
      watches: argument of `run` -> file beside the stages that may be absent, and whose change
        makes the stage, and all later ones, be done again.
      writes: files in its folder that stand when it is done, with the manifest noting their hashes.
      keep: what outlives `--redo`, because it was paid for, or is found by what it was made of.
      steering: settings that say how it is done and not what comes of it; they may change at any
        time, and what was done stays done.
    """

    verb: str
    about: str
    module: str
    section: str
    folder: str
    reads: dict[str, str]
    writes: tuple[str, ...]
    keep: tuple[str, ...] = ()
    borrows: tuple[str, ...] = ()
    steering: tuple[str, ...] = ()
    watches: dict[str, str] = field(default_factory=dict)


STAGES = (
    Stage(
        verb="plan-prompts",
        about="decide what to ask",
        module="opengrok_jax.prompts.plan",
        section="prompts",
        folder="prompts",
        reads={},
        writes=("prompts.jsonl",),
    ),
    Stage(
        verb="collect",
        about="ask the teacher; every answer is journalled before it is counted",
        module="opengrok_jax.teacher.collect",
        section="teacher",
        folder="teacher",
        reads={"prompts_file": "prompts/prompts.jsonl"},
        writes=("responses.jsonl", "logprobs.jsonl"),
        keep=("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"),
        steering=(
            "api_key_env",
            "concurrency",
            "requests_per_minute",
            "tokens_per_minute",
            "timeout_sec",
            "max_attempts",
            "may_fail",
            "max_blocked",
            "served_as",
            "price_input",
            "price_cached",
            "price_output",
            "price_request",
            "price_blocked",
            "cap",
            "cap_tokens",
            "cap_requests",
        ),
    ),
    Stage(
        verb="refine",
        about="go on asking where it pays, going by the answers",
        module="opengrok_jax.refine",
        section="refinement",
        folder="refinement",
        reads={
            "prompts_file": "prompts/prompts.jsonl",
            "responses_file": "teacher/responses.jsonl",
            "logprobs_file": "teacher/logprobs.jsonl",
        },
        writes=(
            "prompts.jsonl",
            "responses.jsonl",
            "logprobs.jsonl",
            "lineage.jsonl",
            "archive.json",
        ),
        keep=("asked",),
        borrows=("prompts", "teacher"),
    ),
    Stage(
        verb="curate",
        about="keep the good answers, and the others with the reason",
        module="opengrok_jax.curation.curate",
        section="curation",
        folder="curation",
        reads={
            "prompts_file": "refinement/prompts.jsonl",
            "responses_file": "refinement/responses.jsonl",
        },
        writes=("kept.jsonl", "rejected.jsonl", "verdicts.jsonl", "balance.json"),
        watches={"decisions_file": "review/decisions.jsonl"},
    ),
    Stage(
        verb="mask",
        about="weigh every token and draw the mask",
        module="opengrok_jax.masking.build",
        section="masking",
        folder="masking",
        reads={
            "examples_file": "curation/kept.jsonl",
            "logprobs_file": "refinement/logprobs.jsonl",
        },
        writes=(
            "masked.parquet/manifest.json",
            "frequencies.parquet",
            "corpus.json",
            "tokenizer/tokenizer.json",
        ),
        keep=("cache",),
    ),
    Stage(
        verb="finetune",
        about="train the student with masked attention",
        module="opengrok_jax.training.finetune",
        section="training",
        folder="training",
        reads={"masked_file": "masking/masked.parquet"},
        writes=("metrics.jsonl", "meters.jsonl", "summary.json"),
    ),
    Stage(
        verb="evaluate",
        about="score the student and the floors on the tasks",
        module="opengrok_jax.evaluation.evaluate",
        section="evaluation",
        folder="evaluation",
        reads={"student": "training/student", "examples_file": "curation/kept.jsonl"},
        writes=("scores.json",),
        keep=("answers", "paid"),
    ),
    Stage(
        verb="report",
        about="draw it all on one page",
        module="opengrok_jax.report",
        section="report",
        folder="report",
        reads={
            "prompts_file": "refinement/prompts.jsonl",
            "curation": "curation",
            "masked_file": "masking/masked.parquet",
            "training": "training",
            "evaluation": "evaluation",
        },
        writes=("report.html", "report.md"),
    ),
)
VERBS = tuple(stage.verb for stage in STAGES)


def stage_of(verb: str) -> Stage:
    """The stage of a verb.

    Raises:
      ConfigError: there is none.
    """
    for stage in STAGES:
        if stage.verb == verb:
            return stage
    raise ConfigError(f"there is no stage {verb!r}; the stages are {', '.join(VERBS)}")
