import hashlib
import json
from dataclasses import replace

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.outcome import Kind, Reply
from tests.teacher.questions import ASKING, completion, outcome, prompts


def test_the_key_is_the_hash_of_the_bytes_sent_and_every_parameter_changes_it():
    first, second = prompts(2)
    made = wire.request(first, ASKING)
    assert made.key == hashlib.sha256(made.body).hexdigest()
    assert json.loads(made.body)["messages"][0]["content"] == "What is the mood of post 0?"
    others = [
        wire.request(second, ASKING),
        wire.request(first, replace(ASKING, api="responses")),
        wire.request(first, replace(ASKING, model="n")),
        wire.request(first, replace(ASKING, temperature=0.0)),
        wire.request(first, replace(ASKING, max_tokens=65)),
        wire.request(first, replace(ASKING, top_logprobs=2)),
        wire.request(first, replace(ASKING, extra_body='{"seed":1}')),
    ]
    assert len({made.key, *(other.key for other in others)}) == 8
    assert made == wire.request(first, replace(ASKING))


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_fields_of_the_endpoint_go_into_the_body_and_null_takes_one_out(api):
    asking = replace(ASKING, api=api)
    plain = json.loads(wire.request(prompts(1)[0], asking).body)
    fields = '{"temperature": null, "chat_template_kwargs": {"enable_thinking": false}}'
    made = json.loads(wire.request(prompts(1)[0], replace(asking, extra_body=fields)).body)
    plain.pop("temperature")
    assert made == {**plain, "chat_template_kwargs": {"enable_thinking": False}}


def test_fields_of_the_endpoint_are_checked():
    assert wire.extra("") == "{}"
    assert wire.extra('{"b": 1,\n "a": null}') == '{"a":null,"b":1}'
    odd = ('{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a":' * 9999)
    for told in ("{", "[1]", "3", "enable_thinking=false", *odd):
        with pytest.raises(ConfigError, match=r"teacher\.extra_body .* expected a JSON object"):
            wire.extra(told)
    with pytest.raises(ConfigError, match="may not hold 'max_completion_tokens'"):
        wire.extra('{"max_completion_tokens": 9, "seed": 3}')


def test_each_api_has_its_path():
    assert wire.path(ASKING) == "/chat/completions"
    assert wire.path(replace(ASKING, api="responses")) == "/responses"


def test_what_broke_on_the_way_is_transient_and_groups_by_its_first_words():
    read = wire.read(Reply(status=0, error="timed out: no whole reply within 3 s"))
    assert (read.kind, read.reason) == (Kind.TRANSIENT, "timed out")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!DOCTYPE html><html>", "a web page instead of an answer"),
        (b"hello", "a reply that is not JSON"),
        ({"choices": []}, "a reply without an answer"),
    ],
)
def test_what_came_instead_of_an_answer_is_told(body, reason):
    assert outcome(200, body).reason == reason


@pytest.mark.parametrize(
    ("served", "aliases", "kind"),
    [
        ("tiny-teacher", (), Kind.OK),
        ("", (), Kind.OK),
        ("tiny-teacher-0709", (), Kind.OK),
        ("tiny-teacher-2026-11-05", (), Kind.OK),
        ("tiny-teacher-mini", (), Kind.WRONG_MODEL),
        ("tiny-teacher-2", (), Kind.WRONG_MODEL),
        ("another", (), Kind.WRONG_MODEL),
        ("another", ("another",), Kind.OK),
    ],
)
def test_another_model_than_asked_for_is_told(served, aliases, kind):
    read = wire.held_to(outcome(200, completion("a", model=served)), ASKING, aliases)
    assert read.kind is kind
    assert read.answer is not None  # it was paid for
    if kind is not Kind.OK:
        assert read.detail == f"asked for tiny-teacher, served by {served}"


def test_faults_are_not_held_to_a_model():
    assert wire.held_to(outcome(500, b""), ASKING, ()).kind is Kind.TRANSIENT
