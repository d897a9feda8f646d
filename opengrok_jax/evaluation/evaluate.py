"""Room 7's run: a student, its floors and others become predictions and scores.

evaluation/
  answers/SYSTEM.KIND.jsonl          what was answered, by what it was made of (`cache`)
  paid/SYSTEM/                       journals of models behind an API
  questions.jsonl                    what was asked, word for word: rows for `opengrok mask-prompts`
  predictions/TASK.PREDICTOR.jsonl   one `answers.Prediction` a line
  predictions/tweeteval/PREDICTOR/   the same for TweetEval's own script
  scores.json                        scores, notes, comparisons, what is beside them, and the tasks
                                     with the files of their predictions
  meters.json                        the share of padding when labels were scored last
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation import leaks, tweeteval_export
from opengrok_jax.evaluation.ask import Answered, Question, ask_system, asked_rows, slug
from opengrok_jax.evaluation.floors import floors
from opengrok_jax.evaluation.outcomes import METERS, PREDICTIONS, QUESTIONS, SCORES
from opengrok_jax.evaluation.predict import KINDS
from opengrok_jax.evaluation.prompt_masks import PromptMasks
from opengrok_jax.evaluation.scoring import score_all
from opengrok_jax.evaluation.systems import check_predictors, make_systems, student_system
from opengrok_jax.evaluation.tasks import load_items, make_task
from opengrok_jax.model.attention import Rule
from opengrok_jax.records import Example

ANSWERS, PAID = "answers", "paid"


def run(
    *,
    student: Path,
    examples_file: Path,
    out: Path,
    tokenizer: str = "",
    tasks: dict[str, Any],
    data: str = "",
    predictors: tuple[str, ...] = ("likelihood", "generation"),
    systems: dict[str, Any] | None = None,
    limit: int = 0,
    max_new_tokens: int = 48,
    batch_size: int = 32,
    prompt_masks: str = "",
    rule: str = "none",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, int]:
    """Scores the student and what it is compared with. The same command again goes on.

    Args:
      student: folder that `student.save_student` wrote.
      examples_file: kept.jsonl; its training examples teach the floors, and are looked for among
        the test posts.
      out: folder of this stage.
      tokenizer: folder or file, as in `tokenizer.load`; "" = the one in the student's folder, or
        else the small one that ships with us.
      tasks: name -> settings, as in `tasks.make_task`.
      data: folder in the layout of README, for published tasks; "" = the hub.
      predictors: some of `predict.KINDS`.
      systems: name -> settings, as in `systems`; whom the student is compared with.
      limit: posts of each task, 0 for all; chosen as `tasks.load_items` says.
      max_new_tokens: room for a generated answer; a longer one is cut and read as it is.
      batch_size: rows that a model reads at once.
      prompt_masks: masks of the tasks' prompts, as `opengrok mask-prompts` writes them: the
        student attends to what they leave; "" = to every token of the prompt.
      rule: how it reads them, "multiply" or "exclude"; "none" goes with no masks.
      bootstrap: resamples behind each interval.
      seed: of the resampling, and of k-means.

    Returns:
      {"scores": rows in scores.json, "tasks": tasks scored}.

    Raises:
      ConfigError: an argument, a task's or system's settings, or a post too long for the student.
      DataError: the examples or a task's file cannot be read.
      CheckpointError: there is no student in that folder, or a broken one.
      TeacherError: a model behind an API stopped answering.
    """
    _check(tasks, predictors, limit, max_new_tokens, batch_size, bootstrap, seed)
    masks = _masks(prompt_masks, rule)
    made = [make_task(name, settings, data) for name, settings in tasks.items()]
    others = make_systems(systems or {}, default=predictors, batch_size=batch_size, paid=out / PAID)
    loaded = [(task, load_items(task, limit)) for task in made]
    examples = storage.read_records(examples_file, Example)
    trained = [post for e in examples if e.split == "train" for post in e.posts]
    questions = [
        Question(task=t, items=items, leaked=leaks.find([i.text for i in items], trained))
        for t, items in loaded
    ]
    result: dict[str, Any] = {"notes": [], "costs": {}, "padding": {}}
    answered: dict[str, list[Answered]] = {q.task.name: [] for q in questions}
    ours = student_system(student, tokenizer, predictors, batch_size, *masks)
    for system in (ours, *others):
        for name, found in ask_system(system, questions, out / ANSWERS, max_new_tokens, result):
            answered[name].append(found)
    for question in questions:
        for predictor, found, note in floors(question.task, examples, question.items, seed):
            if found:
                answered[question.task.name].append(Answered(predictor=predictor, runs=(found,)))
            result["notes"] += [note] if note else []
    storage.write_jsonl(out / QUESTIONS, asked_rows(questions))
    result["tasks"] = {
        q.task.name: _write(out / PREDICTIONS, q, answered[q.task.name]) for q in questions
    }
    scored = score_all(questions, answered, bootstrap=bootstrap, seed=seed)
    result |= scored | {"notes": [*result["notes"], *scored["notes"]]}
    if result["padding"]:  # else all answers were there before
        storage.write_json(out / METERS, {"padding": result.pop("padding")})
    order = ("scores", "notes", "comparisons", "groups", "without_leaks", "costs", "tasks")
    storage.write_json(out / SCORES, {key: result[key] for key in order})
    return {"scores": len(result["scores"]), "tasks": len(made)}


def _write(folder: Path, question: Question, answered: Sequence[Answered]) -> dict[str, Any]:
    """Writes the predictions of each predictor, and TweetEval's files of the same.

    Returns:
      What a reader of the predictions has to know of the task: its form, its metric, the files.
    """
    task = question.task
    files: dict[str, list[str]] = {}
    for one in answered:
        for number, found in enumerate(one.runs, start=1):
            named = slug(one.predictor) + (f"-{number}" if len(one.runs) > 1 else "")
            name = f"{task.name}.{named}.jsonl"
            storage.write_jsonl(folder / name, found)
            files.setdefault(one.predictor, []).append(name)
            whole = not task.group or all(item.group for item in question.items)
            if task.name.startswith(tweeteval_export.PREFIX) and whole:
                tweeteval_export.export(folder / "tweeteval" / named, task, question.items, found)
    form = {key: getattr(task, key) for key in ("kind", "labels", "types", "metric")}
    return {**form, "posts": len(question.items), "predictions": files}


def _check(
    tasks: dict[str, Any],
    predictors: tuple[str, ...],
    limit: int,
    max_new_tokens: int,
    batch_size: int,
    bootstrap: int,
    seed: int,
) -> None:
    if not tasks:
        raise ConfigError("evaluation.tasks is empty; name at least one task")
    check_predictors("evaluation.predictors", predictors, KINDS)
    for key, size in {"limit": limit, "seed": seed}.items():
        if size < 0:
            raise ConfigError(f"evaluation.{key}={size} must not be negative")
    sizes = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "bootstrap": bootstrap}
    for key, size in sizes.items():
        if size < 1:
            raise ConfigError(f"evaluation.{key}={size} must be positive")


def _masks(prompt_masks: str, rule: str) -> tuple[PromptMasks | None, Any]:
    """The masks of the student's prompts, and the rule that reads them."""
    if rule not in get_args(Rule) or (rule == "none") != (not prompt_masks):
        raise ConfigError(
            f"evaluation.rule is {rule!r} and evaluation.prompt_masks {prompt_masks!r}; expected "
            "'multiply' or 'exclude' with a masked file, or 'none' without one"
        )
    return (PromptMasks(Path(prompt_masks)) if prompt_masks else None), rule
