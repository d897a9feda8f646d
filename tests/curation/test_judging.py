import numpy as np

from opengrok_jax.curation import judging
from opengrok_jax.curation.judging import How, judged, masked, one, workers_for
from opengrok_jax.curation.looks import Settings
from opengrok_jax.records import body_sha
from tests.curation.curation_rows import prompt, response

HOW = How(settings=Settings(), mask_handles=True, rules="r1")
FINE = "People are glad about the free buses, though some wonder who will pay for them."


def test_a_row_is_masked_before_it_is_judged():
    to = prompt("Sum up: @ann", posts=("@ann",), label="@ann")
    row = one(to, response(f"@bob@h.example says: {FINE}", to), HOW)
    said = f"[HANDLE] says: {FINE}"
    assert (row.verdict.response, row.verdict.posts, row.verdict.label) == (
        said, ("[HANDLE]",), "[HANDLE]",
    )  # fmt: skip
    assert row.verdict.messages[0].content == "Sum up: [HANDLE]"
    assert row.verdict.masked == {"handle": 2}
    assert row.verdict.body_sha == body_sha(said)
    assert (row.verdict.prompt_id, row.verdict.rules, row.verdict.keep) == (to.id, "r1", True)


def test_flagged_and_uncertain():
    def marked(text, **more):
        verdict = one(prompt(), response(text, **more), HOW).verdict
        return verdict.keep, verdict.flagged, verdict.uncertain

    assert marked(FINE) == (True, False, False)
    assert marked(f"What an idiot and moron. {FINE}") == (True, False, True)
    assert marked("They should all be shot.") == (False, True, False)
    assert marked("They should all be shot.", finish_reason="length") == (False, False, False)
    assert marked("") == (False, False, False)


def test_provenance_says_who_wrote_it():
    to = prompt()
    made = one(to, response(FINE, cost_ticks=7, temperature=0.5, received_at=9.0), HOW).provenance
    assert (made.cost_ticks, made.temperature, made.received_at) == (7, 0.5, 9.0)
    assert (made.endpoint, made.model_asked, made.template) == (
        "http://recorded.invalid/v1", "m", "t",
    )  # fmt: skip
    assert (made.request_key, made.rules, made.synthetic) == ("k", "r1", True)
    assert not one(to, response(FINE, source="labelled"), HOW).provenance.synthetic


def test_what_people_gave_as_the_answer_repeats_nothing():
    """Names are copied out of the post, and lists of labels are alike on purpose."""
    post = "Ada Lovelace met Charles Babbage at the Royal Society in Old London Town today"
    to = prompt(f"Who? {post}")
    machine = one(to, response(post, to), HOW)
    people = one(to, response(post, to, source="labelled"), HOW)
    assert machine.verdict.reason == "echo"
    assert people.verdict.keep
    assert "echo" not in people.verdict.scores
    assert len(machine.sketch)
    assert not len(people.sketch)


def test_handles_may_stay():
    _, said, found = masked(prompt(), response("@ann says hi to a@b.co"), handles=False)
    assert (said.text, found) == ("@ann says hi to [EMAIL]", {"email": 1})


def test_several_processes_give_the_same_in_the_same_order(monkeypatch):
    monkeypatch.setattr(judging, "CHUNK", 3)
    pairs = [
        (to, response(f"{FINE} Number {n}.", to))
        for n in range(20)
        for to in [prompt(f"Question {n}")]
    ]
    alone, together = list(judged(pairs, HOW, 1)), list(judged(pairs, HOW, 2))
    assert [r.verdict for r in together] == [r.verdict for r in alone]
    assert all(np.array_equal(a.sketch, b.sketch) for a, b in zip(alone, together, strict=True))


def test_few_rows_are_not_worth_a_second_process():
    assert workers_for(judging.WORTH - 1) == 1
    assert workers_for(10 * judging.WORTH) >= 1
