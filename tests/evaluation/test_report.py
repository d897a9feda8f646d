"""The page and its twin: the files' numbers, hostile text as text, nothing fetched, nothing run."""

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

from opengrok_jax import masked_file, storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation import calibration, outcomes, report
from opengrok_jax.pages import inert
from tests.evaluation import finished
from tests.evaluation.finished import HOSTILE, MAJORITY, STUDENT, TFIDF, VALUES

bs4 = pytest.importorskip("bs4", reason="beautifulsoup4 reads the page; extra 'test'")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[dict[str, Any], Any, str]:
    """Arguments, the page as a tree, and the twin."""
    arguments = finished.write(tmp_path_factory.mktemp("run"))
    counts = report.run(**arguments, title="A <title>")
    page = (arguments["out"] / "report.html").read_text()
    assert counts["bytes"] == len(page.encode())
    soup = bs4.BeautifulSoup(page, "html.parser")
    return arguments, soup, (arguments["out"] / "report.md").read_text()


def said(soup: Any) -> str:
    return " ".join(soup.get_text(" ").split())


def cells(soup: Any) -> list[list[str]]:
    return [
        [" ".join(c.get_text(" ").split()) for c in row.find_all(["td", "th"])]
        for row in soup.find_all("tr")
    ]


def test_the_page_is_one_file_that_runs_and_fetches_nothing(made):
    arguments, soup, _ = made
    page = (arguments["out"] / "report.html").read_text()
    assert not soup.find_all(["script", "link", "iframe", "img", "object", "form", "base"])
    for tag in soup.find_all(True):
        assert not [key for key in tag.attrs if key.startswith("on") or key == "src"], tag
        for key in ("href", "xlink:href"):
            assert str(tag.get(key, "#")).startswith("#"), tag
    assert not re.search(r"url\((?!#)", page)
    assert not re.search("@import|[\x00-\x08\x0e-\x1f\u202a-\u202e]", page)
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert soup.title.text == "A <title>"
    targets = {a["href"][1:] for a in soup.find_all("a", href=True)}
    assert targets <= {tag["id"] for tag in soup.find_all(id=True)}
    ids = [tag["id"] for tag in soup.select("main > [id]")]
    assert len(ids) == len(set(ids)) >= 10


def test_every_picture_can_be_read_aloud_and_every_table_has_heads(made):
    _, soup, _ = made
    pictures = soup.find_all("svg")
    assert len(pictures) == 4  # scores, calibration, slices, learning
    assert all(p["role"] == "img" and len(p["aria-label"]) > 20 for p in pictures)
    assert all(table.find("th", scope="col") for table in soup.find_all("table"))


def test_what_a_post_wrote_is_shown_as_text(made):
    arguments, soup, twin = made
    page = (arguments["out"] / "report.html").read_text()
    for text in (page, twin):
        assert "<script>alert(1)" not in text
        assert "\u202e" not in text
        assert "49" not in re.findall(r"\d+(?= 👨)", text)  # {{7*7}} is no template
    shown = soup.select(".example .text")
    assert len(shown) == 3
    assert HOSTILE.split("\u202e")[0] in "".join(shown[0].strings)
    assert "\\u202eevil" in "".join(shown[0].strings)
    assert "http://" not in twin


def test_the_verdict_is_a_list_that_says_what_the_files_say(made):
    _, soup, twin = made
    items = soup.select(".verdicts li")
    assert [item["class"] for item in items] == [["below"]]
    text = said(items[0])
    assert "mood : student (likelihood) 0.500 macro F1, 0.450 to 0.550, 24 posts" in text
    assert f"is below {TFIDF} (0.712), within the noise of {MAJORITY} (0.333)." in text
    assert "the student is below at least one of the others." in said(soup.select_one(".lead"))
    assert (
        "* **below** mood: student (likelihood) 0.500 (macro F1, 0.450 to 0.550, 24 posts)" in twin
    )


def test_the_numbers_are_the_files(made):
    arguments, soup, twin = made
    rows = cells(soup)
    whole, (outcome,) = outcomes.read(arguments["evaluation"])
    for score in whole["scores"]:
        value, low, high = (f"{score[key]:.3f}" for key in ("value", "low", "high"))
        unparsable = f"{100 * score['unparsable']:.0f} %"
        assert [score["predictor"], value, f"{low}–{high}", unparsable] in rows
        assert f"| {score['predictor']} | {value} | {low} to {high} | 24 | {unparsable} |" in twin
    for who in (STUDENT, TFIDF):
        one = calibration.calibration(*calibration.confidences(outcome.predictions[who][0]))
        numbers = [f"{x:.3f}" for x in (one.ece, one.confidence, one.accuracy)]
        assert [who, *numbers, "24"] in rows
        assert f"| {who} | {' | '.join(numbers)} | 24 |" in twin
    gold = [row["gold"] for row in finished.predictions()[STUDENT]]
    given = [row["predicted"] for row in finished.predictions()[STUDENT]]
    for label in finished.LABELS:
        counts = [
            str(sum((g, p) == (label, other) for g, p in zip(gold, given, strict=True)))
            for other in finished.LABELS
        ]
        assert [label, *counts] in rows
        assert f"| {label} | {' | '.join(counts)} |" in twin
    assert ["<en>", "9", *(f"{v:.3f}" for v in VALUES.values())] in rows
    assert ["collect", "ask", "1 min 1 s", "0.0025"] in rows
    for wanted in ("1,234,567", "85.0 %", "3 of 5 answers", "too short", "7.1 % of 1,234 tokens"):
        assert wanted in said(soup), wanted
    assert "verdict on majority <i>" in said(soup)
    assert "step 75.0 %, save 25.0 %" in said(soup)


def test_the_worst_errors_are_the_surest_and_show_their_masks(made):
    arguments, soup, twin = made
    section = soup.find(id="errors")
    cards = [tag for tag in section.find_all_next("article") if "example" not in tag["class"]]
    wrong = [
        row for row in finished.predictions()[STUDENT] if row["gold"] != row["predicted"]
    ]  # the surest stand first: their scores fall from post to post
    assert len(cards) == min(6, len(wrong))
    masks, _ = masked_file.read_masked(arguments["question_masks"])
    of = dict(zip(masks.ids, masks, strict=True))
    for card, row in zip(cards, wrong, strict=False):
        assert f"gold {row['gold']} said {row['predicted']}" in said(card.header)
        text = "".join(card.select_one(".text").strings)
        assert text.rstrip() == inert(row["text"]).rstrip()
        struck = card.select("del.t.gone")
        assert struck
        assert all("hidden" in tag["title"] for tag in struck)
        assert (~of[f"mood/{row['id']}"].key_mask).sum() >= len(struck)
    assert "[~~" in twin


def test_without_masks_the_page_says_so_and_shows_the_posts(tmp_path: Path):
    arguments = finished.write(tmp_path)
    arguments |= {"question_masks": None, "unmasked": "the annotator <x> is gone"}
    report.run(**arguments)
    soup = bs4.BeautifulSoup((arguments["out"] / "report.html").read_text(), "html.parser")
    todo = [said(tag) for tag in soup.select(".todo")]
    assert sum("the annotator <x> is gone" in text for text in todo) == 2
    assert not [row for row in cells(soup) if row[0].endswith("hidden")]
    cards = soup.find(id="errors").find_all_next("article")
    assert not cards[0].find("del")
    assert "post number" in said(cards[0]) or "<script>" in said(cards[0])


def test_the_same_files_give_the_same_page(made, tmp_path: Path):
    arguments, *_ = made
    report.run(**{**arguments, "out": tmp_path}, title="A <title>")
    for name in ("report.html", "report.md"):
        assert (tmp_path / name).read_bytes() == (arguments["out"] / name).read_bytes()


def test_bad_input_is_one_line(tmp_path: Path):
    arguments = finished.write(tmp_path)
    with pytest.raises(ConfigError, match=r"report\.examples is -1"):
        report.run(**arguments, examples=-1)
    whole = storage.read_json(arguments["evaluation"] / "scores.json")
    del whole["tasks"]
    storage.write_json(arguments["evaluation"] / "scores.json", whole)
    with pytest.raises(DataError, match=r"--redo evaluate"):
        report.run(**arguments)
    (arguments["evaluation"] / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"scores\.json: not readable as JSON"):
        report.run(**arguments)
    assert not (arguments["out"] / "report.html").exists()


def test_doctests():
    assert doctest.testmod(report).failed == 0
    assert doctest.testmod(outcomes).failed == 0
