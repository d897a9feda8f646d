"""TweetTopic's nineteen topics in four languages: X-Topic, 800 test posts in each of them.

Antypas et al. 2024, arXiv 2410.03075. The question stays English.
"""

from __future__ import annotations

from dataclasses import replace

from opengrok_jax.evaluation.tasks import Hub
from opengrok_jax.evaluation.tasks.tweettopic import TASK, read

TASKS = {
    f"xtopic-{language}": replace(
        TASK,
        name=f"xtopic-{language}",
        local=f"topic/xtopic-{language}.test.jsonl.gz",
        hub=Hub(path="cardiffnlp/tweet_topic_multilingual", parts={language: {}}, read=read),
    )
    for language in ("en", "es", "el", "ja")
}
