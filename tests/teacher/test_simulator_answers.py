from collections import Counter

import pytest

from opengrok_jax.records import Message
from opengrok_jax.teacher.simulator import answers as simulated
from opengrok_jax.teacher.simulator.answers import answer, mood, understand

POSTS = (
    "1. [X] Aldermoor buses are 20 minutes late again\n"
    "2. [Reddit] The Number 9 came early, Dana Okafor says, for the first time"
)


def asked(text):
    return (Message(role="user", content=text),)


def answers(text, seeds=range(200)):
    return [answer(asked(text), seed=seed) for seed in seeds]


def test_the_same_question_and_seed_give_the_same_answer():
    texts = {answer(asked(f"Why?\n\n{POSTS}"), seed=seed).text for seed in (0, 0, 1, 2, 3)}
    assert 2 <= len(texts) <= 4
    assert answer(asked("Why?"), seed=0) == answer(asked("Why?"), seed=0)


def test_demands_are_told_from_posts():
    question = understand(f"Sum it up. Keep it short.\n\n{POSTS}\n\nName one person.")
    assert question.demands == ("Sum it up.", "Keep it short.", "Name one person.")
    assert len(question.posts) == 2
    assert question.posts[0].startswith("Aldermoor buses")
    assert any(span.startswith("Dana Okafor") for span in question.spans)
    unmarked = understand("Which emotion?\n\ni am so tired of Vantage")
    assert unmarked.posts == ("i am so tired of Vantage",)
    assert unmarked.demands == ("Which emotion?",)


def test_a_vague_question_gets_stock_answers_and_a_rich_one_its_own():
    stock = set(simulated._STOCK)
    vague = Counter(a.text in stock for a in answers("What is going on?"))
    rich = Counter(a.text in stock for a in answers(f"What is going on?\n\n{POSTS}"))
    assert vague[True] > 120
    assert rich[True] < 80
    said = [a.text for a in answers(f"What is going on?\n\n{POSTS}") if a.text not in stock]
    assert len(set(said)) > 100


def test_a_long_chain_of_demands_runs_into_the_limit():
    few = f"Sum it up.\n\n{POSTS}"
    many = " ".join(f"Then do thing {'abcdefghijkl'[n]}." for n in range(12)) + f"\n\n{POSTS}"
    cut = [a for a in answers(many) if a.finish_reason == "length"]
    assert len(cut) > 40
    assert all(len(a.text.split()) == simulated.LIMIT_WORDS for a in cut)
    assert sum(a.finish_reason == "length" for a in answers(few)) < 10


def test_moods_belong_to_a_wording_not_to_its_names():
    seeds = range(3000)
    declined = [s for s in seeds if mood(s, "Write about Mira Tolan, now.") < simulated.DECLINES]
    assert len(declined) / len(seeds) == pytest.approx(simulated.DECLINES, abs=0.02)
    assert declined == [s for s in seeds if mood(s, "Write about Ilya Marsh, now!") < 1 / 12]
    refusals = set(simulated._REFUSALS)
    text = f"Do sum it up.\n\n{POSTS}"
    met = [s for s in range(400) if mood(s, "Do sum it up.") < simulated.DECLINES]
    met_with = [answer(asked(text), seed=s).text in refusals for s in met]
    others = [answer(asked(text), seed=s).text in refusals for s in range(400) if s not in met]
    assert 0.15 < sum(met_with) / len(met_with) < 0.7
    assert not any(others)


@pytest.mark.parametrize(
    ("demand", "obeys"),
    [
        ("Answer in at most twelve words.", lambda t: len(t.split()) <= 12),
        ("Give three bullet points.", lambda t: t.count("\n- ") == 2 and t.startswith("- ")),
        ("End on a question.", lambda t: t.endswith("?")),
        ("Add one hashtag.", lambda t: "#" in t),
        ("One sentence only.", lambda t: t.count(".") + t.count("!") <= 1),
    ],
)
def test_forms_are_obeyed_mostly_but_not_always(demand, obeys):
    known = {*simulated._STOCK, *simulated._REFUSALS, *simulated._SLIPS}
    free = [a.text for a in answers(f"Sum up. {demand}\n\n{POSTS}") if a.text not in known]
    kept = sum(map(obeys, free)) / len(free)
    assert 0.4 < kept < 0.95


def test_offered_labels_are_what_it_answers():
    text = "Which emotion does this post express: anger, joy, optimism or sadness? "
    found = Counter(a.text for a in answers(text + "Answer with one word.\n\nPost: i love it 😍"))
    assert found["joy"] > 100
    assert "anger" not in found


def test_a_bare_rewriting_sometimes_gives_the_post_back():
    text = "Rewrite this post.\n\nPost: Aldermoor buses are 20 minutes late again"
    back = [a.text for a in answers(text)].count("Aldermoor buses are 20 minutes late again")
    assert 20 < back < 140


def test_a_system_turn_counts_as_demands():
    system = Message(role="system", content="Answer in at most ten words.")
    texts = [
        answer((system, *asked(f"Sum it up.\n\n{POSTS}")), seed=s).text.split() for s in range(60)
    ]
    assert sum(len(t) <= 10 for t in texts) > 20
