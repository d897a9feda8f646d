import itertools
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.prompts import axes, plan
from opengrok_jax.prompts.templates import INTENTS, TEMPLATES
from opengrok_jax.records import Prompt, prompt_id


@pytest.fixture(scope="module")
def bank():
    return axes.load()


@given(st.lists(st.integers(), min_size=1, max_size=9, unique=True), st.text(), st.integers(1, 60))
def test_a_cycle_is_even_at_every_moment(values, key, draws):
    drawn = Counter(itertools.islice(plan.cycle(values, key), draws))
    counts = [drawn[v] for v in values]
    assert max(counts) - min(counts) <= 1


def test_the_same_seed_gives_the_same_ids_and_another_one_others(bank):
    first, again, other = (plan.plan(bank, 60, seed) for seed in (3, 3, 4))
    assert [p.id for p in first] == [p.id for p in again]
    assert {p.id for p in first} != {p.id for p in other}


def test_a_longer_plan_begins_with_the_shorter(bank):
    assert plan.plan(bank, 40, 0) == plan.plan(bank, 90, 0)[:40]


def test_ids_are_unique_and_are_those_of_the_messages(bank):
    prompts = plan.plan(bank, 414, 0)
    assert len({p.id for p in prompts}) == 414
    assert all(p.id == prompt_id(p.messages) for p in prompts)


def test_every_axis_is_covered_evenly(bank):
    prompts = plan.plan(bank, 414, 0)
    per_intent = Counter(p.cell.intent for p in prompts)
    assert set(per_intent.values()) == {46}
    for intent in INTENTS:
        own = [p.cell for p in prompts if p.cell.intent == intent]
        for axis, values in (("topic", bank.topics), ("hardness", bank.hardness)):
            counts = Counter(getattr(cell, axis) for cell in own)
            # Two apart at most: the odd prompt comes up twice and is drawn again.
            assert max(counts.values()) - min(counts[v] for v in values) <= 4
    assert {p.template for p in prompts} == {t.name for t in TEMPLATES}
    events = {(p.cell.topic, p.cell.event) for p in prompts}
    assert events == {(t, e) for t, es in bank.topics.items() for e in es}


def test_posts_are_quoted_as_they_are_and_on_the_event_of_the_cell(bank):
    known = {p.text: p for p in bank.posts}
    for prompt in plan.plan(bank, 414, 0):
        for text in prompt.posts:
            assert text in prompt.messages[-1].content
            assert (known[text].topic, known[text].event) == (prompt.cell.topic, prompt.cell.event)
            assert known[text].hardness == prompt.cell.hardness


def test_run_writes_what_it_says(tmp_path):
    counts = plan.run(out=tmp_path, count=18, seed=1)
    prompts = storage.read_records(tmp_path / "prompts.jsonl", Prompt)
    assert counts["prompts"] == len(prompts) == 18


def test_axes_that_are_too_small_are_named(tmp_path):
    (tmp_path / "axes.json").write_text(
        json.dumps(
            {
                "topics": {"tea": {"kettle": "the new kettle"}},
                "platforms": ["X"],
                "styles": ["dry"],
                "hardness": ["plain"],
            }
        )
    )
    (tmp_path / "posts.jsonl").write_text(
        '{"topic":"tea","event":"kettle","platform":"X","hardness":"plain","text":"hot"}\n'
    )
    files: Any = {
        "axes_file": str(tmp_path / "axes.json"),
        "posts_file": str(tmp_path / "posts.jsonl"),
    }
    assert plan.run(out=tmp_path, count=9, **files)["prompts"] == 9
    with pytest.raises(
        ConfigError, match=r"the axes gave .* different prompts, 200 were asked for"
    ):
        plan.run(out=tmp_path, count=200, **files)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": -1}, "expected a positive number"),
        ({"count": 0}, "expected a positive number"),
        ({"source": "web"}, "expected 'axes' or 'posts'"),
        ({"intents": ("gossip",)}, "unknown intents"),
        ({"intents": ()}, "unknown intents"),
        ({"task": "emotion"}, "go with prompts.source='posts'"),
        ({"source": "posts"}, "needs prompts.posts_file"),
        ({"source": "posts", "techniques": 1}, "go with prompts.source='axes'"),
        ({"techniques": -1}, "expected 0 or more"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, settings, said):
    with pytest.raises(ConfigError, match=said):
        plan.run(out=tmp_path, **settings)
    assert not (tmp_path / "prompts.jsonl").exists()


def test_techniques_vary_the_plan_and_nothing_of_it_is_lost(tmp_path):
    counts = plan.run(out=tmp_path, count=45, seed=1, techniques=2)
    varied = storage.read_records(tmp_path / "prompts.jsonl", Prompt)
    assert counts["prompts"] == len({p.id for p in varied}) == 45
    planned = plan.plan(axes.load(), 45, 1)
    assert sum(v.id != p.id for v, p in zip(varied, planned, strict=True)) > 30
    assert sum(bool(p.techniques) for p in varied) > 15
    plan.run(out=tmp_path, count=45, seed=1, techniques=2)
    assert storage.read_records(tmp_path / "prompts.jsonl", Prompt) == varied


def test_without_techniques_the_words_are_those_of_the_templates(tmp_path):
    """The recorded answers are found by these words: they must not change by a byte."""
    plan.run(out=tmp_path, count=414, seed=0)
    prompts = storage.read_records(tmp_path / "prompts.jsonl", Prompt)
    recorded = [row["messages"] for row in storage.read_jsonl(axes.ASSETS / "recorded.jsonl")]
    assert [
        [{"role": m.role, "content": m.content} for m in p.messages] for p in prompts
    ] == recorded
    assert not any(p.techniques for p in prompts)


def test_own_templates_and_techniques_are_asked(tmp_path):
    own = [{"name": "mine", "intent": "recipe", "text": "Cook something for {event}."}]
    (tmp_path / "t.json").write_text(json.dumps(own))
    plan.run(out=tmp_path, count=5, intents=("recipe",), templates_file=str(tmp_path / "t.json"))
    prompts = storage.read_records(tmp_path / "prompts.jsonl", Prompt)
    assert {p.template for p in prompts} == {"mine"}
