"""Which persons, places, groups, companies, products and works does a post name? WNUT 2017.

Scored as its scorer does: entity F1 (exact span and type), and surface-form F1, in which a name
counts once in the whole set. A system names the entities in words; every place where a name stands
in the post is tagged, the longest name first (`spans.tag_names`). The training set holds most of
Ritter's 2011 tweets and of WNUT16's dev set: neither tests a system that has read it.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Task, tags_by_number

TYPES = ("person", "location", "group", "corporation", "product", "creative-work")
# The numbers of `ner_tags` on the hub.
TAGS = ("O", *(f"{b}-{kind}" for kind in sorted(TYPES) for b in "BI"))


TASK = Task(
    name="wnut17",
    instruction="List the named entities in this post, one per line, as type: name. "
    f"Types: {', '.join(TYPES)}. Answer none if there are none.\n\nPost: {{post}}",
    kind="tags",
    types=TYPES,
    metric="span_f1",
    also=("surface_f1",),
    local="ner/wnut17.test.jsonl.gz",
    hub=Hub(
        path="leondz/wnut_17",
        parts={"wnut_17": {}},
        read=tags_by_number(TAGS),
        revision="refs/convert/parquet",
    ),
)
