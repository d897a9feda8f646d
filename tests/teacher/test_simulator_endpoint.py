import json

import pytest

from opengrok_jax.teacher import money
from opengrok_jax.teacher.simulator.endpoint import Settings, Teacher
from tests.teacher.questions import requests

BODIES = [r.body for r in requests(40)]


def acts(teacher, bodies, headers=None):
    return [teacher.act("chat", body, headers or {})[1] for body in bodies]


def test_the_same_seed_gives_the_same_faults_and_answers():
    plan = {"share": {"error_500": 0.3}}

    def statuses(seed):
        made = acts(Teacher(Settings(plan=plan, seed=seed)), BODIES)
        return [(a.status, a.body) for a in made]

    assert statuses(1) == statuses(1)
    assert statuses(1) != statuses(2)
    assert 0 < sum(status == 500 for status, _ in statuses(1)) < 40


def test_it_wants_its_key_its_model_and_no_refused_parameter():
    teacher = Teacher(Settings(key="k1", refuses=("temperature",)))
    (unsigned,) = acts(teacher, BODIES[:1])
    (refused,) = acts(teacher, BODIES[:1], {"authorization": "Bearer k1"})
    assert (unsigned.status, refused.status) == (401, 400)
    assert b"temperature" in refused.body
    (unknown,) = acts(Teacher(Settings(models=("m",))), BODIES[:1])
    assert (unknown.status, b"`tiny-teacher` does not exist" in unknown.body) == (404, True)
    assert teacher.get("/v1/models", {})[0] == 401


def test_limits_on_requests_and_tokens():
    fast = acts(Teacher(Settings(requests_per_minute=60)), BODIES[:5])
    assert [a.status for a in fast] == [200, 429, 429, 429, 429]
    assert 0 < float(fast[1].headers["retry-after"]) <= 1.1
    silent = acts(Teacher(Settings(requests_per_minute=60, retry_after=False)), BODIES[:2])
    assert "retry-after" not in silent[1].headers
    many = acts(Teacher(Settings(tokens_per_minute=6000)), BODIES[:5])
    assert [a.status for a in many].count(429) >= 3


def test_credit_runs_out():
    prices = money.prices(input="2", output="6")
    teacher = Teacher(Settings(prices=prices, credit_ticks=1))
    assert [a.status for a in acts(teacher, BODIES[:3])] == [200, 429, 429]
    assert teacher.ledger.acts["no_credit_429"] == 2


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"model": "tiny-teacher", "messages": 3}'])
def test_what_is_no_question_is_a_400(raw):
    assert acts(Teacher(Settings()), [raw])[0].status == 400


def test_what_it_tells_for_free():
    plain, xai = Teacher(Settings()), Teacher(Settings(xai=True))
    assert plain.get("/v1/models", {})[1]["data"][0]["id"] == "tiny-teacher"
    assert plain.get("/v1/language-models", {})[0] == 404
    assert xai.get("/v1/language-models", {})[1]["models"][0]["id"] == "tiny-teacher"
    assert xai.get("/v1/api-key", {})[1]["api_key_blocked"] is False
    assert json.dumps(plain.get("/simulator/ledger", {})[1])
