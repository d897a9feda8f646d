"""Is a post negative, neutral or positive? Scored as TweetEval does: macro-averaged recall."""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import ASSETS, Task

TASK = Task(
    name="sentiment",
    instruction="Classify the sentiment of this post as negative, neutral or positive. "
    "Answer with one word.\n\nPost: {post}",
    labels=("negative", "neutral", "positive"),
    metric="macro_recall",
    file=ASSETS / "sentiment.jsonl",
)
