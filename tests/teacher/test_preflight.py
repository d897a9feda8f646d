import asyncio
from dataclasses import replace
from typing import Any

import pytest

from opengrok_jax.errors import TeacherError
from opengrok_jax.teacher import money, preflight, settings
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.outcome import Answer, Kind, Outcome, Usage
from opengrok_jax.teacher.preflight import Found
from opengrok_jax.teacher.secret import Secret
from opengrok_jax.teacher.simulator import simulating
from opengrok_jax.teacher.simulator.endpoint import Teacher as Simulated
from tests.teacher.questions import ASKING

PRICES = money.prices(input="2", output="6")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(preflight, "_WAITS_SEC", (0.01,))


def probe(url, key=""):
    teacher = settings.Teacher(
        source="api",
        endpoint=url,
        asking=ASKING,
        rights="x",
        key=Secret(key),
        key_env="KEY" if key else "",
        timeout_sec=5.0,
        book=None,
    )
    return asyncio.run(preflight.probe(teacher))


def test_a_plain_endpoint_tells_its_models():
    with simulating(models=("a", "b")) as teacher:
        assert probe(teacher.base_url) == Found(models=("a", "b"))
        assert not teacher.ledger.sent  # nothing was asked


def test_xai_tells_prices_too():
    with simulating(xai=True, prices=PRICES) as teacher:
        assert probe(teacher.base_url).prices == PRICES


def test_nobody_there():
    with simulating() as teacher:
        url = teacher.base_url
    with pytest.raises(TeacherError, match=r"cannot be reached .*Is the server running"):
        probe(url)


def test_a_missing_v1_is_found_out():
    with simulating() as teacher:
        with pytest.raises(TeacherError, match=rf"set teacher.base_url={teacher.base_url}"):
            probe(teacher.base_url.removesuffix("/v1"))


def test_keys():
    with simulating(key="right-key-1") as teacher:
        with pytest.raises(TeacherError, match=r"wants one and none is sent.*api_key_env"):
            probe(teacher.base_url)
        with pytest.raises(TeacherError, match="check the key in KEY"):
            probe(teacher.base_url, "wrong-key-1")
        assert probe(teacher.base_url, "right-key-1").models


@pytest.mark.parametrize(
    ("path", "status", "told", "message"),
    [
        ("/v1/models", 200, None, "web page"),
        ("/v1/api-key", 200, {"team_blocked": True}, "team_blocked"),
    ],
)
def test_what_the_probes_can_find(monkeypatch, path, status, told, message):
    get = Simulated.get

    def changed(self, asked, headers):
        return (status, told) if asked == path else get(self, asked, headers)

    monkeypatch.setattr(Simulated, "get", changed)
    if told is None:
        monkeypatch.setattr("json.dumps", lambda value: "<html>Sign in</html>")
    with simulating(xai=True, prices=PRICES) as teacher:
        with pytest.raises(TeacherError, match=message):
            probe(teacher.base_url, "some-key-123")


def test_an_endpoint_that_lists_nothing_is_asked_all_the_same(monkeypatch):
    monkeypatch.setattr(Simulated, "get", lambda self, path, headers: (404, {"error": "no"}))
    with simulating() as teacher:
        assert probe(teacher.base_url) == Found()


def test_prices_must_agree():
    assert preflight.agreed(Prices(), Found(), "h") == Prices()
    assert preflight.agreed(PRICES, Found(), "h") == PRICES
    assert preflight.agreed(Prices(), Found(prices=PRICES), "h") == PRICES
    assert preflight.agreed(PRICES, Found(prices=PRICES), "h") == PRICES
    with pytest.raises(TeacherError, match=r"h asks 2\.0000 USD in .* the config says 1\.0000 USD"):
        preflight.agreed(money.prices(input="1", output="6"), Found(prices=PRICES), "h")


def test_a_model_that_is_not_listed():
    hint = preflight.models_hint(ASKING, Found(models=("tiny-teachr", "big")))
    assert hint == (
        "it does not list 'tiny-teacher', but tiny-teachr, big: set teacher.model "
        "(did you mean tiny-teachr?)"
    )
    assert preflight.models_hint(ASKING, Found(models=("tiny-teacher",))) == ""
    assert preflight.models_hint(ASKING, Found()) == ""


def test_the_first_row():
    def first(asking=ASKING, prices=PRICES, **answer):
        made = Answer(**{"text": "a", "finish_reason": "stop", "model": "m", **answer})
        return preflight.first_row(Outcome(kind=Kind.OK, answer=made), asking, prices)

    assert first() == ""
    assert "no log-probabilities" in first(replace(ASKING, top_logprobs=2))
    assert first(replace(ASKING, top_logprobs=2), logprobs_told=True) == ""
    thought: dict[str, Any] = {
        "text": " ",
        "finish_reason": "length",
        "usage": Usage(completion_tokens=9),
    }
    assert "9 tokens and no text" in first(**thought)
    spoken: dict[str, Any] = {**thought, "text": "a"}
    assert first(**spoken) == first(text="", finish_reason="stop") == ""
    assert "call of a tool" in first(text="", finish_reason="tool_calls")
    dear = Usage(cost_ticks=20_000_000)
    assert first(usage=dear) == ""
    assert "0.0020000000 USD" in first(prices=Prices(), usage=dear)
