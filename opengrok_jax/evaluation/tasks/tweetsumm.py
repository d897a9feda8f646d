"""What was a support thread on Twitter about, in a few sentences? TweetSumm, 110 test threads.

Feigenblat et al. 2021, up to five abstractive summaries a thread. Scored by ROUGE F1 against the
best of them, as rouge-score's `score_multi` does; published numbers on this text use the first
one, which ":first" gives. No set with its text is on the hub under a name we could vouch for:
local only.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Task

TASK = Task(
    name="tweetsumm",
    instruction="Summarize this conversation between a customer and a support agent "
    "in two or three sentences.\n\n{post}",
    kind="summary",
    metric="rougeL",
    also=("rouge1", "rouge2", "rouge1:first", "rouge2:first", "rougeL:first"),
    local="summ/tweetsumm.test.jsonl.gz",
)
