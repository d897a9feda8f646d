"""Prompts made of the user's own posts: one instruction, asked of each.

With labels they feed the `labelled` teacher, which answers from them: so gold data can be
distilled, or mixed in, through the same rooms as a model's answers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.prompts import lint
from opengrok_jax.records import Cell, Message, Prompt, prompt_id
from opengrok_jax.storage import read_jsonl


def plan(*, posts_file: str, task: str, instruction: str, count: int) -> list[Prompt]:
    """One prompt for each distinct post of a .jsonl or .jsonl.gz file of {"text", "label"?}.

    Args:
      count: at most so many, the first after sorting by the SHA-256 of the text; 0 takes all.

    Raises:
      ConfigError: the file, the task or {post} in the instruction is not given, or the
        instruction holds wording meant to get around a safeguard.
      DataError: a row has no text, or one post stands there with two labels.
    """
    if not posts_file or not task or "{post}" not in instruction:
        raise ConfigError(
            "prompts.source='posts' needs prompts.posts_file, prompts.task and a "
            "prompts.instruction that holds {post}"
        )
    lint.refuse(instruction, "prompts.instruction")
    labels: dict[str, str] = {}
    for number, row in enumerate(read_jsonl(Path(posts_file)), start=1):
        text, label = row.get("text"), row.get("label", "")
        if not isinstance(text, str) or not text.strip() or not isinstance(label, str):
            raise DataError(
                f'{posts_file}, row {number}: expected {{"text": ..., "label": ...}} with two '
                f"strings, got {str(row)[:80]}"
            )
        if labels.setdefault(text, label) != label:
            raise DataError(
                f"{posts_file}, row {number}: this post stands there twice, as {labels[text]!r} "
                f"and as {label!r}; keep one: {text[:60]!r}"
            )
    texts = sorted(labels, key=lambda text: hashlib.sha256(text.encode()).digest())
    prompts = []
    for text in texts[: count or None]:
        messages = (Message(role="user", content=instruction.replace("{post}", text)),)
        prompts.append(
            Prompt(
                id=prompt_id(messages),
                messages=messages,
                cell=Cell(intent=task),
                template="instruction",
                posts=(text,),
                label=labels[text],
            )
        )
    return prompts
