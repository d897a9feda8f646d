"""Who is asked, from the config: students, Hugging Face checkpoints, models behind an API.

    evaluation.systems = {
        "three seeds": {"kind": "student", "folders": ["runs/a/training/student", ...]},
        "Phi-3": {"kind": "transformers", "model": "microsoft/Phi-3-mini-4k-instruct"},
        "Qwen": {"kind": "transformers", "model": ..., "chat_template_kwargs": {...}},
        "Grok": {"kind": "api", "teacher": {"base_url": ..., "model": ..., "api_key_env": ...}},
    }

All get the same questions about the same posts, word for word; each has its own chat template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.predict import KINDS, Record, Student
from opengrok_jax.evaluation.prompt_masks import PromptMasks
from opengrok_jax.model.attention import Rule

_KEYS = {
    "student": {"kind", "folders", "tokenizer", "predictors"},
    "transformers": {"kind", "model", "predictors", "dtype", "device", "chat_template_kwargs"},
    "api": {"kind", "teacher", "predictors"},
}


@runtime_checkable  # the tests check types as they run
class Asked(Protocol):
    """What answers questions; `made_of` is all that its answers depend on beside them."""

    made_of: Any

    def check(
        self, what: str, prompts: Sequence[str], answers: Sequence[str], new_tokens: int
    ) -> None:
        """Raises ConfigError where a prompt and its answer do not fit."""

    def label_tokens(self, labels: Sequence[str]) -> list[int]:
        """Tokens of each label and the end of the answer."""
        ...

    def log_probs(self, prompts: Sequence[str], labels: Sequence[str], record: Record) -> None:
        """log P of every label after every prompt, recorded as it comes."""

    def answers(self, prompts: Sequence[str], max_new_tokens: int, record: Record) -> None:
        """The answer to every prompt, recorded as it comes; None where there will never be one."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A system of the config: one or more runs of it (seeds), each opened when it is its turn.

    Attributes:
      name: as it is shown.
      predictors: kinds of answers that are wanted of it.
      runs: each opens one of them.
    """

    name: str
    predictors: tuple[str, ...]
    runs: tuple[Callable[[], Asked], ...]


def student_system(
    folder: Path,
    tokenizer: str,
    predictors: Sequence[str],
    batch_size: int,
    prompt_masks: PromptMasks | None = None,
    rule: Rule = "none",
) -> System:
    """The student of this run; with masks it reads of each prompt what `rule` leaves it."""
    masked: Any = {"prompt_masks": prompt_masks, "rule": rule} if prompt_masks else {}
    return System(
        name="student",
        predictors=tuple(predictors),
        runs=(lambda: Student.open(folder, tokenizer, batch_size=batch_size, **masked),),
    )


def make_systems(
    settings: Mapping[str, Any], *, default: Sequence[str], batch_size: int, paid: Path
) -> list[System]:
    """The systems of `evaluation.systems`.

    Args:
      default: predictors of a system that names none.
      paid: folder for what costs money, which outlives everything else.

    Raises:
      ConfigError: a setting is unknown, missing, or out of range.
    """
    return [
        _system(name, dict(given), tuple(default), batch_size, paid)
        for name, given in settings.items()
    ]


def _system(
    name: str, given: dict[str, Any], default: tuple[str, ...], batch_size: int, paid: Path
) -> System:
    where = f"evaluation.systems.{name}"
    kind = given.get("kind")
    if kind not in _KEYS:
        raise ConfigError(f"{where}.kind is {kind!r}; expected one of {', '.join(_KEYS)}")
    if unknown := sorted(set(given) - _KEYS[kind]):
        raise ConfigError(
            f"{where} has no setting {unknown[0]}; a {kind} has {', '.join(sorted(_KEYS[kind]))}"
        )
    if name.startswith("student"):
        raise ConfigError(f"{where}: 'student' is the one of this run; choose another name")
    predictors = tuple(given.get("predictors") or (("generation",) if kind == "api" else default))
    check_predictors(f"{where}.predictors", predictors, ("generation",) if kind == "api" else KINDS)
    runs: list[Callable[[], Asked]]
    if kind == "api":
        from opengrok_jax.evaluation.api_model import ApiModel

        teacher = dict(given.get("teacher") or {})
        runs = [lambda: ApiModel(name, paid / _slug(name), teacher)]
    elif kind == "transformers":
        from opengrok_jax.evaluation.hf_model import HfModel

        if not given.get("model"):
            raise ConfigError(f"{where}.model is missing; a folder, or a name on the hub")
        options = ("dtype", "device", "chat_template_kwargs")
        chosen = {key: given[key] for key in options if given.get(key)}
        runs = [lambda: HfModel(str(given["model"]), batch_size=batch_size, **chosen)]
    else:
        folders = [Path(folder) for folder in given.get("folders") or ()]
        if not folders:
            raise ConfigError(f"{where}.folders is empty; give the folder of each student")
        tokenizer = str(given.get("tokenizer", ""))
        runs = [
            lambda folder=folder: Student.open(folder, tokenizer, batch_size=batch_size)
            for folder in folders
        ]
    return System(name=name, predictors=predictors, runs=tuple(runs))


def check_predictors(where: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raises ConfigError unless some of the known ones are given, each once."""
    if not given or sorted(given) != sorted(set(given) & set(known)):
        raise ConfigError(
            f"{where} is {list(given)}; give one or more of {', '.join(known)}, each once"
        )


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or "system"
