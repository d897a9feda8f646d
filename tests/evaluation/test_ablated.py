"""A finished ablation in the report of a run."""

import json

import pytest

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation import ablated, report
from tests.evaluation import finished

bs4 = pytest.importorskip("bs4", reason="beautifulsoup4 reads the page; extra 'test'")


def row(cell, task, outcome, difference, p):
    """A row of a question of ablation.json."""
    less, more = (None, None) if difference is None else (difference - 0.05, difference + 0.05)
    told = {"cell": cell, "set": "" if task == "all" else "base", "task": task}
    told |= {"metric": "macro_f1", "value": 0.4, "low": 0.35, "high": 0.45, "outcome": outcome}
    told |= {"difference": difference, "difference_low": less, "difference_high": more}
    return told | {"p_corrected": p}


@pytest.fixture
def workdir(tmp_path):
    """An ablation of one question; tests/ablation/test_ablate.py reads a real one."""
    question = {
        "ask": "Does <the> mask help?",
        "answer": "exclude is below no mask (-10.0 points).",
        "baseline": "no mask",
        "rows": [
            row("no mask", "mood", "baseline", None, None),
            row("exclude", "mood", "below", -0.1, 0.0002),
            row("exclude", "all", "noise", 0.01, 0.4),
        ],
    }
    told = {
        "config": "base.py",
        "grid": "grid.py",
        "seeds": [0, 1],
        "made": {"date": "2026-11-26T10:00+00:00", "hardware": "cpu, 2 CPU cores"},
        "questions": [question],
        "floors": [
            {"task": "mood", "predictor": "majority", "value": 0.3, "low": 0.2, "high": 0.4}
        ],
        "notes": ["one cell has learnt nothing"],
    }
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "ablation.json").write_text(json.dumps(told))
    return tmp_path / "ablation"


def test_every_question_stands_there_with_its_picture_and_rows(workdir, tmp_path):
    arguments = finished.write(tmp_path / "run")
    report.run(**arguments, ablation=str(workdir))
    page = bs4.BeautifulSoup((arguments["out"] / "report.html").read_text(), "html.parser")
    twin = (arguments["out"] / "report.md").read_text()
    words = " ".join(page.get_text(" ").split())
    assert "base.py with grid.py, 2 seeds; 2026-11-26, cpu, 2 CPU cores" in words
    assert "Does <the> mask help?" in words
    assert "Does <the> mask help?" not in twin  # no tag of a reader's
    table = page.find("caption", string="held against no mask").parent
    found = [[cell.text for cell in line.find_all("td")] for line in table.tbody.find_all("tr")]
    assert found == [
        ["no mask", "mood", "40.0 [35.0, 45.0]", "", "", "baseline"],
        ["exclude", "mood", "40.0 [35.0, 45.0]", "-10.0 [-15.0, -5.0]", "< 0.001", "▼ below"],
        ["exclude", "all", "40.0 [35.0, 45.0]", "+1.0 [-4.0, +6.0]", "0.400", "≈ inside the noise"],
    ]
    assert "mood, majority 30.0 [20.0, 40.0]" in words
    for text in (words, twin):
        assert "exclude is below no mask" in text
        assert "one cell has learnt nothing" in text
    (picture,) = [p for p in page.find_all("svg") if "mask help" in p["aria-label"]]
    assert "1 of 2 differences lie outside the noise" in picture["aria-label"]
    assert "mood -10.0" in picture.text


def test_a_folder_without_an_ablation_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"report\.ablation is .*: `opengrok ablate"):
        ablated.read(tmp_path)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "ablation.json").write_text(json.dumps({"made": {}}))
    with pytest.raises(DataError, match=r"is not an ablation\.json of this version"):
        ablated.read(tmp_path)
