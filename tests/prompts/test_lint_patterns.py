from opengrok_jax.prompts.lint_patterns import PATTERNS, SQUEEZED
from tests.prompts.wordings import BAD, INNOCENT


def test_no_pattern_is_idle():
    """Each finds one of the listed wordings, so that none can rot unseen."""
    plain = [(reason, text.lower()) for reason, texts in BAD.items() for text in texts]
    for reason, pattern in PATTERNS:
        assert any(r == reason and pattern.search(text) for r, text in plain), pattern.pattern


def test_reasons_are_those_of_the_list():
    assert {reason for reason, _ in PATTERNS} <= set(BAD)


def test_squeezed_phrases_are_in_no_innocent_text():
    run_on = "".join(c for text in INNOCENT for c in text.lower() if c.isalpha())
    assert not SQUEEZED.search(run_on)
