import dataclasses
import random

import pytest

from opengrok_jax import storage
from opengrok_jax.curation import form
from opengrok_jax.errors import DataError
from opengrok_jax.prompts import lint, techniques
from opengrok_jax.prompts.genome import Repertoire, of, wording
from opengrok_jax.refine_loop import Loop
from tests.simulated_teacher import answers, planned

PROMPTS = planned(54)
ANSWERS = answers(PROMPTS)
GO = {"rounds": 4, "batch": 12, "budget": 10**9, "stall": 0.0, "patience": 2}


def loop(prompts=PROMPTS, found=None, **more):
    settings = {"prompts": {}, "elites": 4, "similarity": 0.4, "losses": {}, "seed": 0} | more
    found = ANSWERS if found is None else found
    return Loop(
        planned=prompts, answers=[found[p.id] for p in prompts if p.id in found], **settings
    )


def gone(tmp_path, ask=answers, one=None, **more):
    one = one or loop()
    why = one.go(ask=ask, proposed_file=tmp_path / "proposed.jsonl", **GO | more)
    return one, why


def test_a_round_asks_what_is_new_and_keeps_its_lineage(tmp_path):
    one, why = gone(tmp_path)
    assert why == "all 4 rounds were done"
    own = [row for row in one.lineage if row["round"]]
    assert [row["child"] for row in own] == [p.prompt.id for p in one.proposed]
    assert len(own) == 48
    seen = {p.id for p in PROMPTS}
    for number in range(1, 5):
        rows = [row for row in own if row["round"] == number]
        assert len(rows) == 12
        assert {row["parent"] for row in rows} <= seen  # all of earlier rounds
        assert not {row["child"] for row in rows} & seen
        seen |= {row["child"] for row in rows}
    assert one.counts()["asked"] == 48
    assert one.counts()["qd_score"] > one.counts()["qd_score_before"]
    assert one.spent - one.base == sum(row["cost"] for row in own)
    repertoire = Repertoire.load()
    assert not [r for r in one.proposed if lint.lint(wording(of(r.prompt, repertoire), repertoire))]


def test_the_same_seed_and_answers_give_the_same_prompts_in_whatever_order_they_come(tmp_path):
    def shuffled(prompts):
        found = list(answers(prompts).items())
        random.Random(len(found)).shuffle(found)
        return dict(found)

    first, _ = gone(tmp_path / "a")
    second, _ = gone(tmp_path / "b", ask=shuffled)
    other, _ = gone(tmp_path / "c", one=loop(seed=1))
    assert first.lineage == second.lineage
    assert first.picture() == second.picture()
    assert first.lineage != other.lineage


@pytest.mark.parametrize("after", [0, 1, 3])
def test_stopped_at_any_moment_it_goes_on_as_if_it_had_not_been(tmp_path, after):
    """Stopped after proposing, before a word was answered; then begun anew on the same files."""
    whole, _ = gone(tmp_path / "whole")
    calls = []

    def dies(prompts):
        calls.append(len(prompts))
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return answers(prompts)

    with pytest.raises(KeyboardInterrupt):
        gone(tmp_path / "killed", ask=dies)
    again, _ = gone(tmp_path / "killed")
    assert again.lineage == whole.lineage
    a, b = (tmp_path / n / "proposed.jsonl" for n in ("whole", "killed"))
    assert a.read_bytes() == b.read_bytes()


def test_it_ends_by_budget_and_by_stall(tmp_path):
    one, why = gone(tmp_path / "a", budget=2500)
    assert why == "the budget of 2500 tokens is used up"
    # No round begins beyond it; the last may go a little beyond, by less than a quarter round.
    before_last = sum(r["cost"] for r in one.lineage if 0 < r["round"] < one.counts()["rounds"])
    assert before_last < 2500 <= one.spent - one.base < 2500 + 12 * 200
    one, why = gone(tmp_path / "b", stall=0.99, patience=1)
    assert why == "the QD-score grew by less than 99% in 1 rounds"
    assert one.counts()["rounds"] == 1


def test_a_prompt_without_an_answer_is_a_miss_for_good(tmp_path):
    asked = []

    def ask(prompts, hopeless=True):
        asked.append([p.id for p in prompts])
        found = answers(prompts)
        if hopeless:
            found |= {p.id: "blocked" for p in prompts if int(p.id, 16) % 3 == 0}
            found = {i: one for i, one in found.items() if int(i, 16) % 5}
        return found

    one, _ = gone(tmp_path, ask=ask)
    own = [row for row in one.lineage if row["round"]]
    missed = {r["child"]: r["reason"] for r in own if r["reason"] in ("blocked", "no_answer")}
    wrong = {
        r["child"] for r in own if int(r["child"], 16) % 3 == 0 or int(r["child"], 16) % 5 == 0
    }
    assert set(missed) == wrong
    assert {"blocked", "no_answer"} == set(missed.values())
    assert not any(r["accepted"] for r in one.lineage if r["reason"])
    assert one.counts()["unanswered"] == len(wrong)
    assert not wrong & set(asked[-1][:-12]), "a miss of an earlier round is not asked again"
    # the same again, though the teacher would answer them now
    asked.clear()
    again, _ = gone(tmp_path, ask=lambda prompts: ask(prompts, hopeless=False))
    assert again.lineage == one.lineage
    assert not wrong & {prompt for prompts in asked for prompt in prompts}


def test_costs_are_counted_in_the_best_unit_that_all_answers_tell():
    assert loop().unit == "tokens"
    priced = {k: dataclasses.replace(r, cost_ticks=7) for k, r in ANSWERS.items()}
    assert (loop(found=priced).unit, loop(found=priced).spent) == ("ticks", 7 * 54)
    silent = {
        k: dataclasses.replace(r, prompt_tokens=0, completion_tokens=0) for k, r in ANSWERS.items()
    }
    assert (loop(found=silent).unit, loop(found=silent).spent) == ("requests", 54)


def test_a_students_losses_count_where_they_are_told():
    losses = {p.id: float(n % 7) for n, p in enumerate(PROMPTS)}
    rows = loop(losses=losses).lineage
    assert all("gain" in row["parts"] for row in rows)
    assert not any("gain" in row["parts"] for row in loop().lineage)


def test_a_damaged_list_of_proposals_is_named(tmp_path):
    storage.write_jsonl(tmp_path / "proposed.jsonl", [{"prompt": {}, "parent": ""}])
    with pytest.raises(DataError, match=r"proposed\.jsonl, record 1"):
        gone(tmp_path)


def test_forms_that_techniques_may_ask_for_are_those_that_can_be_checked():
    assert set(techniques.FORM) == set(form.CHECKS)
