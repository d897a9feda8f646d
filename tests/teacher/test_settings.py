import pytest

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.teacher import money, settings
from opengrok_jax.teacher.budget import Caps
from tests.teacher.questions import prompts


def test_caps_in_whole_numbers():
    made = settings.caps(cap="0.5", cap_tokens=0, cap_requests=7)
    assert made == Caps(ticks=5 * 10**9, tokens=None, requests=7)
    with pytest.raises(ConfigError, match="cap_tokens"):
        settings.caps(cap="", cap_tokens=-1, cap_requests=0)


def test_a_cap_in_money_needs_prices():
    settings.check_cap(Caps(tokens=3), money.Prices())
    settings.check_cap(Caps(ticks=3), money.prices(input="1", output="1"))
    with pytest.raises(ConfigError, match="needs prices"):
        settings.check_cap(Caps(ticks=3), money.Prices())


def test_prompts_are_read_one_at_a_time(tmp_path):
    path = tmp_path / "p.jsonl"
    storage.write_jsonl(path, prompts(3))
    with open(path, "a") as file:
        file.write('{"id": 3}\n')
    read = settings.prompts_in(path)
    assert [next(read).id for _ in range(3)] == [p.id for p in prompts(3)]
    with pytest.raises(DataError, match="record 4: a Prompt lacks"):
        next(read)


@pytest.mark.parametrize("value", [0.5, 3, float("nan"), float("inf")])
def test_ranges(value):
    with pytest.raises(ConfigError, match=r"teacher\.x is .*; expected 1 to 2"):
        settings.in_range("x", value, 1, 2)
