from pathlib import Path

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.systems import check_predictors, make_systems


def made(tmp_path: Path, **settings):
    return make_systems(settings, default=("likelihood",), batch_size=2, paid=tmp_path)


def test_systems_of_each_kind(tmp_path: Path) -> None:
    systems = made(
        tmp_path,
        seeds={"kind": "student", "folders": ["a", "b", "c"]},
        phi={"kind": "transformers", "model": "x/y", "predictors": ["generation"]},
        grok={"kind": "api", "teacher": {"base_url": "http://h/v1", "model": "m"}},
    )
    assert [(s.name, s.predictors, len(s.runs)) for s in systems] == [
        ("seeds", ("likelihood",), 3),
        ("phi", ("generation",), 1),
        ("grok", ("generation",), 1),
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "oracle"}, "kind is 'oracle'; expected one of student, transformers, api"),
        ({}, "kind is None"),
        ({"kind": "student"}, "folders is empty"),
        ({"kind": "student", "folders": ["a"], "seeds": 3}, "no setting seeds"),
        ({"kind": "transformers"}, "model is missing"),
        (
            {"kind": "transformers", "model": "x", "predictors": ["magic"]},
            "likelihood, likelihood-per",
        ),
        ({"kind": "api", "predictors": ["likelihood"]}, "give one or more of generation"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(tmp_path, other=settings)


def test_the_student_of_the_run_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose another name"):
        made(tmp_path, student={"kind": "student", "folders": ["a"]})


def test_check_predictors() -> None:
    check_predictors("x", ("a",), ("a", "b"))
    for wrong in ((), ("c",), ("a", "a")):
        with pytest.raises(ConfigError, match="x is"):
            check_predictors("x", wrong, ("a", "b"))
