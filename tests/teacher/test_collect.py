import json
from dataclasses import replace

import pytest

from opengrok_jax import records, storage
from opengrok_jax.errors import ConfigError, DataError, RunFolderError, TeacherError
from opengrok_jax.records import Likely, Logprobs, Response
from opengrok_jax.teacher import collect, money, settings
from opengrok_jax.teacher.simulator import Teacher, simulating
from opengrok_jax.teacher.simulator.acts import Act
from tests.teacher.questions import completion, number_of, prompts

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("TEACHER_KEY", KEY)


@pytest.fixture
def asked(tmp_path):
    """A file of eight prompts."""
    path = tmp_path / "prompts.jsonl"
    storage.write_jsonl(path, prompts(8))
    return path


def recordings(path, made, **changes):
    rows = [
        {
            "id": p.id,
            "messages": [records.to_json(m) for m in p.messages],
            "response": f"answer {n}",
            "finish_reason": "length" if n == 0 else "stop",
        }
        | changes
        for n, p in enumerate(made)
    ]
    storage.write_jsonl(path, rows)
    return str(path)


def from_api(teacher: Teacher, asked, out, **changes):
    given = {
        "prompts_file": asked,
        "out": out,
        "kind": "api",
        "base_url": teacher.base_url,
        "model": "tiny-teacher",
        "api_key_env": "TEACHER_KEY",
        "concurrency": 4,
        "timeout_sec": 10.0,
        "rights": "own-model",
    }
    return collect.run(**{**given, **changes})


def responses(out):
    return storage.read_records(out / "responses.jsonl", Response)


# ---- the whole way ----------------------------------------------------------------------------


def test_recorded_answers_become_responses_in_order(tmp_path, asked):
    book = recordings(tmp_path / "r.jsonl", reversed(prompts(8)))
    counts = collect.run(
        prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book
    )
    assert counts.pop("models_served").popitem()[1] == 8
    assert counts == {
        "planned": 8,
        "ok": 8,
        "failed": 0,
        "blocked": 0,
        "orphaned": 0,
        "requests": 8,
        "cost_ticks": 0,
        "finish_reasons": {"stop": 7, "length": 1},
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "with_logprobs": 0,
        "reasoned": 0,
    }
    assert (tmp_path / "out" / "logprobs.jsonl").read_bytes() == b""
    rows = responses(tmp_path / "out")
    assert [r.prompt_id for r in rows] == [p.id for p in prompts(8)]
    assert [r.text for r in rows] == [f"answer {n}" for n in range(7, -1, -1)]
    assert {r.rights for r in rows} == {settings.RIGHTS_RECORDED}
    assert {r.source for r in rows} == {"recorded"}
    assert rows[0].model_asked == rows[0].model_served


def test_labelled_answers(tmp_path, asked):
    storage.write_jsonl(asked, prompts(3, label="joy"))
    collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")
    rows = responses(tmp_path / "out")
    assert [(r.text, r.source, r.rights) for r in rows] == [
        ("joy", "labelled", settings.RIGHTS_LABELLED)
    ] * 3
    assert {r.received_at for r in rows} == {0.0}, "two runs give the same bytes"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_api_is_asked_and_told_of(tmp_path, asked, api):
    seen = []

    def script(question):
        seen.append(question)

    with simulating(script=script) as teacher:
        counts = from_api(teacher, asked, tmp_path / "out", api=api, temperature=0.2, max_tokens=99)
    assert {q.api for q in seen} == {api}
    assert {(q.body["temperature"], q.max_tokens) for q in seen} == {(0.2, 99)}
    assert {q.headers["authorization"] for q in seen} == {f"Bearer {KEY}"}
    row = responses(tmp_path / "out")[0]
    assert (row.model_asked, row.model_served) == ("tiny-teacher", "tiny-teacher")
    assert (row.endpoint, row.rights, row.source) == (teacher.base_url, "own-model", "api")
    assert (row.temperature, row.max_tokens, row.has_logprobs) == (0.2, 99, False)
    assert row.fingerprint == ("fp_simulated" if api == "chat" else "")
    assert (row.cost_ticks, row.received_at > 1.6e9) == (-1, True)
    assert counts["prompt_tokens"] == teacher.ledger.prompt_tokens > 0
    assert counts["completion_tokens"] == teacher.ledger.completion_tokens
    assert counts["models_served"] == {"tiny-teacher": 8}


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_log_probabilities_are_kept(tmp_path, asked, api):
    with simulating(text="so it goes") as teacher:
        counts = from_api(teacher, asked, tmp_path / "out", api=api, top_logprobs=2)
    assert counts["with_logprobs"] == 8
    rows = storage.read_records(tmp_path / "out" / "logprobs.jsonl", Logprobs)
    assert [row.prompt_id for row in rows] == [p.id for p in prompts(8)]
    assert b"".join(bytes.fromhex(t.bytes) for t in rows[0].tokens) == b"so it goes"
    assert {len(top) for top in rows[0].top} == {2}
    assert responses(tmp_path / "out")[0].has_logprobs


def test_a_model_that_reasons_aloud_answers_without_its_reasoning(tmp_path, asked, capfd):
    seen = []

    def script(question):
        seen.append(question.body)
        return Act(body=completion("<think>\nHm.\n</think>\n\nso it goes"))

    with simulating(script=script) as teacher:
        counts = from_api(
            teacher, asked, tmp_path / "out", extra_body='{"reasoning_effort": "low"}'
        )
    assert {body["reasoning_effort"] for body in seen} == {"low"}
    assert {row.text for row in responses(tmp_path / "out")} == {"so it goes"}
    assert counts["reasoned"] == 8
    assert "8 of 8 answers began with the model's reasoning" in capfd.readouterr().err


def test_the_lack_of_log_probabilities_is_told(tmp_path, asked, capfd):
    told = {"token": "hi", "logprob": -0.25, "bytes": [104, 105]}
    content = [told | {"top_logprobs": [told]}]

    def script(question):  # one prompt's answer comes without
        logprobs = None if number_of(question) == 3 else {"content": content}
        return Act(body=completion("hi", logprobs=logprobs))

    with simulating(script=script) as teacher:
        counts = from_api(teacher, asked, tmp_path / "out", top_logprobs=1)
    assert counts["with_logprobs"] == 7
    assert "1 of 8 answers came without usable log-probabilities" in capfd.readouterr().err
    rows = storage.read_records(tmp_path / "out" / "logprobs.jsonl", Logprobs)
    assert rows[0].tokens == (Likely(bytes="6869", logprob=-0.25),)
    assert rows[0].top == (rows[0].tokens,)


def test_the_same_command_again_asks_nothing_and_writes_the_same(tmp_path, asked):
    with simulating() as teacher:
        from_api(teacher, asked, tmp_path / "out")
        first = (tmp_path / "out" / "responses.jsonl").read_bytes()
        from_api(teacher, asked, tmp_path / "out", concurrency=1)
        assert (tmp_path / "out" / "responses.jsonl").read_bytes() == first
        assert sum(teacher.ledger.sent.values()) == 8


def test_one_at_a_time_asks_in_order(tmp_path, asked):
    order = []

    def script(question):
        order.append(number_of(question))

    with simulating(script=script) as teacher:
        from_api(teacher, asked, tmp_path / "out", concurrency=1)
    assert order == list(range(8))


def test_new_recordings_are_not_hidden_by_the_journal(tmp_path, asked):
    for response in ("old", "new"):
        book = recordings(tmp_path / "r.jsonl", prompts(8), response=response)
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book)
        assert {r.text for r in responses(tmp_path / "out")} == {response}


# ---- what fails -------------------------------------------------------------------------------


def test_failures_are_told_at_the_end_and_only_they_are_asked_again(tmp_path, asked):
    broken = True

    def script(question):
        if broken and number_of(question) == 3:
            body = b'{"error": "disk on fire"}'
            return Act(status=500, body=body, headers={"retry-after": "0"})
        return None

    with simulating(script=script) as teacher:
        with pytest.raises(TeacherError) as caught:
            from_api(teacher, asked, tmp_path / "out", max_attempts=2)
        message = str(caught.value)
        assert message.startswith("1 of 8 prompts got no answer; commonest reason: HTTP 500 (1)")
        assert prompts(8)[3].id in message
        assert "disk on fire" in message
        assert "All 7 answers so far are kept" in message
        assert not (tmp_path / "out" / "responses.jsonl").exists()
        broken = False
        assert from_api(teacher, asked, tmp_path / "out")["ok"] == 8
        assert sorted(teacher.ledger.sent.values()) == [1] * 7 + [3]


def test_a_prompt_without_recording_is_named(tmp_path, asked):
    book = recordings(tmp_path / "r.jsonl", prompts(7))
    with pytest.raises(TeacherError, match=rf"1 of 8 .*no recorded answer.*{prompts(8)[7].id}"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book)


def test_blocked_prompts_are_left_out_and_never_asked_again(tmp_path, asked):
    plan = {"script": [{"contains": "post 0?", "act": "blocked_403"}]}
    with simulating(plan=plan) as teacher:
        for _ in range(2):
            counts = from_api(teacher, asked, tmp_path / "out")
            assert (counts["ok"], counts["blocked"]) == (7, 1)
        assert set(teacher.ledger.sent.values()) == {1}
    assert len(responses(tmp_path / "out")) == 7


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("unauthorized_401", "check the key in TEACHER_KEY"),
        ("money_429_flat", "out of money: fill it up"),
        ("retired_410", "choose another teacher.model than tiny-teacher"),
        ("wrong_model", r"set teacher\.served_as=\('another-model',\)"),
    ],
)
def test_a_stop_says_why_and_what_to_do(tmp_path, asked, act, message):
    with simulating(plan={"script": [{"request": 1, "act": act}]}) as teacher:
        with pytest.raises(TeacherError, match=message):
            from_api(teacher, asked, tmp_path / "out")
        assert sum(teacher.ledger.sent.values()) == 1  # the first goes alone
        assert from_api(teacher, asked, tmp_path / "out")["ok"] == 8


def test_an_endpoint_that_ignores_the_wish_for_log_probabilities_is_told_of_at_once(
    tmp_path, asked
):
    with simulating(logprobs=False) as teacher:
        with pytest.raises(
            TeacherError, match=r"no log-probabilities.*top_logprobs=2.*set it to 0"
        ):
            from_api(teacher, asked, tmp_path / "out", top_logprobs=2)
        assert sum(teacher.ledger.sent.values()) == 1


def test_a_model_that_changes_on_the_way_stops_it_and_another_name_needs_no_new_request(
    tmp_path, asked
):
    plan = {"script": [{"request": 4, "act": "wrong_model", "model": "tiny-teacher-lite"}]}
    with simulating(plan=plan) as teacher:
        with pytest.raises(TeacherError, match="served by tiny-teacher-lite"):
            from_api(teacher, asked, tmp_path / "out", concurrency=1)
        counts = from_api(teacher, asked, tmp_path / "out", served_as=("tiny-teacher-lite",))
        assert counts["models_served"] == {"tiny-teacher": 7, "tiny-teacher-lite": 1}
        assert set(teacher.ledger.sent.values()) == {1}  # the kept reply was read again


def test_two_dates_of_one_model_do_not_mix(tmp_path, asked):
    def script(question):
        date = "2026-11-05" if number_of(question) < 3 else "2026-12-01"
        return Act(body=completion("hi", model=f"tiny-teacher-{date}"))

    with simulating(script=script) as teacher:
        with pytest.raises(TeacherError, match="asked for tiny-teacher-2026-11-05, served by"):
            from_api(teacher, asked, tmp_path / "out", concurrency=1)


def test_a_prompt_that_failed_is_asked_last(tmp_path, asked):
    order = []

    def script(question):
        order.append(number_of(question))
        return Act(status=413) if order[-1] == 0 else None

    with simulating(script=script) as teacher:
        storage.write_jsonl(asked, prompts(1))
        with pytest.raises(TeacherError):
            from_api(teacher, asked, tmp_path / "out", concurrency=1)
        storage.write_jsonl(asked, prompts(3))
        with pytest.raises(TeacherError):
            from_api(teacher, asked, tmp_path / "out", concurrency=1)
    assert order == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "oracle"}, "expected recorded, labelled, api"),
        ({"api": "soap"}, "expected chat, responses"),
        ({"base_url": ""}, "needs teacher.base_url"),
        ({"model": ""}, "needs teacher.base_url and teacher.model"),
        ({"rights": "  "}, "xAI's terms bar training on its output without a written order form"),
        ({"model": "grok-4.7"}, r"grok-4\.7 at .*'agreement: NAME OF IT'; .*Nothing was sent"),
        ({"max_blocked": 1.5}, "teacher.max_blocked"),
        ({"may_fail": -0.1}, "teacher.may_fail"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"temperature": -0.1}, "teacher.temperature"),
        ({"temperature": float("nan")}, "teacher.temperature"),
        ({"max_tokens": 0}, "teacher.max_tokens"),
        ({"concurrency": 0}, "teacher.concurrency"),
        ({"timeout_sec": float("inf")}, "teacher.timeout_sec"),
        ({"max_attempts": 0}, "teacher.max_attempts"),
        ({"requests_per_minute": -1}, "teacher.requests_per_minute"),
        ({"price_input": "1.5e3"}, "teacher.price_input"),
        ({"price_input": "2", "price_output": "6"}, r"teacher.cap is empty: 8 prompts.* USD"),
        ({"cap": "five", "price_input": "2"}, "teacher.cap is 'five'"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_sent(tmp_path, asked, changes, message):
    with simulating() as teacher:
        with pytest.raises(ConfigError, match=message):
            from_api(teacher, asked, tmp_path / "out", **changes)
        assert not teacher.ledger.sent
    assert not (tmp_path / "out").exists()


def test_wrong_prompts_are_told(tmp_path, asked):
    storage.write_jsonl(asked, [])
    with pytest.raises(DataError, match="holds no prompt"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")
    storage.write_jsonl(asked, prompts(1))
    with pytest.raises(DataError, match=f"prompt {prompts(1)[0].id} .*has no label"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")
    storage.write_jsonl(asked, [replace(p, label="x") for p in prompts(1) * 2])
    with pytest.raises(DataError, match="twice"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")


def test_a_second_process_is_kept_away(tmp_path, asked):
    book = recordings(tmp_path / "r.jsonl", prompts(8))
    with storage.locked(tmp_path / "out"), pytest.raises(RunFolderError, match="in use"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book)


# ---- money ------------------------------------------------------------------------------------

PRICED = {"price_input": "2", "price_output": "6"}


def test_the_cost_is_the_servers_to_the_tick(tmp_path, asked):
    prices = money.prices(input="2", output="6", cached="0.5")
    for xai in (True, False):
        out = tmp_path / str(xai)
        with simulating(prices=prices, xai=xai) as teacher:
            counts = from_api(teacher, asked, out, **PRICED, price_cached="0.5", cap="1")
            billed = teacher.ledger.billed
        assert counts["cost_ticks"] == sum(billed.values()) > 0
        assert {r.request_key: r.cost_ticks for r in responses(out)} == billed


def test_a_cap_stops_with_what_to_do_and_raising_it_goes_on(tmp_path, asked):
    prices = money.prices(input="2", output="6")
    with simulating(prices=prices) as teacher:
        given = {**PRICED, "max_tokens": 200}
        with pytest.raises(TeacherError, match=r"teacher\.cap is reached: .* of 0\.0020000000 USD"):
            from_api(teacher, asked, tmp_path / "out", **given, cap="0.002")
        assert 0 < teacher.ledger.billed_ticks <= money.ticks("0.002", "")
        before = sum(teacher.ledger.sent.values())
        assert from_api(teacher, asked, tmp_path / "out", **given, cap="1")["ok"] == 8
        assert sum(teacher.ledger.sent.values()) == 8
        assert 0 < before < 8


def test_a_cap_in_money_needs_prices_the_users_or_the_endpoints(tmp_path, asked):
    with simulating() as teacher:
        with pytest.raises(ConfigError, match="needs prices"):
            from_api(teacher, asked, tmp_path / "out", cap="5")
        assert not teacher.ledger.sent
    with simulating(xai=True, prices=money.prices(input="2", output="6")) as teacher:
        with pytest.raises(ConfigError, match=r"teacher\.cap is empty"):
            from_api(teacher, asked, tmp_path / "told")
        assert from_api(teacher, asked, tmp_path / "told", cap="5")["ok"] == 8


def test_when_all_is_answered_nobody_need_be_there(tmp_path, asked):
    with simulating() as teacher:
        from_api(teacher, asked, tmp_path / "out")
    (tmp_path / "out" / "responses.jsonl").unlink()
    assert from_api(teacher, asked, tmp_path / "out")["ok"] == 8
    assert len(responses(tmp_path / "out")) == 8


def test_an_endpoint_that_charges_is_not_asked_on_without_prices(tmp_path, asked):
    def script(question):
        told = json.loads(completion("hi"))
        told["usage"]["cost_in_usd_ticks"] = 5_000_000
        return Act(body=json.dumps(told).encode())

    with simulating(script=script) as teacher:
        with pytest.raises(TeacherError, match=r"one answer cost 0.0005000000 USD.*teacher.cap"):
            from_api(teacher, asked, tmp_path / "out")
        assert sum(teacher.ledger.sent.values()) == 1


# ---- kill -9 ----------------------------------------------------------------------------------


def test_the_key_is_in_no_file_even_if_the_endpoint_echoes_it(tmp_path, asked, capfd):
    def script(question):
        if question.attempt == 1:
            headers = {"retry-after": "0", "x-request-id": KEY}
            return Act(status=500, body=KEY.encode(), headers=headers)
        return Act(body=completion(f"your key is {KEY}"))

    with simulating(script=script) as teacher:
        from_api(teacher, asked, tmp_path / "out")
    assert responses(tmp_path / "out")[0].text == "your key is [api key]"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in "".join(capfd.readouterr())
