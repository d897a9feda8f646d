"""Which persons, places, groups, products and works does a post name?

Scored by entity F1: (type, name) pairs per post, spelled exactly as in the post, each counted
once. That is neither the span F1 of CoNLL and WNUT17 (positions play no part here) nor WNUT17's
surface F1 (which counts a name once per corpus, not once per post).
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import ASSETS, Task

TASK = Task(
    name="entities",
    instruction="List the named entities in this post, one per line, as type: name. "
    "Types: person, location, group, product, work. "
    "Answer none if there are none.\n\nPost: {post}",
    kind="entities",
    metric="entity_f1",
    file=ASSETS / "entities.jsonl",
    types=("person", "location", "group", "product", "work"),
)
