"""Which of twenty emoji did the writer put at the end? SemEval-2018 task 2, scored by macro F1.

The emoji themselves are the answers. Four people agree with the original one on 33 to 48 % of posts
with four emoji to choose from: this task has no reliable key.
"""

from __future__ import annotations

from opengrok_jax.evaluation.tasks import Hub, Row, Task

# As TweetEval's mapping.txt numbers and names them.
EMOJI = {
    "❤": "_red_heart_",
    "😍": "_smiling_face_with_hearteyes_",
    "😂": "_face_with_tears_of_joy_",
    "💕": "_two_hearts_",
    "🔥": "_fire_",
    "😊": "_smiling_face_with_smiling_eyes_",
    "😎": "_smiling_face_with_sunglasses_",
    "✨": "_sparkles_",
    "💙": "_blue_heart_",
    "😘": "_face_blowing_a_kiss_",
    "📷": "_camera_",
    "🇺🇸": "_United_States_",
    "☀": "_sun_",
    "💜": "_purple_heart_",
    "😉": "_winking_face_",
    "💯": "_hundred_points_",
    "😁": "_beaming_face_with_smiling_eyes_",
    "🎄": "_Christmas_tree_",
    "📸": "_camera_with_flash_",
    "😜": "_winking_face_with_tongue_",
}
_OF_NAME = {name.strip("_"): emoji for emoji, name in EMOJI.items()}


def read(row: Row) -> Row:
    """A row whose label may be spelled by its name, or with the mark that asks for colour."""
    label = row.get("label")
    if isinstance(label, str):
        label = _OF_NAME.get(label.strip("_"), label.removesuffix("\N{VARIATION SELECTOR-16}"))
    return {**row, "label": label}


TASK = Task(
    name="tweeteval-emoji",
    instruction=f"Which emoji fits this post best: {' '.join(EMOJI)}? "
    "Answer with one emoji.\n\nPost: {post}",
    labels=tuple(EMOJI),
    metric="macro_f1",
    local="tweeteval/emoji.test.jsonl.gz",
    hub=Hub(path="cardiffnlp/tweet_eval", parts={"emoji": {}}),
    read=read,
)
