"""A task of your own: copy this file, change it, and name it in the config.

    config.evaluation.tasks = {"claims": {"module": "my/claims.py", "file": "my/claims.jsonl"}}

The file of gold rows is JSONL, plain or gzipped, with `text` and `label`; `read` renames what is
called otherwise. Other kinds of answers, and the metrics that go with them, are in the docstring of
`opengrok_jax.evaluation.tasks`; their rows in that of `tasks.rows`. Floors, intervals, comparisons,
leaks and the report come by themselves.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Task

TASK = Task(
    name="claims",
    instruction="Does this post make a claim that can be checked? Answer with yes or no."
    "\n\nPost: {post}",
    labels=("no", "yes"),
    metric="f1:yes",
    also=("accuracy",),
    read=lambda row: {"text": row["tweet_text"], "label": row["class_label"].lower()},
)
