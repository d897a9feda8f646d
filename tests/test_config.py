import pytest

from opengrok_jax import config
from opengrok_jax.errors import ConfigError

SOURCE = """
from ml_collections import ConfigDict

def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there is 'smoke'")
    return ConfigDict({"name": "a", "training": {"rate": 0.1, "steps": 5, "none": None,
                       "tasks": ("x",), "flag": True, "deep": {"er": variant}}})
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.py"
    path.write_text(SOURCE)
    return path


def test_variant_and_overrides(file):
    loaded = config.load(
        f"{file}:smoke",
        [
            "--config.training.rate=1",
            "--config.training.flag=false",
            "--config.training.tasks=['y','z']",
            "--config.training.none=7",
            "--config.name=5",
        ],
    )
    plain = loaded.to_dict()
    assert plain == {
        "name": "5",
        "training": {
            "rate": 1.0,
            "steps": 5,
            "none": 7,
            "tasks": ("y", "z"),
            "flag": False,
            "deep": {"er": "smoke"},
        },
    }
    assert type(plain["training"]["rate"]) is float


@pytest.mark.parametrize(
    ("spec", "override", "said"),
    [
        ("", "--config.training.rat=1", "did you mean training.rate"),
        ("", "--config.trainin.rate=1", "no section 'trainin'; did you mean training.rate"),
        ("", "--config.training.steps=1.5", "wants a int; got '1.5'"),
        ("", "--config.training.steps=many", "wants a int"),
        ("", "--config.training=1", "is a section"),
        ("", "--confg.training.rate=1", "not understood"),
        ("", "--config.training.rate", "not understood"),
        (":other", "", "unknown variant 'other'"),
    ],
)
def test_what_is_wrong_is_said(file, spec, override, said):
    with pytest.raises(ConfigError, match=said):
        config.load(f"{file}{spec}", [override] if override else [])


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such config file"):
        config.load(str(tmp_path / "none.py"))
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(:")
    with pytest.raises(ConfigError, match="cannot be run: SyntaxError"):
        config.load(str(broken))
    broken.write_text("x = 1")
    with pytest.raises(ConfigError, match="defines no get_config"):
        config.load(str(broken))


def test_a_section_is_held_against_the_signature():
    def run(*, out, source, rate: float, steps: int = 3):
        return {}

    given = {"out", "source"}
    config.check("s", {"rate": 1.0, "steps": 2}, run, given)
    with pytest.raises(ConfigError, match=r"s\.step: there is no such setting; did you mean s\.st"):
        config.check("s", {"rate": 1.0, "step": 2}, run, given)
    with pytest.raises(ConfigError, match=r"lacks s\.rate"):
        config.check("s", {}, run, given)
    with pytest.raises(ConfigError, match=r"s\.out: there is no such setting"):
        config.check("s", {"rate": 1.0, "out": "x"}, run, given)
