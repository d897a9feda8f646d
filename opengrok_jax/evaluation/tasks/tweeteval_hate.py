"""Does a tweet attack women or immigrants? SemEval-2019 task 5, scored by macro F1.

The official test set differs from its training set: scores near 50 are usual, 75 is reached on a
random split of the pooled data.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task

TASK = Task(
    name="tweeteval-hate",
    instruction="Is this post hateful towards women or immigrants, or not hateful? "
    "Answer with hateful or not hateful.\n\nPost: {post}",
    labels=("not_hate", "hate"),
    words=("not hateful", "hateful"),
    metric="macro_f1",
    local="tweeteval/hate.test.jsonl.gz",
    hub=Hub(path="cardiffnlp/tweet_eval", parts={"hate": {}}),
)
