"""Is a tweet against or in favour of a target, or neither? SemEval-2016 task 6A.

Scored by the mean of the F1 of `against` and of `favor` over the five targets pooled; `none` is
predicted and not averaged. Broken down by target too. Always answering "against" gives 36.4.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Row, Task

# As TweetEval calls them, and in words.
TARGETS = {
    "abortion": "the legalization of abortion",
    "atheism": "atheism",
    "climate": "the view that climate change is a real concern",
    "feminist": "the feminist movement",
    "hillary": "Hillary Clinton",
}


def read(row: Row) -> Row:
    """A row with its target in words, where it names one."""
    words = {"target_in_words": TARGETS[row["target"]]} if row.get("target") in TARGETS else {}
    return {**row, **words}


TASK = Task(
    name="tweeteval-stance",
    instruction="Is this post against or in favor of {target_in_words}, or neither? "
    "Answer with against, favor or none.\n\nPost: {post}",
    labels=("none", "against", "favor"),
    metric="mean_f1:against,favor",
    fields={"target_in_words": "what it speaks about"},
    group="target",
    local="tweeteval/stance.test.jsonl.gz",
    hub=Hub(
        path="cardiffnlp/tweet_eval",
        parts={f"stance_{name}": {"target": name} for name in TARGETS},
        read=read,
    ),
    read=read,
)
