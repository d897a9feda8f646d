"""Prompts made of the user's own posts: one instruction asked of each, or each row's own.

With labels they feed the `labelled` teacher, which answers from them: so gold data can be
distilled, or mixed in, through the same rooms as a model's answers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.prompts import lint
from opengrok_jax.records import Cell, Message, Prompt, prompt_id
from opengrok_jax.storage import read_jsonl


def plan(*, posts_file: str, task: str, instruction: str, count: int) -> list[Prompt]:
    """One prompt for each distinct question of a .jsonl or .jsonl.gz file of {"text", "label"?}.

    A row may ask its own question, as `opengrok gold` writes them: "question" is then the whole
    prompt, the post in it, and "task" the task's name; rows of several tasks make one student of
    all of them.

    Args:
      task, instruction: of the rows without their own; "" where all have one.
      count: at most so many, the first after sorting by the SHA-256 of the text; 0 takes all.

    Raises:
      ConfigError: the file, the task or {post} in the instruction is not given, or a question
        holds wording meant to get around a safeguard.
      DataError: a row has no text, or one question stands there with two labels.
    """
    if not posts_file or bool(task) != bool(instruction):
        raise ConfigError(
            "prompts.source='posts' needs prompts.posts_file, and prompts.task with "
            "prompts.instruction unless every row has a question and a task"
        )
    if instruction and "{post}" not in instruction:
        raise ConfigError(
            f"prompts.instruction must be one that holds {{post}}, got {instruction!r}"
        )
    lint.refuse(instruction, "prompts.instruction")
    asked: dict[str, tuple[str, str, str]] = {}  # question -> text, label, task
    for number, row in enumerate(read_jsonl(Path(posts_file)), start=1):
        where = f"{posts_file}, row {number}"
        text, label, name, question = _row(row, task, instruction, where)
        if asked.setdefault(question, (text, label, name))[1] != label:
            raise DataError(
                f"{where}: this post stands there twice, as {asked[question][1]!r} "
                f"and as {label!r}; keep one: {text[:60]!r}"
            )
    order = sorted(asked, key=lambda q: hashlib.sha256(asked[q][0].encode()).digest())
    prompts = []
    for question in order[: count or None]:
        text, label, name = asked[question]
        messages = (Message(role="user", content=question),)
        prompts.append(
            Prompt(
                id=prompt_id(messages),
                messages=messages,
                cell=Cell(intent=name),
                template="instruction",
                posts=(text,),
                label=label,
            )
        )
    return prompts


def _row(row: dict[str, Any], task: str, instruction: str, where: str) -> tuple[str, str, str, str]:
    """(text, label, task, question) of a row."""
    text, label = row.get("text"), row.get("label", "")
    name, question = row.get("task", task), row.get("question")
    if not isinstance(text, str) or not text.strip() or not isinstance(label, str):
        raise DataError(
            f'{where}: expected {{"text": ..., "label": ...}} with two strings, got {str(row)[:80]}'
        )
    if question is None and instruction:
        return text, label, task, instruction.replace("{post}", text)
    if not isinstance(question, str) or not isinstance(name, str) or not name:
        raise DataError(
            f'{where}: expected a "question" and the name of its "task", since there is no '
            "prompts.instruction for it"
        )
    if text not in question:
        raise DataError(f"{where}: the question does not hold the text: {question[:60]!r}")
    lint.refuse(question.replace(text, ""), f"{where}: the question")
    return text, label, name, question
