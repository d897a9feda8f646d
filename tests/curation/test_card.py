from opengrok_jax import storage
from opengrok_jax.curation import card
from opengrok_jax.records import Cell, Decision, Verdict
from opengrok_jax.rights import Source
from tests.curation.export_runs import curated, run_folder

SOURCE = Source("recorded", "http://recorded.invalid/v1", "m", "m-1", "ours")


def test_the_facts_are_those_of_the_run(tmp_path):
    run = run_folder(tmp_path, cost_ticks=5, received_at=86_400.0)
    facts = card.gather(run, {SOURCE: 5})
    assert facts.answers == {SOURCE: 5}
    assert facts.cost == {SOURCE: 25}
    assert (facts.first, facts.last) == (86_400.0, 86_400.0)
    assert facts.asked["planned"] == len(facts.planned) == len(facts.kept) == 5
    assert facts.curation["kept"] == facts.figures["texts"] == 5
    assert facts.review == []


def test_costs_that_were_not_told_are_not_zero(tmp_path):
    facts = card.gather(run_folder(tmp_path), {SOURCE: 5})
    assert facts.cost == {SOURCE: None}
    assert "Cost of all answers, kept or not: not told" in shown(facts)


def shown(facts, title="T", licence=""):
    return card.render(facts, title=title, licence=licence)


def test_the_card_says_it_all(tmp_path):
    text = shown(card.gather(run_folder(tmp_path, cost_ticks=3 * 10**9), {SOURCE: 5}))
    for said in (
        "Rows: 5",
        "Licence: none is stated",
        "| recorded | http://recorded.invalid/v1 | m | m-1 | ours | 5 | 5 | 1.5 USD |",
        "5 planned, 5 ok, 0 failed",
        "kept 5 of 5 answers",
        "Vendi score",
        "1 email",
        "Names of people and street addresses are not found",
        "Nobody has reviewed these answers",
        "must not be used for",
        '"Grok"',
    ):
        assert said in text, said


def test_decisions_are_told_without_names(tmp_path):
    run = run_folder(tmp_path)
    row = storage.read_records(run / "curation" / "verdicts.jsonl", Verdict)[0]
    decision = Decision(
        prompt_id=row.prompt_id, body_sha=row.body_sha, reviewer="Ann Example", decision="reject",
        reason="poor", at="2026-11-25T00:00:00Z",
    )  # fmt: skip
    storage.write_jsonl(run / "review" / "decisions.jsonl", [decision])
    curated(run)
    text = shown(card.gather(run, {SOURCE: 4}))
    assert "0 answers accepted, 0 edited and 1 rejected by 1 person." in text
    assert "Ann" not in text
    assert "Nobody has reviewed" not in text


def test_nothing_in_a_name_becomes_markdown(tmp_path):
    facts = card.gather(run_folder(tmp_path), {})
    evil = Source("api", "http://h/v1", "m|x\n# Boo", "<script>alert(1)</script>", "[a](http://b)")
    text = shown(card.Facts(**{**vars(facts), "sources": {evil: 1}}), title="# T\n\n## U")
    assert "\n# Boo" not in text
    assert "<script>" not in text
    assert "[a](http" not in text
    assert text.startswith("# \\# T \\#\\# U\n")


def test_gaps_are_shown_with_their_interval(tmp_path):
    facts = card.gather(run_folder(tmp_path), {SOURCE: 5})
    gap = {
        "group": "identity/women", "rows": 100, "kept": 50, "rate": 0.5, "low": 0.4, "high": 0.6,
        "rest": 0.9, "gap": -0.4, "gap_low": -0.5, "gap_high": -0.3, "flagged": True,
    }  # fmt: skip
    with_gap = card.Facts(**{**vars(facts), "balance": {"topics": {}, "groups": [gap]}})
    assert "| identity/women | 100 | 50.0% | 90.0% | 40.0% to 60.0% |" in shown(with_gap)
    assert "none was kept more" in shown(facts)


def test_labels_of_people_are_not_called_synthetic(tmp_path):
    facts = card.gather(run_folder(tmp_path, source="labelled"), {})
    people = Source("labelled", "http://labelled.invalid/v1", "m", "m-1", "ours")
    text = shown(card.Facts(**{**vars(facts), "sources": {people: 5}}))
    assert "no machine wrote them" in text
    assert Cell(intent="x").topic == ""
