"""Answers of a small classical teacher: TF-IDF + logistic regression, each post by a stranger.

The posts are dealt into folds; those of a fold are answered by a regression that learnt from the
others. So no answer is a memory of its own gold label, and about as many are wrong as such a
teacher gets wrong on posts it has never seen: answers to distil where no large teacher is at hand.

OUT/NAME.posts.jsonl   {"text", "label"}: the posts with their gold label, spelled as the task does
OUT/NAME.jsonl         recordings for teacher.kind "recorded", see `teacher.answers`
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation.floors import tfidf_regression
from opengrok_jax.evaluation.tasks import Item, make_task
from opengrok_jax.progress import say, track
from opengrok_jax.records import Message, prompt_id, to_json


def run(
    *,
    task: str,
    posts_file: Path,
    out: Path,
    name: str,
    count: int = 0,
    folds: int = 5,
    instruction: str = "",
) -> dict[str, Any]:
    """Writes both files.

    Args:
      task: name of a known task of kind "label", which gives question, labels and their words.
      posts_file: .jsonl or .jsonl.gz of {"text", "label"}, the training split. A post that stands
        there with two labels is left out, as are empty ones.
      out: folder.
      name: of the files.
      count: at most so many posts, the first after sorting by the SHA-256 of the text; 0 = all.
      folds: at least 2.
      instruction: how the posts are asked about, with {post}; "" = as the task does.

    Returns:
      posts, left_out, agreement: share of the answers that are the gold label.

    Raises:
      ConfigError: a task of another kind, fewer than two folds, or an instruction without {post}.
      DataError: a row that is none, an unknown label, or too few posts.
    """
    changed = {"instruction": instruction} if instruction else {}
    made = make_task(task, changed, str(posts_file.parent.parent))
    if made.kind != "label":
        raise ConfigError(f"task {task!r} is of kind {made.kind!r}; expected 'label'")
    if folds < 2:
        raise ConfigError(f"folds is {folds}; expected at least 2")
    word = dict(zip(made.labels, made.spelled, strict=True))
    labels: dict[str, set[str]] = {}
    for number, row in enumerate(storage.read_jsonl(posts_file), start=1):
        text, label = row.get("text"), row.get("label")
        if not isinstance(text, str) or label not in word:
            raise DataError(
                f"{posts_file}, row {number}: label {label!r}; expected text and one of "
                f"{', '.join(made.labels)}"
            )
        labels.setdefault(text, set()).add(label)
    clear = {text: found.pop() for text, found in labels.items() if text.strip() and len(found) < 2}
    texts = sorted(clear, key=lambda text: hashlib.sha256(text.encode()).digest())[: count or None]
    if len(texts) < folds:
        raise DataError(f"{posts_file} holds {len(texts)} usable posts; expected at least {folds}")
    answered: dict[str, str] = {}
    with track("out-of-fold", total=folds, unit="folds") as advance:
        for fold in range(folds):
            # The order is that of hashes, so that every folds-th post is a random sample.
            asked = texts[fold::folds]
            hidden = set(asked)
            rows = [(text, clear[text]) for text in texts if text not in hidden]
            items = [Item(id=text, text=text, gold=clear[text]) for text in asked]
            found, note = tfidf_regression(made, rows, items)
            if not found:
                raise DataError(note)
            answered |= {p.text: str(p.predicted) for p in found}
            advance()
    posts = [{"text": text, "label": word[clear[text]]} for text in texts]
    recordings = []
    for text in texts:
        message = Message(role="user", content=made.instruction.replace("{post}", text))
        recordings.append(
            {
                "id": prompt_id((message,)),
                "messages": [to_json(message)],
                "response": word[answered[text]],
                "finish_reason": "stop",
            }
        )
    storage.write_jsonl(out / f"{name}.posts.jsonl", posts)
    storage.write_jsonl(out / f"{name}.jsonl", recordings)
    agreement = sum(answered[text] == clear[text] for text in texts) / len(texts)
    say(f"{name}: {len(texts)} posts answered, {agreement:.1%} as their gold label")
    left_out = sum(1 for _ in labels) - len(clear)
    return {"posts": len(texts), "left_out": left_out, "agreement": agreement}
