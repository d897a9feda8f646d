"""Which persons, places and organisations does a tweet name? The Broad Twitter Corpus.

Derczynski et al. 2016. Scored by entity micro F1, with macro F1 and the F1 of spans whatever their
type beside it, as T-NER reports them.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task, tags_by_number

TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")  # as the hub numbers them


TASK = Task(
    name="btc",
    instruction="List the named entities in this post, one per line, as type: name. "
    "Types: PER (person), LOC (location), ORG (organisation). "
    "Answer none if there are none.\n\nPost: {post}",
    kind="tags",
    types=("PER", "LOC", "ORG"),
    metric="span_f1",
    also=("span_macro_f1", "span_f1_untyped"),
    local="ner/btc.test.jsonl.gz",
    hub=Hub(
        path="GateNLP/broad_twitter_corpus",
        parts={"broad-twitter-corpus": {}},
        read=tags_by_number(TAGS),
        revision="refs/convert/parquet",
    ),
)
