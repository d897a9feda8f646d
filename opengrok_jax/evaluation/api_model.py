"""A model behind an API, asked through the teacher's client and journal: nothing is paid for twice.

    evaluation/paid/SYSTEM/   prompts.jsonl, journal.sqlite, responses.jsonl

`opengrok run --redo evaluate` keeps this folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.predict import Record
from opengrok_jax.progress import say
from opengrok_jax.records import Cell, Message, Prompt, Response, prompt_id
from opengrok_jax.rights import EVALUATION_ONLY

# Settings that an answer depends on; the pace, the prices and the caps change none.
_TELLING = (
    "kind",
    "recorded_file",
    "base_url",
    "model",
    "api",
    "temperature",
    "extra_body",
    "served_as",
)
TICKS_PER_USD = 10**10  # as `records.Response.cost_ticks` counts


class ApiModel:
    """An endpoint; `costs` is what it told of its answers so far.

    Args:
      name: of the system, for what is said.
      folder: for the journal.
      teacher: settings of `teacher.collect.run`, but for those that evaluation decides.
    """

    def __init__(self, name: str, folder: Path, teacher: dict[str, Any]):
        """Raises ConfigError for settings that collecting does not know."""
        from opengrok_jax.teacher import collect

        decided = {"prompts_file", "out", "max_tokens", "rights"}
        known = [k for k in inspect.signature(collect.run).parameters if k not in decided]
        if unknown := sorted(set(teacher) - set(known)):
            raise ConfigError(
                f"evaluation.systems.{name}.teacher has no setting {unknown[0]}; known: "
                f"{', '.join(known)}"
            )
        self.name, self._folder = name, folder
        # Posts about hate are refused by many a policy: each is a wrong answer, not a stop.
        self._settings = {"kind": "api", "temperature": 0.0, "max_blocked": 1.0, **teacher}
        self.made_of = {key: self._settings[key] for key in _TELLING if key in self._settings}
        self.costs: dict[str, Any] = {}

    def check(
        self, what: str, prompts: Sequence[str], answers: Sequence[str], new_tokens: int
    ) -> None:
        """Only the endpoint knows how long a prompt may be."""

    def label_tokens(self, labels: Sequence[str]) -> list[int]:
        """Unknown."""
        raise ConfigError(f"{self.name}: an API model tells no likelihood of labels")

    def log_probs(self, prompts: Sequence[str], labels: Sequence[str], record: Record) -> None:
        """Not told by an API."""
        raise ConfigError(f"{self.name}: an API model tells no likelihood of labels")

    def answers(self, prompts: Sequence[str], max_new_tokens: int, record: Record) -> None:
        """Its answer to every prompt; None where its content policy refuses one for good.

        Raises:
          TeacherError: it stopped answering; what it answered is in the journal, and the same
            command asks for the rest.
        """
        from opengrok_jax.teacher import collect

        asked = {_id(prompt): prompt for prompt in prompts}
        rows = [
            Prompt(
                id=number,
                messages=(Message(role="user", content=prompt),),
                cell=Cell(intent="evaluation"),
                template="evaluation",
            )
            for number, prompt in asked.items()
        ]
        storage.write_jsonl(self._folder / "prompts.jsonl", rows)
        collect.run(
            prompts_file=self._folder / "prompts.jsonl",
            out=self._folder,
            max_tokens=max_new_tokens,
            rights=EVALUATION_ONLY,
            **self._settings,
        )
        found = storage.read_records(self._folder / "responses.jsonl", Response)
        self._add_costs(found)
        texts = {response.prompt_id: response.text.strip() for response in found}
        record(range(len(prompts)), [texts.get(_id(prompt)) for prompt in prompts])

    def _add_costs(self, found: Sequence[Response]) -> None:
        told = [r.cost_ticks for r in found if r.cost_ticks >= 0]
        now = {
            "answers": len(found),
            "prompt_tokens": sum(r.prompt_tokens for r in found),
            "completion_tokens": sum(r.completion_tokens for r in found),
            "cost_ticks": sum(told),
            "answers_without_cost": len(found) - len(told),
        }
        self.costs = {key: self.costs.get(key, 0) + value for key, value in now.items()}
        say(f"{self.name}: {cost_in_words(self.costs)}")


def cost_in_words(costs: dict[str, Any]) -> str:
    """Answers, tokens and money, and what is not known of the money.

    >>> cost_in_words({"answers": 2, "prompt_tokens": 90, "completion_tokens": 4,
    ...                "cost_ticks": 25_000_000, "answers_without_cost": 0})
    '2 answers, 90 tokens in, 4 out, 0.0025 USD'
    """
    said = (
        f"{costs['answers']} answers, {costs['prompt_tokens']} tokens in, "
        f"{costs['completion_tokens']} out"
    )
    if costs["answers_without_cost"] == costs["answers"]:
        return f"{said}; what they cost is not known: neither the endpoint nor a price told"
    said += f", {costs['cost_ticks'] / TICKS_PER_USD:.4f} USD"
    missing = costs["answers_without_cost"]
    return said + (f", and {missing} of unknown cost" if missing else "")


def _id(prompt: str) -> str:
    return prompt_id((Message(role="user", content=prompt),))
