import pytest

from opengrok_jax.curation import score
from opengrok_jax.curation.looks import Settings
from opengrok_jax.curation.score import WEIGHTS, Scorer
from opengrok_jax.records import Cell, Message, Prompt, Response, prompt_id

POSTS = (
    "The Kestrel 9 ships without a charger and the cable is extra, says Lumo",
    "my old charger melted lol, Kestrel owners beware",
)


def asked(intent="public_opinion", text="What do people say?", posts=POSTS):
    messages = (Message(role="user", content="\n\n".join([text, *posts])),)
    cell = Cell(intent=intent, topic="smartphones", event="kestrel-launch")
    return Prompt(
        id=prompt_id(messages), messages=messages, cell=cell, template="t", posts=tuple(posts)
    )


def said(prompt, text, finish="stop"):
    return Response(
        prompt_id=prompt.id,
        request_key="k",
        text=text,
        finish_reason=finish,
        model_asked="m",
        model_served="m",
        source="api",
        endpoint="e",
        rights="own",
    )


def scored(text, form=None, prompt=None, finish="stop", scorer=None, gains=None):
    prompt = prompt or asked()
    scorer = scorer or Scorer(Settings(), 0.4, gains or {})
    return scorer.score(prompt, said(prompt, text, finish), form or {})


GOOD = "Kestrel owners grumble that Lumo sells the charger and the cable apart from the phone."
VAGUE = "There is a lot of discussion about it, and people have many different opinions on it."


def test_the_total_is_the_weighted_mean_of_the_parts():
    found = scored(GOOD, {"max_words": 5})
    assert found.accepted
    assert set(found.parts) == {"relevance", "form", "specificity", "novelty"}
    assert found.parts["form"] == 0.0
    weights = sum(WEIGHTS[k] for k in found.parts)
    mean = sum(WEIGHTS[k] * v for k, v in found.parts.items()) / weights
    assert found.total == pytest.approx(mean, abs=1e-4)
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


def test_what_speaks_of_the_posts_scores_above_what_does_not():
    good, vague = scored(GOOD), scored(VAGUE)
    assert good.parts["relevance"] > vague.parts["relevance"] + 0.3
    assert good.parts["specificity"] > vague.parts["specificity"]
    assert good.total > vague.total


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("I'm sorry, but I can't help with that request.", "stop", "refusal"),
        (GOOD, "length", "truncated"),
        ("", "stop", "empty"),
        (POSTS[0], "stop", "echo"),
    ],
)
def test_what_a_check_rejects_has_no_score(text, finish, reason):
    found = scored(text, finish=finish)
    assert (found.accepted, found.reason, found.total) == (False, reason, 0.0)


def test_novelty_falls_with_what_was_accepted_before_and_a_repetition_is_none():
    scorer = Scorer(Settings(), 0.4)
    first = scored(GOOD, scorer=scorer)
    assert first.parts["novelty"] == 1.0
    other = "Lumo sells the charger and the cable apart, and one melted: nobody laughs any more."
    second = scored(other, scorer=scorer, prompt=asked(text="Once more?"))
    assert 0.5 < second.parts["novelty"] < 1.0
    again = scored(GOOD + " Really.", scorer=scorer, prompt=asked(text="And again?"))
    assert again.reason == "near_duplicate"
    elsewhere = scored(GOOD, scorer=scorer, prompt=asked("trend_summary"))
    assert elsewhere.accepted


def test_a_rejected_answer_is_not_remembered():
    scorer = Scorer(Settings(), 0.4)
    assert scored(GOOD, finish="length", scorer=scorer).reason == "truncated"
    assert scored(GOOD, scorer=scorer, prompt=asked(text="Again?")).accepted


def test_a_label_is_new_where_its_post_is():
    scorer = Scorer(Settings(), 0.4)
    one = asked("emotion", "Anger, joy, optimism or sadness?", POSTS[:1])
    first = scored("anger", prompt=one, scorer=scorer)
    assert set(first.parts) == {"relevance", "form", "novelty"}
    assert first.parts["relevance"] == first.parts["novelty"] == 1.0
    same = scored("anger", prompt=asked("emotion", "Which emotion?", POSTS[:1]), scorer=scorer)
    assert same.parts["novelty"] < 0.5
    other = scored("anger", prompt=asked("emotion", "Which emotion?", POSTS[1:]), scorer=scorer)
    assert other.parts["novelty"] == 1.0
    assert same.accepted
    assert other.accepted


def test_personal_data_and_mild_words_cost_something():
    personal = scored(GOOD + " Write to anna.berg@example.org.")
    assert personal.penalties == {"personal": 0.1}
    assert personal.total < scored(GOOD).total
    mild = scored(GOOD + " What an idiot.")
    assert 0 < mild.penalties["toxicity"] < 0.3


def test_gains_are_relative_to_the_cell_and_garbage_earns_no_more_than_what_is_hard():
    losses = {f"a{n}": 1.0 for n in range(9)} | {"hard": 2.0, "garbage": 50.0, "else": 9.0}
    cells = dict.fromkeys(losses, "cell") | {"else": "other"}
    del cells["a0"]
    found = score.gains(losses, cells)
    assert "a0" not in found
    assert found["else"] == 0.5
    assert found["garbage"] == found["hard"]
    assert found["hard"] > found["a1"] > 0
    assert all(0 <= g <= 1 for g in found.values())
    assert score.gains({"x": 0.0}, {"x": "c"}) == {"x": 0.0}


def test_a_gain_counts_where_there_is_one():
    prompt = asked()
    with_gain = scored(GOOD, prompt=prompt, gains={prompt.id: 1.0})
    assert with_gain.parts["gain"] == 1.0
    assert with_gain.total > scored(GOOD, prompt=prompt, gains={prompt.id: 0.0}).total
