import json
from dataclasses import replace

import pytest

from opengrok_jax.teacher import money, wire
from opengrok_jax.teacher.outcome import Reply
from opengrok_jax.teacher.simulator import wire as simulator_wire
from opengrok_jax.teacher.simulator.wire import Question
from tests.teacher.questions import ASKING, prompts

PRICES = money.prices(input="2", output="6")


def question(api="chat", attempt=1, **changes):
    body = json.loads(wire.request(prompts(1)[0], replace(ASKING, api=api, **changes)).body)
    return Question(key="k" * 64, number=1, attempt=attempt, api=api, body=body)


def read(asked, made, **told):
    given = {"tells_cost": True, "tells_logprobs": True, "seed": 0, **told}
    outcome = wire.read(Reply(status=200, body=simulator_wire.encoded(asked, made, **given)))
    assert outcome.answer is not None
    return outcome.answer


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_our_own_reader_reads_back_what_it_writes(api):
    asked = question(api, top_logprobs=3)
    made = simulator_wire.made(asked, prices=PRICES, seed=0, text="so it goes ✓")
    answer = read(asked, made)
    assert (answer.text, answer.finish_reason) == ("so it goes ✓", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.cost_ticks) == (
        made.bill.prompt_tokens,
        made.bill.ticks,
    )
    assert made.bill.ticks == PRICES.of(made.bill.prompt_tokens, made.bill.completion_tokens)
    assert b"".join(bytes.fromhex(t.bytes) for t in answer.tokens).decode() == "so it goes ✓"
    assert {len(top) for top in answer.top} == {3}
    assert not read(asked, made, tells_logprobs=False).logprobs_told
    assert read(asked, made, tells_cost=False).usage.cost_ticks == -1


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_long_answer_is_cut_at_max_tokens(api):
    asked = question(api, max_tokens=3)
    made = simulator_wire.made(asked, prices=PRICES, seed=0, text="word " * 50)
    assert made.bill.completion_tokens == 3
    assert read(asked, made).finish_reason == "length"


def test_no_log_probabilities_unless_asked_for():
    made = simulator_wire.made(question(), prices=PRICES, seed=0, text="a")
    assert not read(question(), made).logprobs_told


def test_a_second_time_some_of_the_prompt_is_cached():
    first, second = (
        simulator_wire.made(question(attempt=n), prices=PRICES, seed=0, text="a").bill
        for n in (1, 2)
    )
    assert (first.cached_tokens, second.cached_tokens > 0) == (0, True)


def test_lists_of_models():
    assert simulator_wire.models(["a", "b"])["data"][1]["id"] == "b"
    (one,) = simulator_wire.language_models(["a"], PRICES)["models"]
    assert (one["prompt_text_token_price"], one["completion_text_token_price"]) == (20000, 60000)
