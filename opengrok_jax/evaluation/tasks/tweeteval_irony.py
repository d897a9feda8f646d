"""Is a tweet ironic? SemEval-2018 task 3A, scored by the F1 of the ironic ones alone.

Always answering "ironic" gives 56.8, which is the floor.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task

TASK = Task(
    name="tweeteval-irony",
    instruction="Is this post ironic or not ironic? Answer with ironic or not ironic."
    "\n\nPost: {post}",
    labels=("non_irony", "irony"),
    words=("not ironic", "ironic"),
    metric="f1:irony",
    local="tweeteval/irony.test.jsonl.gz",
    hub=Hub(path="cardiffnlp/tweet_eval", parts={"irony": {}}),
)
