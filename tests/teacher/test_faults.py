import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.teacher.outcome import Kind
from tests.teacher.questions import completion, outcome

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
    (429, {"error": {"message": "Budget has been exceeded! Current cost: 9"}}, "money"),
    (429, {"error": {"message": "You exceeded your current quota"}}, "money"),
    (403, {"code": "denied", "error": "Your new team doesn't have any credits yet"}, "money"),
    (403, {"code": "denied", "error": "Your new team doesn’t have any credits yet"}, "money"),
    # keys, models, arguments
    (401, {"error": {"message": "no auth", "code": "invalid_api_key"}}, "fatal"),
    (403, {"error": "key is disabled"}, "fatal"),
    (400, {"code": "bad", "error": "Incorrect API key provided"}, "fatal"),
    (400, {"error": {"message": "stop is not supported by this model"}}, "fatal"),
    (404, {"error": {"message": "The model m does not exist"}}, "fatal"),
    (422, {"detail": "temperature: must be below 2"}, "fatal"),
    (410, b"gone", "retired"),
    (404, {"error": {"message": "The model m has been deprecated"}}, "retired"),
    (400, {"error": "model m is no longer available"}, "retired"),
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
    (503, {"error": {"message": "overloaded"}}, "overloaded"),
    (529, b"", "overloaded"),
    (500, {"error": "the engine is overloaded"}, "overloaded"),
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
    (200, {"error": {"message": "slow down", "code": "429"}}, "rate"),
    (200, {"error": {"message": "You hit the rate limit", "code": "too_fast"}}, "rate"),
    (200, {"error": "the team has used all available credits"}, "money"),
]
SHORT = {"rate": Kind.RATE_LIMITED, "money": Kind.OUT_OF_MONEY}


@pytest.mark.parametrize(("status", "body", "expected"), CASES)
def test_every_fault_has_its_kind(status, body, expected):
    read = outcome(status, body)
    assert read.kind == SHORT.get(expected, expected)
    assert read.answer is None
    assert read.reason


def test_a_quota_that_says_when_to_come_again_is_a_rate():
    words = {"error": {"message": "You exceeded your current quota, retry in 30 s"}}
    assert outcome(429, words, **{"retry-after": "30"}).kind is Kind.RATE_LIMITED


def test_content_filter_as_finish_reason_is_blocked_and_may_have_cost():
    read = outcome(200, completion("", finish="content_filter"))
    assert read.kind is Kind.BLOCKED
    assert read.usage.prompt_tokens == 7


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
        ("Sun, 09 Sep 2001 01:40:00 GMT", None),  # over
        ("0", None),
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "error",
                    "code",
                    "usage",
                    "model",
                    "output",
                    "type",
                    "text",
                    "logprobs",
                    "status",
                    "prompt_tokens",
                    "finish_reason",
                ]
            ),
            inner,
        )
    ),
)


@given(st.integers(200, 599), JSON | st.binary())
def test_no_reply_whatsoever_raises_and_all_text_fits_a_file(status, body):
    read = outcome(status, body)
    assert (read.kind is Kind.OK) == (read.answer is not None)
    (read.detail + read.reason + (read.answer.text if read.answer else "")).encode()


def test_a_redirect_says_where_to():
    found = outcome(307, b"", location="https://new.example/v1/chat/completions")
    assert found.kind is Kind.FATAL
    assert found.detail == "it redirects to https://new.example/v1/chat/completions"
