"""Is a tweet negative, neutral or positive, in eight languages? UMSAB, 870 test tweets in each.

Barbieri et al. 2022 (XLM-T). Scored by macro F1 on all of them, and broken down by language. The
English test posts share some with SemEval's training set.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task

LANGUAGES = (
    *("arabic", "english", "french", "german", "hindi", "italian", "portuguese", "spanish"),
)

TASK = Task(
    name="umsab",
    instruction="Classify the sentiment of this post as negative, neutral or positive. "
    "Answer with one word, in English.\n\nPost: {post}",
    labels=("negative", "neutral", "positive"),
    metric="macro_f1",
    fields={"language": ""},
    group="language",
    local="multilingual/umsab-sentiment.test.jsonl.gz",
    hub=Hub(
        path="cardiffnlp/tweet_sentiment_multilingual",
        parts={language: {"language": language} for language in LANGUAGES},
        revision="refs/convert/parquet",
    ),
)
