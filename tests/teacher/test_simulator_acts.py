import json

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.outcome import Kind, Reply
from opengrok_jax.teacher.simulator.acts import ACTS, checked, rule_for
from opengrok_jax.teacher.simulator.endpoint import Settings, Teacher
from opengrok_jax.teacher.simulator.wire import Question
from tests.teacher.questions import requests

MEANT = {
    "answer": Kind.OK,
    "rate_429": Kind.RATE_LIMITED,
    "rate_429_flat": Kind.RATE_LIMITED,
    "money_429": Kind.OUT_OF_MONEY,
    "money_429_flat": Kind.OUT_OF_MONEY,
    "money_402": Kind.OUT_OF_MONEY,
    "error_500": Kind.TRANSIENT,
    "html_502": Kind.TRANSIENT,
    "overloaded_503": Kind.OVERLOADED,
    "overloaded_529": Kind.OVERLOADED,
    "error_in_200": Kind.TRANSIENT,
    "rate_in_200": Kind.RATE_LIMITED,
    "not_json": Kind.TRANSIENT,
    "html_200": Kind.TRANSIENT,
    "empty_200": Kind.TRANSIENT,
    "blocked_403": Kind.BLOCKED,
    "blocked_400": Kind.BLOCKED,
    "content_filter": Kind.BLOCKED,
    "too_long_400": Kind.UNANSWERABLE,
    "unauthorized_401": Kind.FATAL,
    "key_400": Kind.FATAL,
    "forbidden_403": Kind.FATAL,
    "argument_400": Kind.FATAL,
    "unknown_404": Kind.FATAL,
    "retired_410": Kind.RETIRED,
    "retired_404": Kind.RETIRED,
    "truncated": Kind.OK,
    "reasoning": Kind.OK,
    "empty": Kind.OK,
    "no_logprobs": Kind.OK,
    "no_usage": Kind.OK,
    "echo_key": Kind.TRANSIENT,
}
# What only shows on a socket, or only beside what was asked: tests of client and collect.
ELSEWHERE = {"wrong_model", "gzip", "chunked", "close", "slow", "drip", "half_body", "half_head"}
ELSEWHERE |= {"reset_after", "huge", "reset", "stall", "garbage"}


def question(number=1, attempt=1):
    body = json.loads(requests(1)[0].body)
    return Question(key="k", number=number, attempt=attempt, api="chat", body=body)


def test_every_act_is_tested_somewhere():
    assert set(MEANT) | ELSEWHERE == set(ACTS)


@pytest.mark.parametrize(("name", "kind"), MEANT.items())
def test_an_act_means_what_it_says(name, kind):
    act = ACTS[name](Teacher(Settings()).context(question()))
    read = wire.read(Reply(status=act.status, body=act.body))
    assert read.kind is kind
    assert (act.bill is not None) == (kind is Kind.OK or name == "content_filter")


def test_what_an_answer_lacks():
    context = Teacher(Settings()).context(question())
    assert "usage" not in json.loads(ACTS["no_usage"](context).body)
    cut = wire.read(Reply(status=200, body=ACTS["truncated"](context).body)).answer
    assert cut is not None
    assert cut.finish_reason == "length"


def test_the_first_rule_that_fits_decides_and_times_counts_down():
    plan = checked(
        {
            "script": [
                {"request": 2, "act": "stall"},
                {"contains": "post 0", "attempt": 1, "act": "error_500", "times": 2},
            ]
        }
    )
    acts = [rule_for(plan, question(n), 0.5)["act"] for n in (1, 2, 3, 4)]
    assert acts == ["error_500", "stall", "error_500", "answer"]
    assert rule_for(checked({}), question(), 0.0)["act"] == "answer"


def test_shares_are_probabilities():
    plan = checked({"share": {"error_500": 0.25, "stall": 0.25}})
    acts = [rule_for(plan, question(), n / 100)["act"] for n in range(100)]
    assert [acts.count(a) for a in ("error_500", "stall", "answer")] == [25, 25, 50]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"faults": []}, '"script", a list'),
        ({"script": {}}, '"script", a list'),
        ({"script": [{"request": 1}]}, 'a rule has "act"'),
        ({"script": [{"act": "stall", "when": 1}]}, 'a rule has "act"'),
        ({"script": [{"act": "explode"}]}, "no act 'explode'; there are answer, rate_429"),
        ({"share": {"explode": 0.1}}, "no act 'explode'"),
        ({"share": {"stall": 1.5}}, "probabilities"),
        ({"share": {"stall": 0.6, "reset": 0.6}}, "add up to 1.2"),
        ({"share": ["stall"]}, "names acts"),
    ],
)
def test_a_plan_that_is_not_understood_is_refused(plan, message):
    with pytest.raises(ConfigError, match=message):
        checked(plan)
