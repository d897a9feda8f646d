"""Is a tweet offensive? SemEval-2019 task 6A (OLID), scored by macro F1."""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task

TASK = Task(
    name="tweeteval-offensive",
    instruction="Is this post offensive or not offensive? Answer with offensive or not "
    "offensive.\n\nPost: {post}",
    labels=("not_offensive", "offensive"),
    words=("not offensive", "offensive"),
    metric="macro_f1",
    local="tweeteval/offensive.test.jsonl.gz",
    hub=Hub(path="cardiffnlp/tweet_eval", parts={"offensive": {}}),
)
