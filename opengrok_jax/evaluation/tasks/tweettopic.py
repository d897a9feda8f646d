"""Which of TweetTopic's nineteen topics is a tweet about? Several may be.

Antypas et al. 2022; the temporal split, test of 2021. Scored by micro F1, with macro F1 and the
share of exactly right sets beside it. Only on the hub.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Row, Task

LABELS = (
    *("arts_&_culture", "business_&_entrepreneurs", "celebrity_&_pop_culture"),
    *("diaries_&_daily_life", "family", "fashion_&_style", "film_tv_&_video"),
    *("fitness_&_health", "food_&_dining", "gaming", "learning_&_educational", "music"),
    *("news_&_social_concern", "other_hobbies", "relationships", "science_&_technology"),
    *("sports", "travel_&_adventure", "youth_&_student_life"),
)
WORDS = tuple(label.replace("_", " ").replace("&", "and") for label in LABELS)
INSTRUCTION = (
    f"Which of these topics is this post about: {'; '.join(WORDS)}? "
    "Answer with one or more of them, separated by semicolons.\n\nPost: {post}"
)


def read(row: Row) -> Row:
    """The hub's row: `label_name` lists the labels, `label` holds a 0 or 1 for each."""
    return {"text": row["text"], "labels": row["label_name"], "id": str(row["id"])}


TASK = Task(
    name="tweettopic",
    instruction=INSTRUCTION,
    kind="labels",
    labels=LABELS,
    words=WORDS,
    metric="micro_f1",
    also=("macro_f1", "exact_match"),
    local="topic/tweettopic.test.jsonl.gz",
    hub=Hub(path="cardiffnlp/tweet_topic_multi", split="test_2021", read=read),
)
