"""Which of TweetEval's four emotions does a post express? Scored as there: macro F1."""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import ASSETS, Task

TASK = Task(
    name="emotion",
    instruction="Which emotion does this post express: anger, joy, optimism or sadness? "
    "Answer with one word.\n\nPost: {post}",
    labels=("anger", "joy", "optimism", "sadness"),
    metric="macro_f1",
    file=ASSETS / "emotion.jsonl",
)
