from opengrok_jax.teacher import money
from opengrok_jax.teacher.estimate import estimate
from opengrok_jax.teacher.money import Prices
from tests.teacher.questions import ASKING, prompts, requests

PRICES = money.prices(input="2", output="6")


def test_low_mid_high_are_in_order_and_high_is_what_would_be_reserved():
    made = estimate(prompts(50), ASKING, PRICES)
    assert made.prompts == 50
    for low, mid, high in (made.input_tokens, made.output_tokens, made.ticks):
        assert 0 < low < mid < high
    reserved = [money.need(len(r.body), 1, 64, PRICES) for r in requests(50)]
    assert made.ticks[2] == sum(n.ticks for n in reserved)
    assert made.input_tokens[2] + made.output_tokens[2] == sum(n.tokens for n in reserved)


def test_the_line():
    made = estimate(prompts(50), ASKING, PRICES)
    assert made.line(PRICES).startswith("50 prompts, low/mid/high: ")
    assert made.line(PRICES).endswith(" USD")
    assert "no prices are set" in estimate(prompts(1), ASKING, Prices()).line(Prices())


def test_nothing_is_nothing():
    assert estimate([], ASKING, PRICES).ticks == (0, 0, 0)
