import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.teacher import wire
from opengrok_jax.teacher.wire import Kind, Reply
from tests.teacher.fault_server import completion, prompts


def outcome(status, body, **headers):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return wire.read(Reply(status=status, body=raw, headers=headers, received_at=1_000_000_000.0))


def answer_in(body) -> wire.Answer:
    answer = outcome(200, body).answer
    assert answer is not None
    return answer


def test_the_body_is_what_the_endpoint_documents():
    prompt = prompts(1)[0]
    assert wire.body(prompt, model="m", temperature=0.0, max_tokens=9) == {
        "model": "m",
        "messages": [{"role": "user", "content": "What is the mood of post 0?"}],
        "temperature": 0.0,
        "max_tokens": 9,
    }


def test_the_key_is_the_hash_of_the_bytes_sent_and_every_parameter_changes_it():
    first, second = prompts(2)
    base = {"model": "m", "temperature": 0.7, "max_tokens": 64}
    made = wire.request(first, **base)
    assert made.key == hashlib.sha256(made.body).hexdigest()
    assert json.loads(made.body)["messages"][0]["content"] == "What is the mood of post 0?"
    others = [
        wire.request(second, **base),
        wire.request(first, **{**base, "model": "n"}),
        wire.request(first, **{**base, "temperature": 0.8}),
        wire.request(first, **{**base, "max_tokens": 65}),
    ]
    assert len({made.key, *(o.key for o in others)}) == 5


def test_log_probabilities_are_asked_for_only_when_wanted():
    base = {"model": "m", "temperature": 0.7, "max_tokens": 64}
    plain, asked = (
        wire.body(prompts(1)[0], **base),
        wire.body(prompts(1)[0], **base, top_logprobs=3),
    )
    assert asked == plain | {"logprobs": True, "top_logprobs": 3}


def told(token, logprob, *others, raw=False):
    """One entry of logprobs.content; `raw` gives the bytes beside the token's text."""
    entry = {"token": token, "logprob": logprob}
    entry["bytes"] = list(token.encode()) if raw else None
    return entry | {"top_logprobs": [told(t, x, raw=raw) for t, x in others]} if others else entry


@pytest.mark.parametrize("raw", [True, False])
def test_log_probabilities_are_read_as_bytes(raw):
    content = [
        told("hé", -0.5, ("hé", -0.5), ("ha", -1.25), raw=raw),
        told("llo", 1e-5, ("llo", 1e-5), raw=raw),  # above 0 by rounding
        told("<end>", -0.1, ("<end>", -0.1), raw=raw),  # told after the text by some
    ]
    answer = answer_in(completion("héllo", logprobs={"content": content}))
    assert [bytes.fromhex(t.bytes).decode() for t in answer.tokens] == ["hé", "llo"]
    assert [t.logprob for t in answer.tokens] == [-0.5, 0.0]
    assert [[(bytes.fromhex(t.bytes).decode(), t.logprob) for t in one] for one in answer.top] == [
        [("hé", -0.5), ("ha", -1.25)],
        [("llo", 0.0)],
    ]


def test_a_token_may_end_inside_a_character():
    content = [
        {"token": "\\xf0\\x9f", "bytes": [240, 159], "logprob": -1, "top_logprobs": []},
        {"token": "\\x98\\x80", "bytes": [152, 128], "logprob": -1, "top_logprobs": []},
    ]
    answer = answer_in(completion("😀", logprobs={"content": content}))
    assert [t.bytes for t in answer.tokens] == ["f09f", "9880"]


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": None},
        {"content": []},
        {"content": [told("hello", -0.5)]},  # no alternatives
        {"content": [told("hallo", -0.5, ("hallo", -0.5))]},  # another text
        {"content": [told("hel", -0.5, ("hel", -0.5))]},  # cut
        {"content": [told("hello", 0.5, ("hello", -0.5))]},  # no probability
        {"content": [told("hello", float("nan"), ("hello", -0.5))]},
        {"content": ["hello"]},
        {"tokens": ["hello"], "token_logprobs": [-0.5]},  # the old completions form
        [],
    ],
)
def test_log_probabilities_that_cannot_be_used_are_left_and_the_answer_stays(logprobs):
    answer = answer_in(completion("hello", logprobs=logprobs))
    assert (answer.text, answer.tokens, answer.top) == ("hello", (), ())


def test_an_answer_is_read_whole():
    assert answer_in(completion("hello", model="tiny-2", finish="length")) == wire.Answer(
        text="hello",
        finish_reason="length",
        model="tiny-2",
        prompt_tokens=7,
        completion_tokens=5,
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": None}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}]}, "a"),
        ({"content": "half \ud83d pair"}, "half � pair"),
        ({"content": "\ud83d\ude00"}, "😀"),
    ],
)
def test_contents_of_all_shapes(message, text):
    answer = answer_in({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert answer.text == text
    assert (answer.model, answer.prompt_tokens) == ("", 0)


@pytest.mark.parametrize(
    "usage", [None, [], {"prompt_tokens": None}, {"prompt_tokens": -3}, {"prompt_tokens": True}]
)
def test_odd_usage_counts_nothing(usage):
    body = {"choices": [{"message": {"content": "a"}}], "usage": usage}
    answer = answer_in(body)
    assert (answer.prompt_tokens, answer.finish_reason) == (0, "unknown")


# Bodies in the shapes that endpoints send; the wording is paraphrased.
CASES = [
    # two meanings of 429, flat and nested
    (429, {"code": "busy", "error": "Too many tokens for team t (actual/limit): 9/8"}, "rate"),
    (429, {"error": {"message": "Rate limit reached for requests", "type": "requests"}}, "rate"),
    (429, {"error": {"message": "Slow down. Generate fewer tokens, see our credits page"}}, "rate"),
    (429, b"slow down", "rate"),
    (429, b"", "rate"),
    (429, {"code": "x", "error": "Team t has used all available credits"}, "money"),
    (429, {"error": "the team reached its monthly spending limit"}, "money"),
    (429, {"error": {"code": "insufficient_quota", "message": "see your plan"}}, "money"),
    (429, {"error": {"message": "Your credit balance is too low"}}, "money"),
    (402, b"", "money"),
    (403, {"code": "denied", "error": "Your new team doesn't have any credits yet"}, "money"),
    (403, {"code": "denied", "error": "Your new team doesn’t have any credits yet"}, "money"),
    # keys, models, arguments
    (401, {"error": {"message": "no auth", "code": "invalid_api_key"}}, "fatal"),
    (403, {"error": "key is disabled"}, "fatal"),
    (400, {"code": "bad", "error": "Incorrect API key provided"}, "fatal"),
    (400, {"error": {"message": "stop is not supported by this model"}}, "fatal"),
    (404, {"error": {"message": "The model m does not exist"}}, "fatal"),
    (422, {"detail": "temperature: must be below 2"}, "fatal"),
    (410, b"gone", "fatal"),
    (301, b"", "fatal"),
    # content
    (403, {"error": "Content violates usage guidelines. SAFETY_CHECK_TYPE_X"}, "blocked"),
    (400, {"error": {"code": "content_filter", "message": "filtered"}}, "blocked"),
    (451, b"", "blocked"),
    # one prompt only
    (400, {"error": {"code": "context_length_exceeded", "message": "m"}}, "unanswerable"),
    (400, [{"error": {"message": "maximum context length is 10 tokens"}}], "unanswerable"),
    (413, b"", "unanswerable"),
    (404, {"error": {"code": "no_recording", "message": "none"}}, "unanswerable"),
    # hiccups
    (500, b"<html>oops", "transient"),
    (503, {"error": {"message": "overloaded"}}, "transient"),
    (529, b"", "transient"),
    (408, b"", "transient"),
    (200, b"<html>not json", "transient"),
    (200, b"", "transient"),
    (200, b'{"choices": [', "transient"),
    (200, b"[" * 100_000, "transient"),
    (200, {"choices": []}, "transient"),
    (200, {"choices": [{"message": {"content": 3}}]}, "transient"),
    (200, {"choices": [{"message": {"content": ["a"]}}]}, "transient"),
    (200, [1], "transient"),
    (200, {"error": {"message": "upstream is down"}}, "transient"),
    # errors inside a 200
    (200, {"error": {"message": "slow down", "code": 429}}, "rate"),
    (200, {"error": {"message": "pay", "code": 402}}, "money"),
]
SHORT = {"rate": Kind.RATE_LIMITED, "money": Kind.OUT_OF_MONEY}


@pytest.mark.parametrize(("status", "body", "expected"), CASES)
def test_every_fault_has_its_kind(status, body, expected):
    read = outcome(status, body)
    assert read.kind == SHORT.get(expected, expected)
    assert read.answer is None
    assert read.reason


def test_content_filter_as_finish_reason_is_blocked():
    assert outcome(200, completion("", finish="content_filter")).kind is Kind.BLOCKED


def test_the_endpoints_own_words_are_kept():
    nested = outcome(500, {"error": {"code": "E7", "message": "disk on fire"}})
    flat = outcome(500, {"code": "E7", "error": "disk on fire"})
    assert nested.detail == flat.detail == "E7: disk on fire"
    assert nested.reason == "HTTP 500"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Sun, 09 Sep 2001 01:47:00 GMT", 20.0),  # 1,000,000,020 in Unix time
        ("Sun, 09 Sep 2001 01:40:00 GMT", 0.0),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_as_number_and_as_date(value, seconds):
    assert outcome(429, b"", **{"retry-after": value}).wait_sec == seconds
    assert outcome(401, b"", **{"retry-after": "7"}).wait_sec is None


def test_what_broke_on_the_way_is_transient_and_groups_by_its_first_words():
    read = wire.read(Reply(status=0, error="timed out: no whole reply within 3 s"))
    assert (read.kind, read.reason) == (Kind.TRANSIENT, "timed out")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "error", "code", "usage", "model"]),
            inner,
        )
    ),
)


@given(st.integers(200, 599), JSON | st.binary())
def test_no_reply_whatsoever_raises_and_all_text_fits_a_file(status, body):
    read = outcome(status, body)
    assert (read.kind is Kind.OK) == (read.answer is not None)
    (read.detail + read.reason + (read.answer.text if read.answer else "")).encode()
