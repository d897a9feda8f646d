import pytest

from opengrok_jax.curation.looks import FINAL, PROSE, Look, Reason, Settings, judged
from opengrok_jax.errors import ConfigError
from opengrok_jax.prompts.templates import INTENTS


def test_the_drawing():
    # doubt 2, line 3     score 1.9  2.0 | 2.1  3.0 | 3.1
    #                           fine     | doubt    | certain
    looks = [judged(s, 2.0, 3.0, Reason.ECHO, "so") for s in (1.9, 2.0, 2.1, 3.0, 3.1)]
    assert looks[:2] == [Look(1.9), Look(2.0)]
    assert [(x.reason, x.certain) for x in looks[2:]] == [
        (Reason.ECHO, False),
        (Reason.ECHO, False),
        (Reason.ECHO, True),
    ]


def test_what_is_final_is_no_matter_of_opinion():
    assert Reason.HARMFUL not in FINAL
    assert Reason.EMPTY in FINAL


def test_prose_intents_are_intents():
    assert set(INTENTS) > PROSE


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_words": 0},
        {"min_words": 9, "max_words": 8},
        {"echo_overlap": 1.1},
        {"echo_overlap": -0.1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        Settings(**wrong)
