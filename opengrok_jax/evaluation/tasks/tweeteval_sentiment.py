"""Is a tweet negative, neutral or positive? SemEval-2017 task 4A, scored by macro recall."""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task

TASK = Task(
    name="tweeteval-sentiment",
    instruction="Classify the sentiment of this post as negative, neutral or positive. "
    "Answer with one word.\n\nPost: {post}",
    labels=("negative", "neutral", "positive"),
    metric="macro_recall",
    local="tweeteval/sentiment.test.jsonl.gz",
    hub=Hub(path="cardiffnlp/tweet_eval", parts={"sentiment": {}}),
)
