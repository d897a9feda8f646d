"""Which emotion does a tweet express? SemEval-2018 task 1, scored by macro F1."""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task

TASK = Task(
    name="tweeteval-emotion",
    instruction="Which emotion does this post express: anger, joy, optimism or sadness? "
    "Answer with one word.\n\nPost: {post}",
    labels=("anger", "joy", "optimism", "sadness"),
    metric="macro_f1",
    local="tweeteval/emotion.test.jsonl.gz",
    hub=Hub(path="cardiffnlp/tweet_eval", parts={"emotion": {}}),
)
