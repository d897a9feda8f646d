import xml.etree.ElementTree as ElementTree

from opengrok_jax.evaluation import charts
from opengrok_jax.records import Score


def score(who: str, value: float) -> Score:
    return Score(
        task="t<a>", metric="macro_f1", predictor=who, value=value, low=0.1, high=0.9, rows=5
    )


def test_loss_curves_are_well_formed_and_say_what_was_kept():
    svg = charts.loss_curves([1, 2, 3], [3.0, 2.0, 1.5], [(2, 2.5), (3, 2.6)], 2, True, "response")
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "Loss curves; the parameters of step 2 were kept."
    text = "".join(root.itertext())
    assert "kept: step 2, loss 2.50" in text
    assert "stopped early" in text
    assert "loss per response (nats)" in text


def test_colours_are_the_pages_and_the_picture_is_the_same_every_time():
    first, second = (
        charts.intervals([score("student", 0.4), score("majority", 0.2)]) for _ in "ab"
    )
    assert first == second
    assert "var(--blue)" in first
    assert not any(placeholder in first for placeholder in charts.VARIABLES)


def test_the_label_read_aloud_is_escaped():
    root = ElementTree.fromstring(charts.intervals([score('stu"dent', 0.4)]))
    assert root.attrib["aria-label"].startswith('t<a>: stu"dent 0.400')
