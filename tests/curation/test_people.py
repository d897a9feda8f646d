import pytest

from opengrok_jax.curation.people import People, effect, keeps, why
from opengrok_jax.records import Decision, Finding, body_sha


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
