"""Which of TweetEval's four emotions does a post express? Asked and scored as there: macro F1."""

from __future__ import annotations

from dataclasses import replace

from opengrok_jax.evaluation.tasks import ASSETS, tweeteval_emotion

TASK = replace(
    tweeteval_emotion.TASK,
    name="emotion",
    file=ASSETS / "emotion.jsonl",
    local="",
    hub=None,
)
