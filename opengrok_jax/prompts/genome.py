"""A genome: what a prompt is made of, so that it can be varied.

    template     report-opinion              "What are people saying about {event}?\\n\\n{posts}"
    cell         rail-strike, style dry      the slots
    posts        two of the bank
    said         ("style",)                  axes without a slot in the template, put in words
    techniques   ("steps-cause",)            demands, in order

    What are people saying about the rail strike? Keep the tone dry. First say what happened, then
    why people care, and only then what follows from it.

    1. [X] ...

Without `said` and `techniques` the prompt is that of the plan, to the byte.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from opengrok_jax.errors import DataError
from opengrok_jax.prompts import axes, techniques, templates
from opengrok_jax.prompts.axes import Axes, Post
from opengrok_jax.prompts.techniques import Technique
from opengrok_jax.prompts.templates import Template, fill
from opengrok_jax.records import Cell, Prompt

SAID = {"platform": "Write it for {platform}.", "style": "Keep the tone {style}."}
_SAY = "say-"
LABELS = ("sentiment", "emotion", "topic", "entities")  # intents whose answer is a label, mostly


@dataclass(frozen=True, kw_only=True)
class Genome:
    """See the drawing above."""

    template: str
    cell: Cell
    posts: tuple[Post, ...] = ()
    said: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repertoire:
    """All that genomes can be made of."""

    axes: Axes
    posts: dict[str, Post]
    templates: dict[str, Template]
    techniques: dict[str, Technique]

    @classmethod
    def load(
        cls,
        axes_file: str = "",
        posts_file: str = "",
        templates_file: str = "",
        techniques_file: str = "",
    ) -> Repertoire:
        """What the files hold; "" stands for what ships.

        Raises:
          DataError: a file is missing or malformed.
          ConfigError: a text holds wording meant to get around a safeguard.
        """
        bank = axes.load(axes_file, posts_file)
        return cls(
            axes=bank,
            posts={post.text: post for post in bank.posts},
            templates={t.name: t for t in templates.load(templates_file)},
            techniques={t.name: t for t in techniques.load(techniques_file)},
        )


def render(genome: Genome, repertoire: Repertoire) -> Prompt:
    """The prompt that a genome stands for."""
    said = tuple(f"{_SAY}{axis}" for axis in genome.said)
    return dataclasses.replace(
        _fill(genome, repertoire, genome.posts), techniques=said + genome.techniques
    )


def wording(genome: Genome, repertoire: Repertoire) -> str:
    """The prompt without the posts it quotes: what the lint reads."""
    blank = tuple(
        Post(topic=p.topic, event=p.event, platform=p.platform, hardness=p.hardness, text="")
        for p in genome.posts
    )
    return _fill(genome, repertoire, blank).messages[-1].content


def form(genome: Genome, repertoire: Repertoire) -> dict:
    """What can be checked in an answer: the template's own form, then the techniques'."""
    template = repertoire.templates[genome.template]
    ends = (
        {"ends_with": "?"} if genome.cell.hardness == "hard" and "twist" in template.slots else {}
    )
    found = template.form | ends
    for name in genome.techniques:
        found |= repertoire.techniques[name].form
    return found


def parts(genome: Genome, repertoire: Repertoire) -> tuple[str, ...]:
    """Names of the wordings in a prompt: template, techniques, "style dry" where that is asked."""
    asked = {*repertoire.templates[genome.template].slots, *genome.said}
    axes_said = [f"{axis} {getattr(genome.cell, axis)}" for axis in SAID if axis in asked]
    return (genome.template, *genome.techniques, *axes_said)


def of(prompt: Prompt, repertoire: Repertoire) -> Genome:
    """The genome that a prompt was made of.

    Raises:
      DataError: its template, a technique or a post it quotes is not in the repertoire.
    """
    said = tuple(n.removeprefix(_SAY) for n in prompt.techniques if n.startswith(_SAY))
    named = tuple(n for n in prompt.techniques if not n.startswith(_SAY))
    strange = [n for n in (prompt.template,) if n not in repertoire.templates]
    strange += [n for n in named if n not in repertoire.techniques]
    strange += [text[:40] for text in prompt.posts if text not in repertoire.posts]
    if strange:
        raise DataError(
            f"prompt {prompt.id} was made of {strange[0]!r}, which is not among the templates, "
            "techniques and posts at hand; plan the prompts again"
        )
    return Genome(
        template=prompt.template,
        cell=prompt.cell,
        posts=tuple(repertoire.posts[text] for text in prompt.posts),
        said=said,
        techniques=named,
    )


def _fill(genome: Genome, repertoire: Repertoire, posts: tuple[Post, ...]) -> Prompt:
    template = repertoire.templates[genome.template]
    asked = [SAID[axis] for axis in genome.said]
    asked += [repertoire.techniques[name].text for name in genome.techniques]
    if asked:
        # Demands stand before the posts, so that nothing quoted can pass for a demand.
        head, gap, tail = template.text.partition("\n\n")
        head = f"{head[:-1]}." if head.endswith(":") else head
        text = f"{' '.join([head, *asked])}{gap}{tail}"
        template = Template(name=template.name, intent=template.intent, text=text)
    event = repertoire.axes.topics[genome.cell.topic][genome.cell.event]
    return fill(template, genome.cell, event, posts)
