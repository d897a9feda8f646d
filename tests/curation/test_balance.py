import pytest

from opengrok_jax.curation import balance
from opengrok_jax.curation.balance import marks, report
from opengrok_jax.errors import DataError
from tests.curation.curation_rows import prompt, response


def test_marks_of_an_answer():
    to = prompt("Sum up", posts=("a woman finna board the bus",))
    said = response("People love it and support the free buses", to)
    assert marks(to, said) == (
        "sentiment/positive", "stance/for", "dialect/african american english", "identity/women",
    )  # fmt: skip


def test_a_stated_label_counts_instead_of_words():
    to = prompt("Which sentiment?", intent="sentiment")
    assert marks(to, response("Negative: he loves it, allegedly", to)) == ("sentiment/negative",)
    plain = prompt("Which sentiment?", intent="trend_summary")
    assert marks(plain, response("A terrible, awful, good day", plain))[0] == "sentiment/negative"


def test_messages_are_looked_at_where_no_post_is_quoted():
    assert "identity/women" in marks(prompt("What do women say?"), response("Nothing new here"))
    to = prompt("What do women say?", posts=("hm",))
    assert "identity/women" not in marks(to, response("Nothing new here", to))


def test_the_report_counts_kept_rows_by_topic():
    rows = [
        ("food", True, ("sentiment/positive", "stance/for")),
        ("food", True, ("sentiment/negative", "stance/for")),
        ("food", False, ("sentiment/negative", "stance/against")),
    ]
    assert report(rows)["topics"] == {
        "food": {
            "kept": 2,
            "sentiment": {"positive": 0.5, "neutral": 0.0, "negative": 0.5},
            "stance": {"for": 1.0, "undecided": 0.0, "against": 0.0},
        }
    }
    assert report([]) == {"topics": {}, "groups": []}


def test_a_gap_is_flagged_only_beyond_noise():
    def rows(group_kept, group_rejected, others_kept, others_rejected):
        mark = ("identity/women",)
        return (
            [("t", True, mark)] * group_kept
            + [("t", False, mark)] * group_rejected
            + [("t", True, ())] * others_kept
            + [("t", False, ())] * others_rejected
        )

    (gap,) = report(rows(50, 50, 900, 100))["groups"]
    assert (gap["rows"], gap["kept"], gap["rate"], gap["rest"]) == (100, 50, 0.5, 0.9)
    assert gap["flagged"]
    assert gap["gap_high"] < 0
    assert gap["low"] < 0.5 < gap["high"]
    (gap,) = report(rows(4, 1, 900, 100))["groups"]  # 0.8 of 5 rows is no evidence
    assert not gap["flagged"]
    (gap,) = report(rows(1000, 0, 900, 100))["groups"]  # kept more often than others
    assert gap["flagged"]
    (gap,) = report(rows(5, 5, 0, 0))["groups"]  # nobody else to compare with
    assert not gap["flagged"]


def test_with_many_groups_the_level_is_shared():
    one = [("t", n < 40, ("identity/women",)) for n in range(50)]
    rest = [("t", n < 900, ()) for n in range(1000)]
    many = [("t", True, (f"identity/{n}",)) for n in range(40)]
    alone = report([*one, *rest])["groups"][0]
    among = next(g for g in report([*one, *rest, *many])["groups"] if g["group"].endswith("women"))
    assert among["gap_high"] - among["gap_low"] > alone["gap_high"] - alone["gap_low"]


def test_the_lists_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(balance, "ASSETS", tmp_path)
    (tmp_path / "bad.txt").write_text("[a]\nfine\nTwo-Words\n")
    with pytest.raises(DataError, match="line 3"):
        balance._lists("bad.txt")


def test_no_name_of_a_group_is_an_entry_of_the_harmful_words():
    from opengrok_jax.curation import words

    listed = {w for rows in words._entries(words.LIST).values() for s, p in rows for w in p}
    names = balance._lists("groups.txt")
    identity = {w for w, lists in names.items() if any(x.startswith("identity/") for x in lists)}
    assert listed & identity <= {"black", "white", "man", "men"}
