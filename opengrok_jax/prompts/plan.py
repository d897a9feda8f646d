"""The plan: which cells are asked for, and in which words.

Every intent walks every axis in a shuffled cycle, so that on each axis the draws of any two
values differ by at most one within an intent (a prompt drawn before is drawn again); the cycles
are seeded apart, so that axes pair up differently each time round:

    topic      B A C | C B A | ...
    hardness   2 1 3 | 1 3 2 | ...
    style      g f h | h g f | ...
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.progress import track
from opengrok_jax.prompts import from_posts
from opengrok_jax.prompts.axes import Axes, Post, nearest
from opengrok_jax.prompts.genome import Repertoire, of, render
from opengrok_jax.prompts.mutate import OPERATORS, Means, mutate
from opengrok_jax.prompts.templates import INTENTS, POSTS_QUOTED, TEMPLATES, Template, fill
from opengrok_jax.records import Cell, Prompt

T = TypeVar("T")

# After so many draws in a row whose prompt exists already, the axes are taken to be used up.
PATIENCE = 200


def run(
    *,
    out: Path,
    source: str = "axes",
    count: int = 400,
    seed: int = 0,
    intents: Sequence[str] = INTENTS,
    axes_file: str = "",
    posts_file: str = "",
    task: str = "",
    instruction: str = "",
    templates_file: str = "",
    techniques: int = 0,
    techniques_file: str = "",
) -> dict:
    """Writes `out/prompts.jsonl`.

    Args:
      out: folder of this stage.
      source: "axes" fills the templates from the axes; "posts" asks `instruction` of every post
        of `posts_file` (the user's own, labelled or not).
      count: how many prompts; with "posts", at most (0: all).
      seed: same seed and config, same ids.
      intents: which intents to plan, in equal shares ("axes").
      axes_file, posts_file: the user's own axes and posts; "" stands for the ones that ship.
      task: name of the task the prompts are for ("posts").
      instruction: the prompt, with {post} where the post goes ("posts").
      templates_file: templates of the user's own, beside those that ship, see `templates.load`.
      techniques: changes made to each prompt by operators drawn by chance, see `mutate`; 0 asks
        the templates as they are.
      techniques_file: the user's own techniques; "" stands for those that ship.

    Returns:
      How many prompts there are, in all and by intent.

    Raises:
      ConfigError: a value is out of range, or the axes are too small for `count`.
      DataError: a file is missing or malformed.
    """
    if techniques < 0:
        raise ConfigError(f"prompts.techniques is {techniques}; expected 0 or more")
    if count < 0 or (count == 0 and source == "axes"):
        raise ConfigError(f"prompts.count is {count}; expected a positive number")
    if source == "posts":
        if techniques or techniques_file or templates_file:
            raise ConfigError(
                "prompts.techniques, techniques_file and templates_file go with "
                "prompts.source='axes'"
            )
        prompts = from_posts.plan(
            posts_file=posts_file, task=task, instruction=instruction, count=count
        )
    elif source == "axes":
        if task or instruction:
            raise ConfigError("prompts.task and prompts.instruction go with prompts.source='posts'")
        repertoire = Repertoire.load(axes_file, posts_file, templates_file, techniques_file)
        templates = tuple(repertoire.templates.values())
        prompts = plan(repertoire.axes, count, seed, tuple(intents), templates)
        prompts = vary(prompts, repertoire, techniques, seed)
    else:
        raise ConfigError(f"prompts.source is {source!r}; expected 'axes' or 'posts'")
    with track("plan", total=len(prompts), unit="prompts") as advance:
        storage.write_jsonl(out / "prompts.jsonl", prompts)
        advance(len(prompts))
    return {"prompts": len(prompts), "intents": dict(Counter(p.cell.intent for p in prompts))}


def plan(
    axes: Axes,
    count: int,
    seed: int,
    intents: tuple[str, ...] = INTENTS,
    templates: Sequence[Template] = TEMPLATES,
) -> list[Prompt]:
    """`count` distinct prompts, the intents in turn.

    Raises:
      ConfigError: an intent is unknown, or the axes hold no further prompt.
    """
    known = dict.fromkeys(t.intent for t in templates)
    if unknown := sorted(set(intents) - set(known)) or not intents:
        raise ConfigError(f"unknown intents {unknown or '(none)'}; known: {', '.join(known)}")
    streams = [_prompts(axes, intent, seed, templates) for intent in intents]
    chosen: dict[str, Prompt] = {}
    for number in range(count):
        stream = streams[number % len(streams)]
        fresh = next((p for p in itertools.islice(stream, PATIENCE) if p.id not in chosen), None)
        if fresh is None:
            raise ConfigError(
                f"the axes gave {len(chosen)} different prompts, {count} were asked for: "
                "lower prompts.count or give more topics, events or posts"
            )
        chosen[fresh.id] = fresh
    return list(chosen.values())


def vary(prompts: Sequence[Prompt], repertoire: Repertoire, steps: int, seed: int) -> list[Prompt]:
    """Each prompt changed by `steps` operators; as it was where that prompt is there already."""
    made: dict[str, Prompt] = {}
    planned = {prompt.id for prompt in prompts}
    for prompt in prompts:
        means = Means(repertoire=repertoire, chance=seeded(f"{seed}/vary/{prompt.id}"))
        genome = of(prompt, repertoire)
        for _ in range(steps):
            for operator in means.chance.sample(list(OPERATORS), len(OPERATORS)):
                if child := mutate(operator, genome, means):
                    genome = child
                    break
        varied = render(genome, repertoire)
        kept = prompt if varied.id in made or varied.id in planned else varied
        made[kept.id] = kept
    return list(made.values())


def _prompts(axes: Axes, intent: str, seed: int, known: Sequence[Template]) -> Iterator[Prompt]:
    """Prompts of one intent without end; may repeat itself."""

    def walk(axis: str, values: Sequence[T]) -> Iterator[T]:
        return cycle(values, f"{seed}/{intent}/{axis}")

    templates = walk("template", [t for t in known if t.intent == intent for _ in range(t.weight)])
    topics, hardness = walk("topic", tuple(axes.topics)), walk("hardness", axes.hardness)
    events = {t: walk(f"event/{t}", tuple(es)) for t, es in axes.topics.items()}
    platforms, styles = walk("platform", axes.platforms), walk("style", axes.styles)
    posts: dict[tuple[str, str, str], Iterator[Post]] = {}
    while True:
        template, topic, level = next(templates), next(topics), next(hardness)
        event = next(events[topic])
        platform = next(platforms) if "platform" in template.slots else ""
        style = next(styles) if "style" in template.slots else ""
        quoted: tuple[Post, ...] = ()
        if {"post", "posts"} & set(template.slots):
            key = (topic, event, level)
            pool = nearest(axes, *key)
            shuffled = posts.setdefault(key, walk("/".join(key), pool))
            wanted = POSTS_QUOTED.get(level, 2) if "posts" in template.slots else 1
            quoted = tuple(next(shuffled) for _ in range(min(wanted, len(pool))))
            if not platform and len(quoted) == 1:
                platform = quoted[0].platform
        cell = Cell(
            intent=intent, topic=topic, event=event, platform=platform, style=style, hardness=level
        )
        yield fill(template, cell, axes.topics[topic][event], quoted)


def cycle(values: Sequence[T], key: str) -> Iterator[T]:
    """The values in a new shuffled order each time round, the same for the same key.

    Over any first n draws, the counts of two values differ by at most one.
    """
    chance = seeded(key)
    while True:
        deck = list(values)
        chance.shuffle(deck)
        yield from deck


def seeded(key: str) -> random.Random:
    """Chance that is the same for the same key, on every machine."""
    # Not random.Random(key): its seeding of strings is not promised to stay.
    digest = hashlib.sha256(key.encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
