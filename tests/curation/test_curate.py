import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import storage
from opengrok_jax.curation import contamination, curate
from opengrok_jax.curation.curate import split
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.records import (
    Decision,
    Example,
    Prompt,
    Response,
    Verdict,
    body_sha,
    prompt_id,
)
from tests.curation.curation_rows import prompt, response

TEXTS = [
    "The free buses please nearly everybody, though two posts ask who pays.",
    "Mostly jokes: the third scrub gave us bingo cards and three thousand wrong mugs.",
    "Fans mourn the lighthouse and its keeper, and one of them wants six years back.",
    "Tenants won their heating case and promptly took their coats off indoors.",
]


def curated(folder, rows, **settings):
    """Runs the room on (prompt, response) rows; (counts, kept, rejected)."""
    storage.write_jsonl(folder / "prompts.jsonl", [p for p, _ in rows])
    storage.write_jsonl(folder / "responses.jsonl", [r for _, r in rows])
    counts = curate.run(
        prompts_file=folder / "prompts.jsonl",
        responses_file=folder / "responses.jsonl",
        out=folder / "out",
        **settings,
    )
    kept = storage.read_records(folder / "out" / "kept.jsonl", Example)
    return counts, kept, list(storage.read_jsonl(folder / "out" / "rejected.jsonl"))


def rows(texts, **more):
    prompts = [prompt(f"Question {n}", **more) for n in range(len(texts))]
    return [(p, response(t, p)) for p, t in zip(prompts, texts, strict=True)]


def test_kept_and_rejected_in_order_with_reasons(tmp_path):
    made = rows([TEXTS[0], "Meh.", TEXTS[1], TEXTS[0], "I'm sorry, but I can't help with it."])
    counts, kept, rejected = curated(tmp_path, made)
    assert [e.id for e in kept] == [made[0][0].id, made[2][0].id]
    assert [(r["prompt_id"], r["reason"], r["check"]) for r in rejected] == [
        (made[1][0].id, "too_short", "length"),
        (made[3][0].id, "near_duplicate", "duplicates"),
        (made[4][0].id, "refusal", "refusal"),
    ]
    assert rejected[0]["response"] == "Meh."
    assert rejected[0]["cell"]["intent"] == "trend_summary"
    assert rejected[1]["detail"] == f"100% like the answer to {made[0][0].id}"
    assert counts == {
        "kept": 2,
        "train": 1,
        "valid": 1,
        "rejected": 3,
        "reasons": {"too_short": 1, "near_duplicate": 1, "refusal": 1},
        "flagged": 1,
        "uncertain": 0,
        "human": {},
        "pii": {},
        "rules": counts["rules"],
    }
    assert json.loads(json.dumps(counts)) == counts


def test_an_example_carries_all_that_is_known(tmp_path):
    asked = prompt("Which emotion?\n\nPost: yay", intent="emotion", posts=("yay",), label="joy")
    made = [(asked, response("joy", asked, rights="own-model", source="api")), *rows(TEXTS)]
    example = curated(tmp_path, made)[1][0]
    assert (example.id, example.messages, example.response) == (asked.id, asked.messages, "joy")
    assert (example.posts, example.label, example.cell) == (("yay",), "joy", asked.cell)
    assert (example.rights, example.source, example.model_served) == ("own-model", "api", "m-1")


def test_personal_data_is_in_no_file(tmp_path):
    post = "@ann write to ann@example.org or ring +44 20 7946 0188"
    asked = prompt(f"Sum up: {post}", posts=(post,), label="@ann")
    short = prompt(f"Again: {post}")
    made = [
        (asked, response("Ann (@ann) wants mail at ann@example.org, says the author.", asked)),
        (short, response("ann@example.org", short)),
        *rows(TEXTS),
    ]
    counts, kept, rejected = curated(tmp_path, made)
    example = kept[0]
    masked = "[HANDLE] write to [EMAIL] or ring [PHONE]"
    assert example.id == prompt_id(asked.messages)  # the id of what was asked, not of what is shown
    assert example.messages[0].content == f"Sum up: {masked}"
    assert (example.posts, example.label) == ((masked,), "[HANDLE]")
    assert example.response == "Ann ([HANDLE]) wants mail at [EMAIL], says the author."
    assert (rejected[0]["reason"], rejected[0]["response"]) == ("too_short", "[EMAIL]")
    assert counts["pii"] == {"handle": 2, "email": 2, "phone": 1}
    for name in ("kept.jsonl", "rejected.jsonl"):
        text = (tmp_path / "out" / name).read_text()
        assert "ann@" not in text
        assert "@ann" not in text
        assert "7946" not in text


def test_handles_may_stay(tmp_path):
    made = rows([f"@someone says: {TEXTS[0]}", *TEXTS[1:]])
    assert curated(tmp_path, made, mask_handles=False)[1][0].response.startswith("@someone")
    assert curated(tmp_path, made)[1][0].response.startswith("[HANDLE]")


def test_every_setting_reaches_its_check(tmp_path):
    made = rows([*TEXTS, f"{TEXTS[0]} Really."])
    assert curated(tmp_path, made)[0]["reasons"] == {"near_duplicate": 1}
    assert curated(tmp_path, made, duplicate_similarity=0.95)[0]["reasons"] == {}
    strict = curated(tmp_path, made, min_words=13, duplicate_similarity=1.0)[0]
    assert strict["reasons"] == {"too_short": 2}
    assert curated(tmp_path, made, max_words=13)[0]["reasons"]["too_long"] == 2
    asked = prompt(f"Sum up: {TEXTS[0]}")
    echoed = [(asked, response(f"{TEXTS[0]} Really so, they say.", asked)), *rows(TEXTS[1:])]
    assert curated(tmp_path, echoed)[0]["reasons"] == {}
    assert curated(tmp_path, echoed, echo_overlap=0.5)[0]["reasons"] == {"echo": 1}


def test_a_seed_gives_one_split(tmp_path):
    made = rows([f"Answer number {n} is about thing {n} of {n * n}." for n in range(40)])

    def sides(**settings):
        return [e.split for e in curated(tmp_path, made, valid_share=0.5, **settings)[1]]

    assert sides(seed=1) == sides(seed=1) != sides(seed=2)


@given(
    st.lists(st.uuids().map(str), min_size=2, max_size=40, unique=True),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_both_sides_occur_and_an_id_stays_on_its_side(ids, share, seed):
    splits = split(ids, share, seed)
    assert set(splits) == {"train", "valid"}
    fewer = split(ids[1:], share, seed) if len(ids) > 2 else splits[1:]
    moved = [a for a, b in zip(splits[1:], fewer, strict=True) if a != b]
    assert len(moved) <= 1


def test_the_share_is_about_right():
    splits = split([str(n) for n in range(4000)], 0.1, 0)
    assert 0.08 < splits.count("valid") / 4000 < 0.12


# ---- verdicts and people ----------------------------------------------------------------------


def verdicts(folder):
    return storage.read_records(folder / "out" / "verdicts.jsonl", Verdict)


def decided(verdict, decision, **more):
    fields = {"prompt_id": verdict.prompt_id, "body_sha": verdict.body_sha, "reviewer": "ann"}
    return Decision(decision=decision, at="2026-11-25T00:00:00Z", **{**fields, **more})


def test_every_answer_has_a_verdict_in_order(tmp_path):
    made = rows([TEXTS[0], "Meh.", TEXTS[0], f"They should all be shot. {TEXTS[1]}", TEXTS[2]])
    counts, kept, rejected = curated(tmp_path, made)
    found = verdicts(tmp_path)
    assert [v.prompt_id for v in found] == [p.id for p, _ in made]
    assert [v.keep for v in found] == [True, False, False, False, True]
    assert [v.reason for v in found] == ["", "too_short", "near_duplicate", "harmful", ""]
    assert [v.flagged for v in found] == [False, False, False, True, False]
    assert {v.rules for v in found} == {counts["rules"]}
    assert found[2].findings[0].detail == f"100% like the answer to {made[0][0].id}"
    assert [v.prompt_id for v in found if v.keep] == [e.id for e in kept]
    assert [v.prompt_id for v in found if not v.keep] == [r["prompt_id"] for r in rejected]
    assert kept[0].provenance.rules == counts["rules"]
    assert found[0].body_sha == body_sha(found[0].response)


def test_people_overrule_the_rules(tmp_path):
    flagged = f"They should all be shot. {TEXTS[1]}"
    made = rows([TEXTS[0], flagged, flagged + " Indeed.", TEXTS[2], "Meh.", TEXTS[3]])
    curated(tmp_path, made)
    before = verdicts(tmp_path)
    assert [v.keep for v in before] == [True, False, False, True, False, True]
    decisions = [
        decided(before[0], "reject", reason="false"),
        decided(before[1], "accept"),
        decided(before[3], "edit", edited="Write to @bob: all is well with the lighthouse."),
        decided(before[4], "accept"),
        decided(before[5], "reject", reason="poor", body_sha="0" * 64),
    ]
    storage.write_jsonl(tmp_path / "decisions.jsonl", decisions)
    counts, kept, rejected = curated(tmp_path, made, decisions_file=tmp_path / "decisions.jsonl")
    after = verdicts(tmp_path)
    assert [v.keep for v in after] == [False, True, False, True, False, True]
    assert [v.decided_by for v in after] == ["human", "human", "rules", "human", "rules", "rules"]
    assert [v.flagged for v in after] == [v.flagged for v in before]
    assert counts["human"] == {
        "rejected": 1, "accepted": 1, "edited": 1, "without_effect": 1, "stale": 1,
    }  # fmt: skip
    assert (rejected[0]["reason"], rejected[0]["detail"]) == ("human", "ann says false")
    edited = next(e for e in kept if e.id == before[3].prompt_id)
    assert edited.response == "Write to [HANDLE]: all is well with the lighthouse."
    assert edited.provenance.original == TEXTS[2]
    assert (edited.provenance.decided_by, edited.provenance.reviewer) == ("human", "ann")
    assert after[3].response == TEXTS[2]  # a verdict shows what was judged


def test_an_answer_that_people_reject_makes_nothing_a_duplicate(tmp_path):
    made = rows([TEXTS[0], TEXTS[0], TEXTS[1]])
    curated(tmp_path, made)
    decision = decided(verdicts(tmp_path)[0], "reject", reason="poor")
    storage.write_jsonl(tmp_path / "decisions.jsonl", [decision])
    kept = curated(tmp_path, made, decisions_file=tmp_path / "decisions.jsonl")[1]
    assert [e.id for e in kept] == [made[1][0].id, made[2][0].id]


def test_evaluation_sets_labels_and_languages_reach_their_checks(tmp_path):
    storage.write_jsonl(tmp_path / "test.jsonl", [{"text": TEXTS[0], "label": "x"}])
    made = rows(TEXTS)
    name = str(tmp_path / "test.jsonl")
    for files in (name, [name]):
        assert curated(tmp_path, made, evaluation_files=files)[0]["reasons"] == {"contaminated": 1}
    shipped = storage.read_jsonl(contamination.SHIPPED / "sentiment.jsonl")
    leaked = next(row["text"] for row in shipped if len(row["text"].split()) > 12)
    assert curated(tmp_path, rows([leaked, *TEXTS]))[0]["reasons"] == {"contaminated": 1}
    asked = prompt("Spam or ham? Answer with one word.", intent="spam")
    mixed = [(asked, response("maybe", asked)), *made]
    assert curated(tmp_path, mixed)[0]["reasons"] == {}
    labels = {"spam": ("spam", "ham")}
    assert curated(tmp_path, mixed, labels=labels)[0]["reasons"] == {"invalid_label": 1}
    pytest.importorskip("py3langid")
    counts = curated(tmp_path, made, languages=("en",))[0]
    assert counts["kept"] == 4
    with pytest.raises(DataError, match="rejected as language"):
        curated(tmp_path, made, languages=("ja",))


def test_two_processes_write_the_same_files(tmp_path):
    made = rows([*TEXTS, "Meh.", TEXTS[0]])
    curated(tmp_path, made, workers=1)
    names = ("verdicts.jsonl", "kept.jsonl", "rejected.jsonl", "balance.json")
    one = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    curated(tmp_path, made, workers=2)
    assert one == {name: (tmp_path / "out" / name).read_bytes() for name in names}


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".judged.1.partial").write_text("half")
    curated(tmp_path, rows(TEXTS))
    assert not list((tmp_path / "out").glob(".*"))


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_out_of_range(tmp_path, share):
    with pytest.raises(ConfigError, match="valid_share"):
        curated(tmp_path, rows(TEXTS), valid_share=share)


def test_an_answer_to_nothing(tmp_path):
    made = rows(TEXTS)
    made[2] = (made[2][0], response("Hm.", prompt("never asked")))
    with pytest.raises(DataError, match=prompt("never asked").id):
        curated(tmp_path, made)


def test_two_answers_to_one_prompt(tmp_path):
    made = rows(TEXTS)
    with pytest.raises(DataError, match=f"two answers to prompt {made[0][0].id}"):
        curated(tmp_path, [*made, made[0]])


def test_grok_is_refused_before_anything_is_kept_unless_an_agreement_is_named(tmp_path):
    made = rows(TEXTS)
    grok = {"source": "api", "endpoint": "https://api.x.ai/v1", "model_served": "grok-4.7"}
    made[1] = (made[1][0], response(TEXTS[1], made[1][0], rights="own-model", **grok))
    with pytest.raises(DataError, match=r"no training data is made: .*teacher\.rights='agreement"):
        curated(tmp_path, made)
    made[1] = (made[1][0], dataclasses.replace(made[1][1], rights="agreement: OF-17"))
    curated(tmp_path, made)


def test_no_rights_no_data(tmp_path):
    made = rows(TEXTS)
    made[1] = (made[1][0], response(TEXTS[1], made[1][0], rights=" "))
    with pytest.raises(DataError, match="without a declaration of rights"):
        curated(tmp_path, made)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_kept_says_why_and_leaves_the_rows(tmp_path):
    with pytest.raises(DataError, match=r"0 of 3 .*rejected as too_short \(2\)"):
        curated(tmp_path, rows(["Meh.", "Hm.", ""]))
    assert len(list(storage.read_jsonl(tmp_path / "out" / "rejected.jsonl"))) == 3
    assert not (tmp_path / "out" / "kept.jsonl").exists()


def test_one_example_cannot_be_split(tmp_path):
    with pytest.raises(DataError, match="1 of 1 answers were kept, and training needs two"):
        curated(tmp_path, rows(TEXTS[:1]))


# ---- the recordings that ship -----------------------------------------------------------------


def test_flaws_made_on_purpose_are_found_and_nothing_else(tmp_path):
    shipped = Path(curate.__file__).parents[1] / "assets" / "recorded.jsonl"
    recordings = list(storage.read_jsonl(shipped))
    from opengrok_jax.prompts import plan

    plan.run(out=tmp_path / "plan", count=len(recordings))
    prompts = storage.read_records(tmp_path / "plan" / "prompts.jsonl", Prompt)
    by_id = {r["id"]: r for r in recordings}
    made: list[tuple[Prompt, Response]] = [
        (p, response(by_id[p.id]["response"], p, finish_reason=by_id[p.id]["finish_reason"]))
        for p in prompts
        if p.id in by_id
    ]
    assert len(made) > 300
    counts, kept, rejected = curated(tmp_path, made)
    found = {r["prompt_id"]: r["reason"] for r in rejected}
    flaws = {p.id: by_id[p.id].get("flaw", "") for p, _ in made}
    names = {
        "truncated": "truncated",
        "refusal": "refusal",
        "short": "too_short",
        "harmful": "harmful",
        "echo": "echo",
        "duplicate": "near_duplicate",
    }
    good = [i for i, flaw in flaws.items() if flaw in ("", "pii")]
    assert [found[i] for i in good if i in found] == []
    bad = [i for i, flaw in flaws.items() if flaw in names]
    right = [i for i in bad if found.get(i) == names[flaws[i]]]
    assert len(right) >= 0.95 * len(bad)
    for example in kept:
        if flaws[example.id] == "pii":
            assert "[" in example.response
            assert example.response != by_id[example.id]["response"]
    assert counts["pii"]["email"] >= 1
