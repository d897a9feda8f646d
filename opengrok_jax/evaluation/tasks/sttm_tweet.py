"""Which posts belong together? 2,472 tweets of the TREC microblog track in 89 clusters.

The set that STTM and most papers on short-text topic models use. A system names a topic freely;
posts with the same words form a cluster. Scored by normalised mutual information, and by purity,
which a system with many small clusters gets for nothing: read it beside the number of clusters in
the notes. Coherence is left out: it wants a reference corpus far larger than the posts. Local only.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Task

TASK = Task(
    name="sttm-tweet",
    instruction="What is this post about? Name its topic in one or two words.\n\nPost: {post}",
    kind="clusters",
    metric="nmi",
    also=("purity",),
    local="topic/sttm-tweet.jsonl.gz",
)
