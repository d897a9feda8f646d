"""Which of twelve topics is a post about? Scored by macro F1, so that rare topics count."""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import ASSETS, Task

TASK = Task(
    name="topic",
    instruction="Which topic is this post about: football, smartphones, transit, streaming, food, "
    "weather, games, elections, space, fitness, housing or music? "
    "Answer with one word.\n\nPost: {post}",
    labels=(
        *("football", "smartphones", "transit", "streaming", "food", "weather"),
        *("games", "elections", "space", "fitness", "housing", "music"),
    ),
    metric="macro_f1",
    file=ASSETS / "topic.jsonl",
)
