import json
import threading

import pytest

from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.curation.review import queueing
from opengrok_jax.curation.review.queueing import Draw
from opengrok_jax.curation.review.session import Session, Stale, _shown
from opengrok_jax.errors import DataError
from opengrok_jax.records import Finding, Message
from tests.curation.review_rows import decision, verdict

ALL = Draw(uncertain=1.0, audit=0.0, repeat=0.0)


def session(log, rows, draw=ALL, reviewer="ann"):
    queue = queueing.queue(queueing.strata(rows, draw), draw)
    return Session(queue, log, reviewer, decisions.read(log.path))


@pytest.fixture
def log(tmp_path):
    with decisions.opened(tmp_path) as log:
        yield log


def rows(count=4):
    return [verdict(f"p{n}", f"answer {n}") for n in range(count)]


def decide(s, said="accept", **more):
    return s.decide(s.state()["item"]["ticket"], said, **more)


def shown(s):
    item = s.state()["item"]
    return item and item["answer"]


def test_a_decision_is_in_the_file_before_it_is_told(log):
    s = session(log, rows())
    first = shown(s)
    state = decide(s, "reject", reason="poor", note=" dull ", seconds=3.14)
    (row,) = decisions.read(log.path)
    assert (row.decision, row.reason, row.note, row.seconds) == ("reject", "poor", "dull", 3.1)
    assert row.reviewer == "ann"
    assert row.at.endswith("+00:00")
    assert (state["done"], state["total"], state["rejected"]) == (1, 4, 1)
    assert shown(s) != first


def test_a_new_session_goes_on_where_the_last_one_was(log):
    s = session(log, rows())
    decide(s)
    decide(s, "edit", edited="better")
    following = shown(s)
    again = session(log, rows())
    assert shown(again) == following
    assert again.state()["edited"] == 1
    assert session(log, rows(), reviewer="bob").state()["done"] == 0


def test_skipped_answers_come_again_in_the_end(log):
    s = session(log, rows(3))
    first = shown(s)
    decide(s, "skip")
    second = shown(s)
    decide(s, "skip")
    decide(s)
    assert shown(s) == first
    decide(s, "skip")
    assert shown(s) == second
    decide(s)
    assert shown(s) == first
    decide(s)
    assert shown(s) is None
    assert s.state()["done"] == 3
    assert shown(session(log, rows(3))) is None


def test_undo_goes_back_step_by_step_and_only_appends(log):
    s = session(log, rows(3))
    first = shown(s)
    decide(s)
    second = shown(s)
    decide(s, "skip")
    s.undo()
    assert shown(s) == second
    s.undo()
    assert shown(s) == first
    with pytest.raises(Stale, match="nothing to take back"):
        s.undo()
    assert [d.decision for d in decisions.read(log.path)] == ["accept", "skip", "undo", "undo"]
    decide(s, "reject", reason="harmful")
    assert shown(s) == second
    assert session(log, rows(3)).state()["rejected"] == 1


def test_undo_after_a_restart_takes_back_the_last(log):
    s = session(log, rows(3))
    decide(s)
    second = shown(s)
    decide(s)
    again = session(log, rows(3))
    again.undo()
    assert shown(again) == second


def test_undo_leaves_the_decisions_of_others_alone(log):
    log.append(decision("accept", "p0", "answer 0", reviewer="bob"))
    with pytest.raises(Stale):
        session(log, rows()).undo()


def test_two_windows_cannot_decide_the_same_answer_twice(log):
    s = session(log, rows())
    ticket = s.state()["item"]["ticket"]
    s.decide(ticket, "accept")
    with pytest.raises(Stale, match="decided already"):
        s.decide(ticket, "reject", reason="poor")
    with pytest.raises(Stale):
        s.decide("é\ud800", "accept")
    assert len(decisions.read(log.path)) == 1


def test_many_threads_write_whole_lines(log):
    s = session(log, rows(60))
    refused = []

    def work():
        for _ in range(60):
            item = s.state()["item"]
            if item is None:
                return
            try:
                s.decide(item["ticket"], "accept")
            except Stale:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = decisions.read(log.path)
    assert len({d.prompt_id for d in written}) == len(written) == 60


@pytest.mark.parametrize(
    ("said", "more", "wrong"),
    [
        ("reject", {}, "needs a reason"),
        ("edit", {"edited": ""}, "needs the new text"),
        ("edit", {"edited": "answer 0"}, "nothing was changed"),
        ("undo", {}, "is no decision"),
        ("maybe", {}, "is no decision"),
    ],
)
def test_a_bad_decision_is_not_written(log, said, more, wrong):
    s = session(log, rows(1))
    with pytest.raises(DataError, match=wrong):
        decide(s, said, **more)
    assert decisions.read(log.path) == []
    assert s.state()["done"] == 0


def test_after_the_end_nothing_is_taken(log):
    s = session(log, rows())
    ticket = s.state()["item"]["ticket"]
    s.close()
    for late in (lambda: s.decide(ticket, "accept"), s.undo):
        with pytest.raises(Stale, match="ended"):
            late()


def test_the_second_look_waits_for_the_first(log):
    draw = Draw(uncertain=1.0, audit=0.0, repeat=1.0)
    s = session(log, rows(4), draw)
    assert s.state()["total"] == 6  # the first two come twice
    first = shown(s)
    decide(s, "skip")
    seen = []
    while shown(s) != first:
        seen.append(shown(s))
        decide(s)
    decide(s)  # the first look of the skipped one; now its second may come
    assert shown(s) == first
    assert first not in seen
    decide(s, "reject", reason="poor")
    assert s.state()["item"] is None
    (own,) = s.state()["agreement"]
    assert (own["first"], own["second"], own["rows"], own["same"]) == ("ann", "ann", 2, 1)


def test_agreement_with_others_is_told_and_not_that_among_them(log):
    for who in ("bob", "eve"):
        log.append(decision("accept", "p0", "answer 0", reviewer=who))
    s = session(log, rows(1))
    decide(s)
    pairs = {(a["first"], a["second"]) for a in s.state()["agreement"]}
    assert pairs == {("ann", "bob"), ("ann", "eve")}


def test_what_the_page_gets_of_a_row():
    """Prompt, posts, answer; the findings where it is flagged."""
    row = verdict(
        "p1",
        "an answer",
        reason="harmful",
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="Sum up:\n1. one\n2. two\nNow."),
        ),
        posts=("one", "two", "", "nowhere"),
        label="joy",
    )
    assert _shown(row) == {
        "turns": [
            {"role": "system", "parts": [{"text": "Be brief.", "post": False}]},
            {
                "role": "user",
                "parts": [
                    {"text": "Sum up:\n1. ", "post": False},
                    {"text": "one", "post": True},
                    {"text": "\n2. ", "post": False},
                    {"text": "two", "post": True},
                    {"text": "\nNow.", "post": False},
                ],
            },
        ],
        "label": "joy",
        "answer": "an answer",
        "why": [
            {
                "check": "harm",
                "reason": "harmful",
                "score": 1.0,
                "certain": True,
                "detail": "as seen",
            }
        ],
    }


def test_nothing_told_parts_the_audit_or_the_second_look_from_the_rest(log):
    """Walks the whole queue: all rows that are not flagged look alike, but for their words."""
    doubt = Finding(check="echo", reason="echo", score=0.7, certain=False, detail="70 %")
    given = [verdict(f"f{n}", f"flagged {n}", reason="harmful") for n in range(8)]
    given += [
        verdict(f"d{n}", f"doubtful {n}", uncertain=True, findings=(doubt,), scores={"echo": 0.7})
        for n in range(20)
    ]
    given += [verdict(f"k{n}", f"plain {n}") for n in range(180)]
    draw = Draw(uncertain=0.1, audit=0.1, repeat=0.2)
    parts = queueing.strata(given, draw)
    audit = {row.response for row in parts.sample}
    assert len(audit) == 20
    s = session(log, given, draw)
    tickets, seen = set(), {True: [], False: []}
    secret = {"sample", "audit", "look", "prompt_id", "body_sha", "uncertain", "scores", "seed"}
    while item := (state := s.state())["item"]:
        text = json.dumps(state)
        assert not any(f'"{word}"' in text for word in secret), text
        assert not any(row.prompt_id == word for row in given for word in _strings(item))
        tickets.add(item["ticket"])
        if not item["answer"].startswith("flagged"):
            told = {**item, "ticket": "", "answer": "", "turns": ""}
            seen[item["answer"] in audit].append(json.dumps(told))
            assert [len(t["parts"]) for t in item["turns"]] == [1]
        s.decide(item["ticket"], "accept")
    assert len(tickets) == s.state()["total"]
    assert len(seen[True]) >= 20
    assert set(seen[True]) == set(seen[False])
    assert len(set(seen[True])) == 1


def _strings(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [s for v in value for s in _strings(v)]
    return [value]
