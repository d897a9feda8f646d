import pytest

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, TeacherError
from opengrok_jax.records import Response
from opengrok_jax.teacher import collect, money
from opengrok_jax.teacher.simulator import simulating
from opengrok_jax.teacher.simulator.acts import Act
from tests.teacher.questions import completion, number_of, prompts


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def asked(folder, teacher, **changes):
    storage.write_jsonl(folder / "prompts.jsonl", prompts(9))
    given = {
        "prompts_file": folder / "prompts.jsonl",
        "out": folder / "out",
        "kind": "api",
        "base_url": teacher.base_url,
        "model": "tiny-teacher",
        "rights": "own-model",
        "max_tokens": 40,
        "retry_max_tokens": 400,
    }
    return collect.run(**{**given, **changes})


def cuts(question):
    """Every third answer is cut at 40 tokens, the eighth prompt's at any length."""
    cut = number_of(question) % 3 == 1 and (question.max_tokens == 40 or number_of(question) == 7)
    text = f"{number_of(question)} at {question.max_tokens}"
    return Act(body=completion(text, finish="length" if cut else "stop"))


def test_what_was_cut_is_asked_once_more_with_the_larger_limit(tmp_path):
    with simulating(script=cuts) as teacher:
        counts = asked(tmp_path, teacher)
        rows = storage.read_records(tmp_path / "out" / "responses.jsonl", Response)
        assert sum(teacher.ledger.sent.values()) == 9 + 3
        asked(tmp_path, teacher)  # nothing is asked again
        assert sum(teacher.ledger.sent.values()) == 9 + 3
    assert [r.prompt_id for r in rows] == [p.id for p in prompts(9)]
    assert [r.text for r in rows] == [f"{n} at {400 if n % 3 == 1 else 40}" for n in range(9)]
    assert [r.max_tokens for r in rows] == [400 if n % 3 == 1 else 40 for n in range(9)]
    assert counts["finish_reasons"] == {"stop": 8, "length": 1}
    assert (counts["planned"], counts["ok"], counts["requests"]) == (9, 9, 12)


def test_both_are_paid_for_and_the_cap_holds_for_both(tmp_path):
    prices = money.prices(input="2", output="6")
    priced = {"price_input": "2", "price_output": "6", "concurrency": 1}
    with simulating(prices=prices, text="so it goes " * 40) as teacher:  # 111 tokens
        with pytest.raises(TeacherError, match=r"teacher\.cap is reached"):
            asked(tmp_path, teacher, cap="0.006", **priced)
        assert not (tmp_path / "out" / "responses.jsonl").exists()
        assert sum(teacher.ledger.sent.values()) > 9
        counts = asked(tmp_path, teacher, cap="1", **priced)
        assert sum(teacher.ledger.sent.values()) == 18
        assert counts["cost_ticks"] == teacher.ledger.billed_ticks
    assert counts["finish_reasons"] == {"stop": 9}


def test_a_larger_limit_that_is_none_is_refused(tmp_path):
    with (
        simulating() as teacher,
        pytest.raises(ConfigError, match=r"more than teacher\.max_tokens"),
    ):
        asked(tmp_path, teacher, retry_max_tokens=40)
