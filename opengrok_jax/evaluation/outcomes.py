"""What an evaluation left on the disk, read back: scores, verdicts, and who said what of a post."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.significance import LEVEL, Comparison
from opengrok_jax.evaluation.tasks import Answer, Task
from opengrok_jax.records import Score, from_json

SCORES, PREDICTIONS, QUESTIONS = "scores.json", "predictions", "questions.jsonl"
METERS = "meters.json"  # what depends on how often the evaluation was interrupted
STUDENT = "student"

Runs = tuple[tuple[Prediction, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One task: what was scored, and by whom it was answered.

    Attributes:
      task: its form, labels or types, and metric; its instruction is not known here.
      scores: of all predictors, by all metrics.
      comparisons: the student against the others, by the task's metric.
      predictions: predictor -> for each of its seeds what it said, in the order of the posts.
      groups, without_leaks: rows of scores.json.
    """

    task: Task
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    predictions: Mapping[str, Runs]
    groups: tuple[dict[str, Any], ...]
    without_leaks: tuple[dict[str, Any], ...]

    @property
    def by_metric(self) -> dict[str, list[Score]]:
        """The scores of each metric, the task's own first."""
        found: dict[str, list[Score]] = {self.task.metric: []}
        for score in self.scores:
            found.setdefault(score.metric, []).append(score)
        return found

    @property
    def students(self) -> list[Score]:
        """The student's scores by the task's metric, a row for each way of answering."""
        return [s for s in self.by_metric[self.task.metric] if s.predictor.startswith(STUDENT)]

    @property
    def others(self) -> list[Score]:
        """Everyone else's, the best first."""
        rows = [s for s in self.by_metric[self.task.metric] if not s.predictor.startswith(STUDENT)]
        return sorted(rows, key=lambda score: -score.value)

    @property
    def student(self) -> str:
        """The student's first way of answering: the one the config names first, not the best."""
        return self.students[0].predictor if self.students else ""

    @property
    def shown(self) -> tuple[str, ...]:
        """Whose answers are looked at closely: the student's, and those of the best other."""
        names = [self.student, self.others[0].predictor if self.others else ""]
        return tuple(name for name in names if name)


def read(evaluation: Path) -> tuple[dict[str, Any], list[Outcome]]:
    """scores.json as it stands, and its tasks in order.

    Raises:
      DataError: a file is missing, malformed, or of an earlier version.
    """
    whole = storage.read_json(evaluation / SCORES)
    try:
        scores = [from_json(Score, row) for row in whole["scores"]]
        comparisons = [from_json(Comparison, row) for row in whole["comparisons"]]
        return whole, [
            Outcome(
                task=_task(name, form),
                scores=tuple(s for s in scores if s.task == name),
                comparisons=tuple(c for c in comparisons if c.task == name),
                predictions={
                    who: tuple(_predictions(evaluation / PREDICTIONS / file) for file in files)
                    for who, files in form["predictions"].items()
                },
                groups=tuple(row for row in whole["groups"] if row["task"] == name),
                without_leaks=tuple(row for row in whole["without_leaks"] if row["task"] == name),
            )
            for name, form in whole["tasks"].items()
        ]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{evaluation / SCORES}: not what this version writes ({error}); run "
            "`opengrok run --redo evaluate`"
        ) from None


def _task(name: str, form: dict[str, Any]) -> Task:
    return Task(
        name=name,
        instruction="{post}",
        kind=form["kind"],
        labels=tuple(form["labels"]),
        types=tuple(form["types"]),
        metric=form["metric"],
    )


def _predictions(path: Path) -> tuple[Prediction, ...]:
    return tuple(
        Prediction(**{**row, "gold": _answer(row["gold"]), "predicted": _answer(row["predicted"])})
        for row in storage.read_jsonl(path)
    )


def _answer(value: Any) -> Answer:
    return tuple(_answer(part) for part in value) if isinstance(value, list) else value


def spelled(metric: str) -> str:
    """A metric's name as people write it.

    >>> spelled("macro_f1"), spelled("mean_f1:against,favor"), spelled("rougeL:first")
    ('macro F1', 'mean F1 of against and favor', 'ROUGE-L, first reference')
    """
    name, _, of = metric.partition(":")
    words = name.replace("_", " ").replace("f1", "F1").replace("rouge", "ROUGE-")
    if of == "first":
        return f"{words}, first reference"
    return f"{words} of {of.replace(',', ' and ')}" if of else words


def question_id(task: str, item: str) -> str:
    """The id of a question among all that an evaluation asked."""
    return f"{task}/{item}"


# ---- verdicts ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How the student fared on a task.

    Attributes:
      score: of the student's first way of answering.
      beside: (other predictor, its score, "above", "below" or "within the noise of"): where the
        student is. Only a difference that survives the correction is one.
    """

    task: str
    metric: str
    score: Score
    beside: tuple[tuple[str, float, str], ...]

    @property
    def place(self) -> str:
        """Above all others, below at least one, or neither."""
        places = {place for *_, place in self.beside}
        return "below" if "below" in places else "above" if places == {"above"} else "level"

    @property
    def metric_words(self) -> str:
        """The metric as people write it."""
        return spelled(self.metric)

    @property
    def words(self) -> str:
        """Where the student is, one clause a place: "below x (0.700), within the noise of y .."."""
        clauses = []
        for place in ("below", "within the noise of", "above"):
            names = [f"{who} ({value:.3f})" for who, value, where in self.beside if where == place]
            if names:
                clauses.append(f"{place} {' and '.join(names)}")
        return ", ".join(clauses)


def verdicts(outcomes: list[Outcome]) -> list[Verdict]:
    """One for each task that the student answered and someone else did too."""
    found = []
    for outcome in outcomes:
        if not outcome.student:
            continue
        values = {score.predictor: score.value for score in outcome.others}
        said = {
            c.b: "within the noise of"
            if c.p_corrected >= LEVEL
            else "above"
            if c.difference > 0
            else "below"
            for c in outcome.comparisons
            if c.a == outcome.student
        }
        beside = tuple((who, values[who], said[who]) for who in values if who in said)
        if beside:
            found.append(
                Verdict(
                    task=outcome.task.name,
                    metric=outcome.task.metric,
                    score=outcome.students[0],
                    beside=beside,
                )
            )
    return found


def headline(found: list[Verdict]) -> str:
    """The whole in one sentence.

    >>> headline([])
    'Nothing was compared: the student, or everyone else, answered no task.'
    """
    if not found:
        return "Nothing was compared: the student, or everyone else, answered no task."
    said = {
        "above": "above everything it was compared with",
        "below": "below at least one of the others",
        "level": "neither above everything it was compared with nor below any of it",
    }
    if len(found) == 1:
        return f"On its one task the student is {said[found[0].place]}."
    count = Counter(verdict.place for verdict in found)
    parts = [f"{said['above']} on {count['above'] or 'none'}"]
    parts += [f"{said['below']} on {count['below']}"] if count["below"] else []
    parts += [f"neither on {count['level']}"] if count["level"] else []
    return f"Of {len(found)} tasks the student is {', '.join(parts)}."
