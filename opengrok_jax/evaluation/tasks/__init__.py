"""What a system is asked: an instruction, the form of the answer, a metric and gold answers.

    label      one of `labels`                        macro_f1, macro_recall, f1:LABEL, ...
    labels     any number of `labels`                 micro_f1, macro_f1, exact_match
    entities   (type, name) pairs                     entity_f1
    tags       the same, scored as tags of tokens     span_f1, surface_f1
    summary    a text, beside one or more of gold     rouge1, rouge2, rougeL
    clusters   a word for the topic, made up freely   nmi, purity

Four small tasks are bundled: sentiment, emotion, topic, entities. The published ones (a file each,
the names in `PUBLISHED`) come from a folder in the layout that README states, or from the hub.
`template.py` shows how to add another one in a file of your own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from opengrok_jax.errors import ConfigError, DataError

ASSETS = Path(__file__).parents[2] / "assets" / "tasks"

Kind = Literal["label", "labels", "entities", "tags", "summary", "clusters"]
METRICS: dict[str, tuple[str, ...]] = {
    "label": ("accuracy", "macro_f1", "macro_recall", "f1:LABEL", "mean_f1:LABEL,LABEL"),
    "labels": ("micro_f1", "macro_f1", "exact_match", "f1:LABEL"),
    "entities": ("entity_f1",),
    "tags": ("span_f1", "surface_f1", "span_macro_f1", "span_f1_untyped"),
    "summary": tuple(f"{r}{refs}" for r in ("rouge1", "rouge2", "rougeL") for refs in ("",
    ":first")), "clusters": ("nmi", "purity"),
}  # fmt: skip
BUNDLED = ("sentiment", "emotion", "topic", "entities")
PUBLISHED = {
    **{f"tweeteval-{name}": f"tweeteval_{name}" for name in (
        "emoji", "emotion", "hate", "irony", "offensive", "sentiment", "stance")},
    "tweettopic": "tweettopic",
    "xtopic-en": "xtopic", "xtopic-es": "xtopic", "xtopic-el": "xtopic", "xtopic-ja": "xtopic",
    "wnut17": "wnut17",
    "btc": "btc",
    "tweetsumm": "tweetsumm",
    "umsab": "umsab",
    "sttm-tweet": "sttm_tweet",
}  # fmt: skip

Entity = tuple[str, str]  # (type, surface form)
Answer = str | tuple[Any, ...]  # a label, text or cluster; labels, entities or tags
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where a set lies on the Hugging Face hub.

    Attributes:
      path: "owner/name", or a folder that `datasets.load_dataset` opens.
      parts: configuration ("" = the set's default) -> fields that its rows get before they are
      read;
        one part is read after another.
      split: as it is called there.
      read: makes a row of the layout that `tasks.rows` states out of a row as it comes.
      revision: "" is the newest. Where the newest is a script, which `datasets` 4 no longer runs,
        "refs/convert/parquet" is the hub's own conversion of it.
    """

    path: str
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {"": {}})
    split: str = "test"
    read: Callable[[Row], Row] = dict
    revision: str = ""


def tags_by_number(names: Sequence[str]) -> Callable[[Row], Row]:
    """A reader of the hub's rows whose `ner_tags` are numbers of these names."""
    return lambda row: {"tokens": row["tokens"], "tags": [names[n] for n in row["ner_tags"]]}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question asked of many posts.

    Attributes:
      name: letters, digits, "-" and "_"; it names files.
      instruction: what is asked, with {post} where the post goes, and {FIELD} for each of `fields`.
      kind: the form of the answer, as the docstring of the module lists them.
      labels: the allowed answers of kind label and labels, as the gold file spells them.
      words: how each label is spelled in instruction and answer; empty = as in `labels`.
      types: the entity types of kind entities and tags.
      metric: the one that counts, one of `METRICS`.
      also: further ones that are reported beside it.
      fields: names of further texts of a row, with what stands in for one that a row lacks.
      group: the field by which the score is broken down too ("" = none), as the language.
      file: .jsonl(.gz) of gold answers; None = `local` in the data folder, or else the hub.
      local: path below a folder of the layout in README.
      hub: where else it can be had.
      read: makes a row of the layout out of a row of `file`.

    Raises ConfigError where these contradict each other.
    """

    name: str
    instruction: str
    kind: Kind = "label"
    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    metric: str
    also: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    file: Path | None = None
    local: str = ""
    hub: Hub | None = None
    read: Callable[[Row], Row] = dict

    def __post_init__(self) -> None:
        """Checks what `Raises` above promises."""
        where = f"task {self.name!r}:"
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ConfigError(f"{where} a name is made of letters, digits, '-' and '_'")
        if "{post}" not in self.instruction:
            raise ConfigError(f"{where} the instruction must hold {{post}}: {self.instruction!r}")
        if self.kind not in get_args(Kind):
            raise ConfigError(f"{where} kind {self.kind!r} is unknown; one of {', '.join(METRICS)}")
        wants_labels = self.kind in ("label", "labels")
        wants_types = self.kind in ("entities", "tags")
        if bool(self.labels) != wants_labels or bool(self.types) != wants_types:
            raise ConfigError(
                f"{where} kind {self.kind!r} goes {'with' if wants_labels else 'without'} labels "
                f"and {'with' if wants_types else 'without'} types; got labels "
                f"{list(self.labels)}, types {list(self.types)}"
            )
        for metric in (self.metric, *self.also):
            self.check_metric(metric)
        self._check_answers(where)

    def check_metric(self, metric: str) -> None:
        """Raises ConfigError for one that the task's kind does not have."""
        where = f"task {self.name!r}:"
        kind, _, of_labels = metric.partition(":")
        known = METRICS[self.kind]
        if metric in known:
            return
        if not any(m.startswith(f"{kind}:LABEL") for m in known):
            raise ConfigError(
                f"{where} metric {metric!r} is unknown for kind {self.kind!r}; choose one of "
                f"{', '.join(known)}"
            )
        if not set(of_labels.split(",")) <= set(self.labels):
            raise ConfigError(
                f"{where} metric {metric!r} needs one of the labels {', '.join(self.labels)}"
            )

    def _check_answers(self, where: str) -> None:
        if self.words and len(self.words) != len(self.labels):
            raise ConfigError(f"{where} {len(self.words)} words for {len(self.labels)} labels")
        answers = self.spelled or self.types
        # A parsed answer is casefolded and trimmed, so two labels must differ after that.
        folded = [answer.strip().casefold() for answer in answers]
        if len(set(folded)) != len(folded) or not all(folded):
            raise ConfigError(
                f"{where} labels must be non-empty and differ in more than case: {list(answers)}"
            )
        if self.labels and len(self.labels) < 2:
            raise ConfigError(f"{where} a task needs at least two labels, got {list(self.labels)}")

    @property
    def spelled(self) -> tuple[str, ...]:
        """The words of the labels, in their order."""
        return self.words or self.labels

    def ask(self, item: Item) -> str:
        """The instruction with the post and its fields in their places."""
        texts = {**self.fields, **item.fields, "post": item.text}
        # One pass: what a post says in braces stays as it is.
        return re.sub(r"\{(\w+)\}", lambda found: texts.get(found[1], found[0]), self.instruction)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One post with its gold answer.

    Attributes:
      id: as in the file, else the task's name and the row's number.
      text: the post, verbatim; tokens joined by spaces; the turns of a talk, one a line.
      gold: by the task's kind a label; the labels in the task's order; the distinct (type, surface
        form) pairs in order of appearance; one BIO tag a token; the summaries; a cluster.
      tokens: of kind tags.
      fields: further texts, for the instruction.
      group: by which the score is broken down; "" = not.
    """

    id: str
    text: str
    gold: Answer
    tokens: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    group: str = ""


def known(name: str) -> Task | None:
    """The bundled or published task of that name."""
    if name not in (*BUNDLED, *PUBLISHED):
        return None
    module = importlib.import_module(f"{__name__}.{PUBLISHED.get(name, name)}")
    return module.TASKS[name] if hasattr(module, "TASKS") else module.TASK


_SETTINGS = (
    *("file", "instruction", "kind", "labels", "words", "types", "metric", "also", "fields"),
    *("group", "module"),
)


def make_task(name: str, settings: Mapping[str, Any], data: str = "") -> Task:
    """A known task, or one from a file of the user's, changed by `settings`; or one made of these.

    Args:
      name: of a known task, or any other name, which then needs `module`, or file, instruction,
        metric and labels or types.
      settings: what `Task` has; an empty value keeps what is there. `module` names a Python file
        with a `TASK`, see `template.py`; it is run.
      data: folder in the layout of README; "" = the hub.

    Raises:
      ConfigError: an unknown setting, a missing one, or settings that contradict each other.
      DataError: there is no such file.
    """
    if unknown := sorted(set(settings) - set(_SETTINGS)):
        raise ConfigError(
            f"task {name!r} has no setting {', '.join(unknown)}; known: {', '.join(_SETTINGS)}"
        )
    changes: dict[str, Any] = {key: value for key, value in settings.items() if value}
    for key in ("labels", "words", "types", "also"):
        if isinstance(changes.get(key), str):
            raise ConfigError(f"task {name!r}: {key} must be a list of words, got {changes[key]!r}")
        if key in changes:
            changes[key] = tuple(changes[key])
    if "file" in changes:
        changes["file"] = Path(changes["file"])
    task = _from_module(name, changes.pop("module")) if "module" in changes else known(name)
    if task is not None:
        if "labels" in changes:
            if task.types:
                changes.setdefault("types", ())
            changes.setdefault("words", ())
        task = replace(task, **changes)
    else:
        missing = [key for key in ("file", "instruction", "metric") if key not in changes]
        if missing:
            raise ConfigError(
                f"task {name!r} is none of {', '.join((*BUNDLED, *PUBLISHED))}, and lacks "
                f"{', '.join(missing)} (or module)"
            )
        if "types" in changes:
            changes.setdefault("kind", "entities")
        task = Task(name=name, **changes)
    return _with_file(task, data)


def _with_file(task: Task, data: str) -> Task:
    """The task with the file that stands for it, if there is one."""
    if task.file is None and data and task.local:
        task = replace(task, file=Path(data) / task.local)
    if task.file is not None and not task.file.is_file():
        raise DataError(f"task {task.name!r}: {task.file}: no such file")
    if task.file is None and task.hub is None:
        raise ConfigError(
            f"task {task.name!r} is on no hub that we know of; give evaluation.data, a folder with "
            f"{task.local or 'its file'}, or evaluation.tasks.{task.name}.file"
        )
    return task


def _from_module(name: str, path: str) -> Task:
    """The `TASK` of a user's Python file, under the name that the config gives it."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"task {name!r}: {file}: no such file")
    spec = importlib.util.spec_from_file_location(f"opengrok_task_{name.replace('-', '_')}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"task {name!r}: {file} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"task {name!r}: {file}: {type(error).__name__}: {error}") from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise ConfigError(f"task {name!r}: {file} has no TASK that is a tasks.Task")
    return replace(task, name=name)


def load_items(task: Task, limit: int = 0) -> tuple[Item, ...]:
    """The posts of a task with their gold answers, in the order of the file.

    Args:
      limit: 0 takes all; N takes the first N after sorting by the SHA-256 of the UTF-8 text, so
        that a small run is a fixed sample and not the head of the file.

    Raises:
      DataError: no rows, a row without text, an unknown label or type, an id that comes twice.
      MissingExtra: it is on the hub, and `datasets` is not installed.
    """
    from opengrok_jax.evaluation.tasks import rows

    items = rows.items(task)
    if limit:
        items = sorted(items, key=lambda item: hashlib.sha256(item.text.encode()).digest())[:limit]
    return tuple(items)
