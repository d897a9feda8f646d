import csv
import io
import json

import pytest

from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.curation.review import exchange
from opengrok_jax.curation.review.exchange import COLUMNS, take, write
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.records import to_json
from tests.curation.review_rows import decision, verdict

NASTY = "=1+1\r\n\t@x, \"q\" 'a' \0 \ud800 \u202e <b> json:"
ROWS = [
    verdict("p1", "an answer"),
    verdict("p2", NASTY, reason="harmful"),
    verdict("0123456789012345", "007"),
    verdict("p4", "never decided"),
]


def made():
    """Decisions on three of them, by two people, one twice."""
    return [
        decision("accept", "p1"),
        decision("reject", "p1", look=2, reason="other", note='\'=but, "why"?\n2'),
        decision("accept", "p1", reviewer="bob"),
        decision("edit", "p2", NASTY, edited="-2+3\r\nnew\x0b"),
        decision("reject", "0123456789012345", "007"),
        decision("skip", "p4", "never decided"),
    ]


def imported(folder, path, rows=ROWS, first=()):
    """What importing does to a run where `first` was decided: the report and all decisions."""
    with decisions.opened(folder) as log:
        for row in first:
            log.append(row)
        report = take(path, rows, log, decisions.read(log.path))
        return report, decisions.read(log.path)


def settled(rows):
    return {k: d for k, d in decisions.by_look(rows).items() if d.decision != "skip"}


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_out_and_in_again_is_the_same(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    assert write(path, ROWS, made()) == 6
    report, found = imported(tmp_path / "other", path)
    assert settled(found) == settled(made())
    assert (report.taken, report.known, report.undecided, dict(report.stale)) == (5, 0, 1, {})


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_the_second_time_changes_nothing(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    write(path, ROWS, made())
    _, first = imported(tmp_path / "run", path)
    before = (tmp_path / "run" / "review" / "decisions.jsonl").read_bytes()
    report, second = imported(tmp_path / "run", path)
    assert (report.taken, report.known) == (0, 5)
    assert first == second
    assert (tmp_path / "run" / "review" / "decisions.jsonl").read_bytes() == before


def test_jsonl_holds_what_a_reader_needs(tmp_path):
    write(tmp_path / "out.jsonl", ROWS[1:2], [])
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert set(row) == set(COLUMNS)
    assert row["answer"] == NASTY
    assert row["prompt"] == "user: What of p2?"
    assert row["why"] == "harmful: as seen"
    assert row["decision"] == row["reviewer"] == ""


def test_csv_is_what_a_spreadsheet_reads(tmp_path):
    write(tmp_path / "out.csv", ROWS, made())
    content = (tmp_path / "out.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf" + ",".join(COLUMNS).encode() + b"\r\n")
    cells = [
        c for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) for c in row
    ]
    for written in cells:
        if written not in ("", *map(str, range(9)), "4.5", "0.0"):
            assert written[0] == "'" or written[0].isalpha(), written
    assert "'0123456789012345" in cells  # else a number, rounded


def csv_file(path, *rows, columns=COLUMNS):
    blank = dict.fromkeys(columns, "")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows([{**blank, **row} for row in rows])
    path.write_text(text.getvalue())
    return path


def by_hand(**changed):
    plain = to_json(decision("accept", "p1", reviewer="cy")) | {"at": "", "seconds": ""}
    return plain | changed


def test_a_row_written_by_hand_counts_as_of_now(tmp_path):
    path = csv_file(tmp_path / "in.csv", by_hand(decision=" Accept ", look=""))
    report, (row,) = imported(tmp_path / "run", path)
    assert report.taken == 1
    assert (row.decision, row.reviewer, row.look, row.seconds) == ("accept", "cy", 1, 0.0)
    assert row.at > "2026-11"
    assert row.at.endswith("+00:00")
    again, _ = imported(tmp_path / "run", path)
    assert (again.taken, again.known) == (0, 1)


def test_of_two_the_later_counts(tmp_path):
    stood = decision("accept", "p1", at="2026-11-25T12:00:00+00:00")
    early = to_json(decision("reject", "p1", at="2026-11-25T13:30:00+02:00"))
    late = to_json(decision("reject", "p1", at="2026-11-25T12:00:01+00:00"))
    same = to_json(decision("reject", "p1", at="2026-11-25T12:00:00Z"))
    for name, row, taken, stands in [
        ("early", early, 0, "accept"),
        ("late", late, 1, "reject"),
        ("same", same, 1, "reject"),  # changed in the file, which keeps the time
    ]:
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(row) + "\n")
        report, found = imported(tmp_path / name, path, first=[stood])
        assert (report.taken, report.older) == (taken, 1 - taken)
        (outcome,) = decisions.outcomes(found).values()
        assert outcome.decision == stands


def test_an_old_file_does_not_bring_back_what_was_taken_back(tmp_path):
    stood = decision("reject", "p1", at="2026-11-25T12:00:00+00:00")
    write(tmp_path / "old.csv", ROWS[:1], [stood])
    undone = decision("undo", "p1", at="2026-11-25T12:00:09+00:00")
    report, found = imported(tmp_path / "run", tmp_path / "old.csv", first=[stood, undone])
    assert report.older == 1
    assert decisions.outcomes(found) == {}


def test_stale_bodies_are_left_out_with_the_reason(tmp_path):
    rows = [
        to_json(decision("reject", "p1", text="what it once was")),
        to_json(decision("accept", "p1")),
        to_json(decision("accept", "gone")),
        to_json(decision("accept", "gone too")),
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    report, found = imported(tmp_path / "run", path)
    assert [d.prompt_id for d in found] == ["p1"]
    assert dict(report.stale) == {"the answer is another one now": 1, "no such prompt": 2}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"decision": "maybe"}, "decision is 'maybe'"),
        ({"decision": "undo"}, "decision is 'undo'"),
        ({"decision": "reject", "reason": "ugly"}, "a reason out of"),
        ({"decision": "edit"}, "an edit needs the new text"),
        ({"reviewer": ""}, "reviewer's name"),
        ({"at": "yesterday"}, "at is 'yesterday'"),
        ({"at": "2026-11-25T12:00:00"}, "a time with its zone"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"look": "3"}, "look is 1 or 2"),
        ({"answer": "another answer"}, "the answer was changed"),
        ({"note": "json:{"}, "begins with json: and is not JSON"),
    ],
)
def test_malformed_rows_are_named_and_nothing_is_taken(tmp_path, change, wrong):
    good = by_hand()
    broken = csv_file(
        tmp_path / "in.csv", good | {"note": "two\nlines"}, good | change, good, good | change
    )
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "run", broken)
    assert "nothing was taken in, 2 rows are malformed: line 4: " in str(caught.value)
    assert "; line 6: " in str(caught.value)
    assert wrong in str(caught.value)
    assert decisions.read(tmp_path / "run" / "review" / "decisions.jsonl") == []


def test_spaces_that_a_spreadsheet_changed_do_not_matter(tmp_path):
    path = csv_file(tmp_path / "in.csv", by_hand(answer="an  answer\n"))
    assert imported(tmp_path / "run", path)[0].taken == 1


def test_semicolons_are_read_too(tmp_path):
    path = csv_file(tmp_path / "in.csv", by_hand(note="a; b"))
    rows = list(csv.reader(io.StringIO(path.read_text())))
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=";").writerows(rows)
    path.write_text(out.getvalue())
    report, (row,) = imported(tmp_path / "run", path)
    assert (report.taken, row.note) == (1, "a; b")


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("a.csv", "prompt_id,decision\n", "lacks the column body_sha, reviewer"),
        ("a.csv", "", "lacks the column body_sha, decision, prompt_id, reviewer"),
        ("a.csv", b"\xff\xfe", "not UTF-8"),
        ("a.csv", ",".join(COLUMNS) + '\nx,"y\n', "line 2: no CSV"),
        ("a.csv", ",".join(COLUMNS) + "\nx,y\n", "line 2: 2 cells, 13 expected"),
        ("a.jsonl", "{}\n[1]\n\n{\n", "line 2: no JSON object; line 4: no JSON object"),
        ("a.jsonl", '{"decision": 7}\n', "line 1: decision is 7"),
        ("a.jsonl", '{"decision": "accept"}\n', "line 1: a Decision lacks"),
        ("a.json", "{}", "expected a list of tasks"),
        ("a.json", "{", "not JSON"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, wrong):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=wrong):
        imported(tmp_path / "run", tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(DataError, match=f"{name}: no such file"):
        imported(tmp_path / "run", tmp_path / name)


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected .jsonl, .csv, .json"):
        write(tmp_path / "a.xlsx", ROWS, [])
    with pytest.raises(ConfigError, match="the ending says the format"):
        imported(tmp_path / "run", tmp_path / "a.parquet")


def test_a_file_does_not_part_the_audit_from_the_doubtful(tmp_path):
    doubt = verdict("p1", reason="echo").findings
    doubtful = verdict("p1", keep=True, flagged=False, findings=doubt, uncertain=True)
    for ending in ("jsonl", "csv", "json"):
        write(tmp_path / f"a.{ending}", [doubtful], [])
        write(tmp_path / f"b.{ending}", [verdict("p1")], [])
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_the_columns_are_the_decisions_own():
    assert set(exchange.DECISION) < set(COLUMNS)
