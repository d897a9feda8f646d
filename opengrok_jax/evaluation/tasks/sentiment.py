"""Is a post negative, neutral or positive? Asked and scored as in TweetEval: macro recall."""

from __future__ import annotations

from dataclasses import replace

from opengrok_jax.evaluation.tasks import ASSETS, tweeteval_sentiment

TASK = replace(
    tweeteval_sentiment.TASK,
    name="sentiment",
    file=ASSETS / "sentiment.jsonl",
    local="",
    hub=None,
)
