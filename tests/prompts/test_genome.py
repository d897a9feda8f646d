import dataclasses

import pytest

from opengrok_jax.errors import DataError
from opengrok_jax.prompts import plan
from opengrok_jax.prompts.genome import Genome, Repertoire, form, of, parts, render, wording
from opengrok_jax.records import Cell


@pytest.fixture(scope="module")
def repertoire():
    return Repertoire.load()


@pytest.fixture(scope="module")
def prompts(repertoire):
    return plan.plan(repertoire.axes, 414, 0)


def test_the_genome_of_a_planned_prompt_is_that_prompt_again(repertoire, prompts):
    for prompt in prompts:
        assert render(of(prompt, repertoire), repertoire) == prompt


def test_the_drawing(repertoire):
    posts = tuple(p for p in repertoire.axes.posts if p.event == "rail-strike")[:2]
    genome = Genome(
        template="report-opinion",
        cell=Cell(
            intent="public_opinion",
            topic="transit",
            event="rail-strike",
            style="dry",
            hardness="plain",
        ),
        posts=posts,
        said=("style",),
        techniques=("steps-cause",),
    )
    prompt = render(genome, repertoire)
    assert prompt.messages[0].content == (
        "What are people saying about the week-long rail strike in Aldermoor? Keep the tone dry. "
        "First say what happened, then why people care, and only then what follows from it.\n\n"
        f"1. [{posts[0].platform}] {posts[0].text}\n2. [{posts[1].platform}] {posts[1].text}"
    )
    assert prompt.techniques == ("say-style", "steps-cause")
    assert parts(genome, repertoire) == ("report-opinion", "steps-cause", "style dry")
    assert of(prompt, repertoire) == genome


def test_a_colon_before_the_posts_makes_room_for_a_demand(repertoire, prompts):
    prompt = next(p for p in prompts if p.template == "trend-bullets")
    genome = dataclasses.replace(of(prompt, repertoire), techniques=("learners",))
    head = render(genome, repertoire).messages[0].content.split("\n\n")[0]
    assert head.endswith("discussing. Use plain English for readers who are still learning it.")


def test_wording_leaves_the_posts_out(repertoire, prompts):
    prompt = next(p for p in prompts if p.template == "conflict-trust")
    text = wording(of(prompt, repertoire), repertoire)
    assert not [post for post in prompt.posts if post in text]
    assert text.startswith("Which of these posts is the best source")


def test_the_form_is_that_of_template_twist_and_techniques(repertoire):
    cell = Cell(intent="platform_post", topic="food", event="oat-surcharge", hardness="hard")
    genome = Genome(template="report-post", cell=cell, techniques=("forty-words",))
    assert form(genome, repertoire) == {"ends_with": "?", "max_words": 40}
    plain = dataclasses.replace(genome, cell=dataclasses.replace(cell, hardness="plain"))
    assert form(plain, repertoire) == {"max_words": 40}


@pytest.mark.parametrize(
    "change", [{"template": "gone"}, {"posts": ("nobody wrote this",)}, {"techniques": ("gone",)}]
)
def test_what_is_not_at_hand_is_named(repertoire, prompts, change):
    with pytest.raises(DataError, match="not among the templates"):
        of(dataclasses.replace(prompts[0], **change), repertoire)
