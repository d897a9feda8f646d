"""The axes along which prompts vary, and the bank of posts that they quote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from opengrok_jax.errors import DataError
from opengrok_jax.prompts import lint
from opengrok_jax.records import from_json
from opengrok_jax.storage import read_json, read_jsonl

ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True, kw_only=True)
class Post:
    """A post of the bank; `hardness` says how hard it is to read, not to like."""

    topic: str
    event: str
    platform: str
    hardness: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The values of every axis.

    Attributes:
      topics: topic -> event slug -> the event in words, fit to follow "about".
      platforms, styles, hardness: the other axes' values.
      posts: the bank.
    """

    topics: dict[str, dict[str, str]]
    platforms: tuple[str, ...]
    styles: tuple[str, ...]
    hardness: tuple[str, ...]
    posts: tuple[Post, ...]


def load(axes_file: str = "", posts_file: str = "") -> Axes:
    """Reads the axes; "" stands for the ones that ship with the package.

    Raises:
      DataError: a file is missing or malformed, a post lies off the axes, or an event has no post.
      ConfigError: a value of an axis holds wording meant to get around a safeguard.
    """
    path = Path(axes_file) if axes_file else ASSETS / "axes.json"
    raw = read_json(path)
    try:
        topics = {
            str(t): {str(e): str(w) for e, w in es.items()} for t, es in raw["topics"].items()
        }
        platforms, styles, hardness = (
            tuple(map(str, raw[key])) for key in ("platforms", "styles", "hardness")
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected topics (topic -> event -> words), platforms, styles and hardness; "
            f"could not read {error}"
        ) from None
    words = [w for events in topics.values() for w in events.values()]
    for word in (*topics, *words, *platforms, *styles, *hardness):
        lint.refuse(word, f"{path}: {word[:40]!r}")
    bank = Path(posts_file) if posts_file else ASSETS / "posts.jsonl"
    posts = []
    for number, row in enumerate(read_jsonl(bank), start=1):
        try:
            post = from_json(Post, row)
        except DataError as error:
            raise DataError(f"{bank}, post {number}: {error}") from None
        if post.event not in topics.get(post.topic, {}) or post.hardness not in hardness:
            raise DataError(
                f"{bank}, post {number}: {post.topic} / {post.event} / {post.hardness} is not on "
                f"the axes of {path}"
            )
        posts.append(post)
    covered = {(post.topic, post.event) for post in posts}
    for topic, events in topics.items():
        if bare := sorted(set(events) - {event for t, event in covered if t == topic}):
            raise DataError(f"{bank} has no post on {topic} / {bare[0]}, which {path} names")
    return Axes(
        topics=topics, platforms=platforms, styles=styles, hardness=hardness, posts=tuple(posts)
    )


def nearest(axes: Axes, topic: str, event: str, level: str) -> list[Post]:
    """Posts on an event at a hardness; where the bank has none of it, any on the event."""
    of_event = [p for p in axes.posts if (p.topic, p.event) == (topic, event)]
    return [p for p in of_event if p.hardness == level] or of_event
