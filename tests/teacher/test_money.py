from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher import money, wire
from opengrok_jax.teacher.money import Prices, need, settlement, ticks, usd
from opengrok_jax.teacher.outcome import Reply, Usage
from tests.teacher.questions import completion, requests

TWO_SIX = money.prices(input="2", output="6", request="0.001", blocked="0.05")


@given(st.decimals(0, 10**6, places=10))
def test_ticks_are_exact(amount):
    assert ticks(f"{amount:f}", "x") == int(amount * 10**10)


@pytest.mark.parametrize("wrong", ["-1", "1e3", "two", "1,5", ".5", "1.", "0.00000000001", " 1"])
def test_what_is_no_amount_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"teacher\.cap is .* decimal"):
        ticks(wrong, "teacher.cap")


def test_usd_is_for_readers():
    assert usd(10**10 + 5 * 10**5) == "1.0001 USD"
    assert usd(0, 2) == "0.00 USD"


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**6))
def test_a_cost_is_rounded_up_to_a_tick_once(prompt, output, cached):
    cached = min(cached, prompt)
    prices = money.prices(input="0.0000123", output="6", cached="0.5", request="0.001")
    exact = (
        Decimal(prompt - cached) * Decimal("0.0000123")
        + Decimal(cached) * Decimal("0.5")
        + Decimal(output) * 6
    ) / 10**6 + Decimal("0.001")
    assert 0 <= prices.of(prompt, output, cached) - exact * 10**10 < 1


def test_the_cached_price_is_the_input_price_where_none_is_given():
    assert TWO_SIX.cached == TWO_SIX.input
    assert not money.prices(input="", output="")


def test_what_the_endpoint_tells_wins():
    usage = Usage(prompt_tokens=10, completion_tokens=1, billed_tokens=3, cost_ticks=77)
    assert TWO_SIX.paid(usage) == 77
    assert TWO_SIX.paid(Usage(prompt_tokens=10, billed_tokens=3)) == TWO_SIX.of(10, 3)
    assert Prices().paid(Usage(prompt_tokens=10, billed_tokens=3)) == -1
    assert money.prices(input="1", output="1").paid(Usage()) == -1


def test_a_reservation_bounds_what_an_answer_can_cost():
    request = requests(1)[0]
    bound = need(len(request.body), 1, 64, TWO_SIX)
    words = len(request.body)  # as many tokens as bytes: no tokenizer makes more
    assert bound.ticks >= TWO_SIX.of(words, 64)
    assert bound.tokens >= words + 64
    blocked = money.prices(input="", output="", blocked="0.05")
    assert need(10, 1, 10, blocked).ticks == ticks("0.05", "")


def settled(reply, prices=TWO_SIX):
    return settlement(wire.read(reply), reply, prices)


def test_what_each_end_costs():
    assert settled(Reply(status=200, body=completion("a"))) == (TWO_SIX.of(7, 5), 12)
    # refused: nothing; for its content: the fee
    assert settled(Reply(status=429)) == (0, 0)
    assert settled(Reply(status=500)) == (0, 0)
    assert settled(Reply(status=200, body=b'{"error": {"code": 503}}')) == (0, 0)
    assert settled(Reply(status=451)) == (TWO_SIX.blocked, 0)
    filtered = Reply(status=200, body=completion("", finish="content_filter"))
    assert settled(filtered) == (max(TWO_SIX.blocked, TWO_SIX.of(7, 5)), 12)
    # never sent: nothing; sent and not heard of again: it may have been billed
    assert settled(Reply(status=0, error="cannot connect: refused")) == (0, 0)
    assert settled(Reply(status=0, error="timed out: no whole reply within 3 s")) == (None, None)
    assert settled(Reply(status=200, body=b"half of an ans")) == (None, None)
    # a local server has no prices and may tell no usage
    assert settled(Reply(status=200, body=completion("a")), Prices()) == (None, 12)
