import xml.etree.ElementTree as ElementTree
from typing import Any

from opengrok_jax.ablation import figures


def question():
    row = {"set": "base", "task": "mood", "outcome": "baseline", "difference": None}
    rows: list[dict[str, Any]] = [dict(row, cell="none")]
    for cell, outcome, x in (("exclude", "below", -0.1), ("multiply", "noise", 0.01)):
        more = {"difference": x, "difference_low": x - 0.05, "difference_high": x + 0.05}
        for where in ("base", ""):
            task = "mood" if where else "all"
            place = {"set": where, "task": task, "cell": cell, "outcome": outcome}
            rows.append(place | more)
    return {
        "name": "q",
        "ask": "Does <it> help?",
        "baseline": "none",
        "rows": rows,
        "answer": "No.",
    }


def test_the_picture_is_svg_with_text_and_two_kinds_of_marks():
    text = figures.picture(question())
    root = ElementTree.fromstring(text)
    words = "".join(root.itertext())
    for word in ("exclude", "multiply", "mood", "all", "Does <it> help?", "points against"):
        assert word in words
    assert figures.COLOURS["below"].lower() in text.lower()
    assert figures.COLOURS["noise"].lower() in text.lower()
    assert "#ffffff" in text.lower() or "fill: white" in text.lower()  # hollow: inside the noise
    assert text == figures.picture(question())
