from opengrok_jax.masking import annotator_notice
from opengrok_jax.masking.syntax import EMBEDDED


def test_the_shipped_texts_are_these():
    assert (EMBEDDED / "NOTICE").read_text() == annotator_notice.NOTICE
    assert (EMBEDDED / "LICENSE").read_text() == annotator_notice.LICENSE


def test_the_attribution_names_licence_source_authors_and_changes():
    for wanted in ("CC BY-SA 4.0", annotator_notice.TREEBANK_URL, "Silveira", "What was changed"):
        assert wanted in annotator_notice.NOTICE


def test_the_card_carries_its_figures_and_its_limits():
    card = annotator_notice.card("| a | 1.00 |", rough_copies=2, megabytes=2.39)
    for wanted in ("| a | 1.00 |", "2.4 MB", "(2)", "score_annotator", "Know before use"):
        assert wanted in card


def test_the_sources_hold_the_hashes():
    [source] = annotator_notice.sources({"train": "ab"})
    assert source["license"] == "CC BY-SA 4.0"
    assert source["sha256"] == {"train": "ab"}


def test_published_figures_stand_in_the_card_with_their_sources():
    table = annotator_notice.published()
    assert table in annotator_notice.card("", rough_copies=2, megabytes=1.0)
    for system, *_, las in annotator_notice.PUBLISHED:
        [line] = [line for line in table.splitlines() if system in line]
        assert line.count("|") == 7
        assert las is None or line.endswith(f"| {las:g} |")
        assert system[-3:] in annotator_notice.PUBLISHED_FROM
