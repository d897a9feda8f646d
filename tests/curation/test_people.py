import pytest

from opengrok_jax.curation.judging import How, one
from opengrok_jax.curation.looks import Settings
from opengrok_jax.curation.people import People, effect, keeps, why
from opengrok_jax.records import Decision, Finding, body_sha
from tests.curation.curation_rows import prompt, response

HOW = How(settings=Settings(), mask_handles=True, rules="r")
GOOD = "The free buses please nearly everybody, though two posts ask who pays."
REFUSAL = "I'm sorry, but I can't help with it."


def finding(reason, certain=True):
    return Finding(check="c", reason=reason, score=1.0, certain=certain, detail="d")


def decided(decision, text="hello", **more):
    fields = {"prompt_id": "p", "reviewer": "ann", "at": "2026-11-25T00:00:00Z", **more}
    return Decision(body_sha=body_sha(text), decision=decision, **fields)


@pytest.mark.parametrize(
    ("findings", "decision", "kept", "effects"),
    [
        ([], None, True, ""),
        ([finding("harmful", False)], None, True, ""),
        ([finding("harmful")], None, False, ""),
        ([finding("harmful")], "accept", True, "accepted"),
        ([finding("harmful")], "edit", True, "edited"),
        ([finding("harmful"), finding("truncated")], "accept", False, "without_effect"),
        ([finding("near_duplicate")], "accept", False, "without_effect"),
        ([], "reject", False, "rejected"),
        ([finding("empty")], "reject", False, "rejected"),
        ([], "accept", True, "accepted"),
    ],
)
def test_the_table(findings, decision, kept, effects):
    said = decided(decision, edited="new" if decision == "edit" else "") if decision else None
    assert keeps(findings, said) == kept
    if said:
        assert effect(findings, said) == effects


def test_a_decision_on_another_text_is_stale():
    people = People([decided("accept"), decided("reject", "other", reason="poor")], True)
    assert people.on("p", body_sha("hello")) == decided("accept")
    assert people.on("p", body_sha("changed")) is None
    assert people.on("q", body_sha("hello")) is None
    assert people.stale() == 1


def test_personal_data_in_an_edit_is_masked():
    said = decided("edit", edited="write to @ann or ann@example.org")
    assert People([said], True).edited(said) == "write to [HANDLE] or [EMAIL]"
    assert People([said], False).edited(said) == "write to @ann or [EMAIL]"


def test_a_rejection_says_who_and_why():
    found = why(decided("reject", reason="false", note="nobody said so"))
    assert (found.reason, found.check, found.certain) == ("human", "review", True)
    assert found.detail == "ann says false: nobody said so"


@pytest.mark.parametrize(
    ("before", "finish", "edited", "kept", "reason"),
    [
        (GOOD, "stop", GOOD.replace("free", "new"), True, ""),
        (REFUSAL, "stop", GOOD, True, ""),
        (GOOD[:40], "length", GOOD, True, ""),  # a person wrote the end of it
        (GOOD, "stop", "Ok.", False, "too_short"),
        (GOOD, "stop", REFUSAL, False, "refusal"),  # a fault that nobody has overruled
        (REFUSAL, "stop", REFUSAL.replace("it", "that"), True, "refusal"),  # seen and overruled
    ],
)
def test_an_edited_text_is_judged_by_the_same_rules(before, finish, edited, kept, reason):
    asked = prompt("What do people say about the buses?")
    row = one(asked, response(before, asked, finish_reason=finish), HOW)
    said = decided("edit", before, edited=edited, prompt_id=asked.id)
    found = People([said], True).judged(row, HOW)
    assert keeps(found.verdict.findings, said) == kept
    assert [f.reason for f in found.verdict.findings if f.certain] == ([reason] if reason else [])
    assert (found.verdict.response, found.verdict.body_sha) == (before, body_sha(before))
    assert found.sketch.tolist() == one(asked, response(edited, asked), HOW).sketch.tolist()


def test_an_answer_that_was_not_edited_is_left_alone():
    asked = prompt("What do people say about the buses?")
    row = one(asked, response(GOOD, asked), HOW)
    for said in ([], [decided("accept", GOOD, prompt_id=asked.id)], [decided("edit", edited="x")]):
        assert People(said, True).judged(row, HOW) is row
