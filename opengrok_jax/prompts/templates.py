"""The templates: how a cell of the axes becomes words.

Three are the report's own kind (its slots, our wording): trends in a topic, what people say of an
event, a post in a platform's voice. The rest are ours, so that one intent is asked for in several
ways and the student does not learn a single frame.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.prompts import lint
from opengrok_jax.prompts.axes import Post
from opengrok_jax.records import Cell, Message, Prompt, from_json, prompt_id
from opengrok_jax.storage import read_json

POSTS_QUOTED = {"plain": 2, "noisy": 3, "hard": 4}  # by hardness, where a template takes several
SLOTS = ("topic", "event", "platform", "style", "post", "posts", "twist")


@dataclass(frozen=True, kw_only=True)
class Template:
    """One way of asking.

    Attributes:
      name: unique; noted with every prompt it makes.
      intent: what is asked for.
      text: the prompt, with {slots} out of `SLOTS`.
      origin: "report" for the report's kind, "ours" for the rest.
      weight: how often it comes up beside the others of its intent.
      form: what can be checked in the answer, see `techniques.FORM`.
    """

    name: str
    intent: str
    text: str
    origin: Literal["report", "ours"] = "ours"
    weight: int = 1
    form: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses a slot that nothing fills."""
        if unknown := sorted(set(self.slots) - set(SLOTS)):
            raise ConfigError(
                f"template {self.name} has the slot {', '.join(unknown)}; known: {', '.join(SLOTS)}"
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots in the text."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.text) if name)


# What a prompt without posts asks on top, by hardness: adversarial prompts in the report's sense
# (conflicting demands, several steps), never a way around a safeguard.
TWISTS = {
    "plain": "",
    "noisy": " Write it the way people type there in a hurry: abbreviations, lower case, an emoji"
    " or a tag where it fits.",
    "hard": " Admit one point of the other side before you make your own, and end on an open"
    " question.",
}

# The label tasks are asked for in the very words that the evaluation uses.
SENTIMENT = (
    "Classify the sentiment of this post as negative, neutral or positive. "
    "Answer with one word.\n\nPost: {post}"
)
EMOTION = (
    "Which emotion does this post express: anger, joy, optimism or sadness? "
    "Answer with one word.\n\nPost: {post}"
)
TOPIC = (
    "Which topic is this post about: football, smartphones, transit, streaming, food, weather, "
    "games, elections, space, fitness, housing or music? Answer with one word.\n\nPost: {post}"
)
ENTITIES = (
    "List the named entities in this post, one per line, as type: name. Types: person, location, "
    "group, product, work. Answer none if there are none.\n\nPost: {post}"
)

_SENTIMENTS = ("negative", "neutral", "positive")
_EMOTIONS = ("anger", "joy", "optimism", "sadness")

TEMPLATES = (
    # Trends
    Template(
        name="report-trends",
        intent="trend_summary",
        origin="report",
        text="Summarize the latest trends in {topic} on {platform}, going by these posts:\n\n"
        "{posts}",
    ),
    Template(
        name="trend-one-sentence",
        intent="trend_summary",
        form={"sentences": 1},
        text="In one sentence, what is the mood around {event}? Use only what is said here.\n\n"
        "{posts}",
    ),
    Template(
        name="trend-newsletter",
        intent="trend_summary",
        text="You write a weekly newsletter on {topic}. Turn these posts into one short item, with"
        " a headline.\n\n{posts}",
    ),
    Template(
        name="trend-bullets",
        intent="trend_summary",
        form={"bullets": 3},
        text="Give three short bullet points on what people are discussing:\n\n{posts}",
    ),
    # What people say
    Template(
        name="report-opinion",
        intent="public_opinion",
        origin="report",
        text="What are people saying about {event}?\n\n{posts}",
    ),
    Template(
        name="opinion-for-against",
        intent="public_opinion",
        text="Split the opinions in these posts about {event} into for, against and undecided."
        "\n\n{posts}",
    ),
    Template(
        name="opinion-absent-friend",
        intent="public_opinion",
        text="A friend was offline all day and asks what the fuss over {event} is. Tell them in"
        " two or three sentences.\n\n{posts}",
    ),
    Template(
        name="opinion-strongest-point",
        intent="public_opinion",
        text="Which single point in these posts about {event} would be hardest to argue with, and"
        " why?\n\n{posts}",
    ),
    # A post in a voice
    Template(
        name="report-post",
        intent="platform_post",
        origin="report",
        text="Write a post for {platform} about {event}. Style: {style}.{twist}",
    ),
    Template(
        name="post-first-hand",
        intent="platform_post",
        text="You were there for {event}. Post about it on {platform}. Voice: {style}.{twist}",
    ),
    Template(
        name="post-skeptic",
        intent="platform_post",
        text="Write what a sceptic would post on {platform} about {event}. Keep the tone {style}."
        "{twist}",
    ),
    Template(
        name="post-reply",
        intent="platform_post",
        text="Write a reply, {style} in tone, to this {platform} post:\n\n{post}",
    ),
    # Sentiment
    Template(
        name="sentiment-word",
        intent="sentiment",
        weight=3,
        form={"words": 1, "starts_with": _SENTIMENTS},
        text=SENTIMENT,
    ),
    Template(
        name="sentiment-because",
        intent="sentiment",
        form={"starts_with": _SENTIMENTS},
        text="Is this post negative, neutral or positive? Give the label first, then the reason in"
        " one sentence.\n\n{post}",
    ),
    Template(
        name="sentiment-author",
        intent="sentiment",
        form={"starts_with": _SENTIMENTS},
        text="How does the author feel about {event}: negative, neutral or positive? Start with"
        " the label and name the words that show it.\n\n{post}",
    ),
    # Emotion
    Template(
        name="emotion-word",
        intent="emotion",
        weight=3,
        form={"words": 1, "starts_with": _EMOTIONS},
        text=EMOTION,
    ),
    Template(
        name="emotion-because",
        intent="emotion",
        form={"starts_with": _EMOTIONS},
        text="Anger, joy, optimism or sadness: which one is strongest here? Label first, then one"
        " sentence on why.\n\n{post}",
    ),
    Template(
        name="emotion-reader",
        intent="emotion",
        form={"starts_with": _EMOTIONS},
        text="Name the author's emotion (anger, joy, optimism or sadness), then say in one"
        " sentence how a kind stranger might answer.\n\n{post}",
    ),
    # Topic
    Template(name="topic-word", intent="topic", weight=3, form={"words": 1}, text=TOPIC),
    Template(
        name="topic-tags",
        intent="topic",
        form={"hashtags": 3},
        text="Suggest three hashtags under which this post would be found, without repeating one"
        " it already has.\n\n{post}",
    ),
    Template(
        name="topic-keyphrases",
        intent="topic",
        text="Name the main subject of this post in at most six words, then one side issue it"
        " touches.\n\n{post}",
    ),
    # Entities
    Template(name="entities-lines", intent="entities", weight=3, text=ENTITIES),
    Template(
        name="entities-who",
        intent="entities",
        text="Who and what is named in this post? One short sentence each on what the post says"
        " of them.\n\n{post}",
    ),
    # Rewriting a tone
    Template(
        name="rewrite-style",
        intent="tone_rewrite",
        text="Rewrite this post, make its tone {style} and keep every fact.\n\n{post}",
    ),
    Template(
        name="rewrite-platform",
        intent="tone_rewrite",
        text="Rework this post for {platform}, as someone {style} would put it there.\n\n{post}",
    ),
    Template(
        name="rewrite-shorter",
        intent="tone_rewrite",
        form={"max_words": 15},
        text="Cut this post to at most fifteen words; the tone should end up {style}.\n\n{post}",
    ),
    Template(
        name="rewrite-spelled-out",
        intent="tone_rewrite",
        text="Write this post out in plain standard English for someone who does not know the"
        " slang, hashtags or emoji.\n\n{post}",
    ),
    # Reasoning over conflicting posts
    Template(
        name="conflict-reconcile",
        intent="conflicting_posts",
        text="These posts about {event} do not agree. Say what they disagree on, and what can"
        " still be taken as likely.\n\n{posts}",
    ),
    Template(
        name="conflict-trust",
        intent="conflicting_posts",
        text="Which of these posts is the best source on {event}, and which the weakest? Reason in"
        " two or three steps.\n\n{posts}",
    ),
    Template(
        name="conflict-missing",
        intent="conflicting_posts",
        text="What would you need to find out to settle what these posts claim about {event}? List"
        " up to three things.\n\n{posts}",
    ),
    Template(
        name="conflict-sarcasm",
        intent="conflicting_posts",
        text="Some of these posts may not mean what they say. Go through them one by one and give"
        " what each author thinks of {event}.\n\n{posts}",
    ),
)

INTENTS = tuple(dict.fromkeys(t.intent for t in TEMPLATES))


def load(path: str = "") -> tuple[Template, ...]:
    """The templates that ship and, beside them, the user's own out of a JSON list; "": none.

    Raises:
      DataError: the file is missing or malformed, or a name is taken.
      ConfigError: a text has a slot that nothing fills, or wording meant to get around a safeguard.
    """
    if not path:
        return TEMPLATES
    rows = read_json(Path(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of templates")
    found = {template.name: template for template in TEMPLATES}
    for number, row in enumerate(rows, start=1):
        try:
            template = from_json(Template, row)
            named = template.slots
        except (DataError, ValueError) as error:
            raise DataError(f"{path}, template {number}: {error}") from None
        if template.name in found or not named or template.weight < 1 or not template.intent:
            raise DataError(
                f"{path}, template {number}: expected a name that is not taken, an intent, a "
                f"weight above 0 and a text with slots; got {template.name!r}, {template.text!r}"
            )
        lint.refuse(template.text, f"{path}, template {template.name},")
        found[template.name] = template
    return tuple(found.values())


def fill(template: Template, cell: Cell, event: str, posts: tuple[Post, ...]) -> Prompt:
    """The prompt that a template makes of a cell and the posts quoted in it."""
    text = template.text.format(
        topic=cell.topic,
        event=event,
        platform=cell.platform,
        style=cell.style,
        twist=TWISTS.get(cell.hardness, ""),
        post=posts[0].text if posts else "",
        posts="\n".join(f"{n}. [{p.platform}] {p.text}" for n, p in enumerate(posts, start=1)),
    )
    messages = (Message(role="user", content=text),)
    return Prompt(
        id=prompt_id(messages),
        messages=messages,
        cell=cell,
        template=template.name,
        posts=tuple(p.text for p in posts),
    )
