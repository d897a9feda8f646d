import pytest

from opengrok_jax.teacher import chat
from opengrok_jax.teacher.outcome import Answer, Usage
from tests.teacher.questions import ASKING, completion, outcome, prompts, told


def answer_in(body) -> Answer:
    answer = outcome(200, body).answer
    assert answer is not None
    return answer


def test_the_body_is_what_the_endpoint_documents():
    assert chat.body(prompts(1)[0], ASKING) == {
        "model": "tiny-teacher",
        "messages": [{"role": "user", "content": "What is the mood of post 0?"}],
        "temperature": 0.7,
        "max_tokens": 64,
    }


def test_an_answer_is_read_whole():
    assert answer_in(completion("hello", model="tiny-2", finish="length")) == Answer(
        text="hello",
        finish_reason="length",
        model="tiny-2",
        usage=Usage(prompt_tokens=7, completion_tokens=5, billed_tokens=5),
    )


def test_what_xai_tells_beside():
    body = {
        "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}],
        "system_fingerprint": "fp_1",
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 2,
            "total_tokens": 61,  # reasoning is counted apart and billed
            "prompt_tokens_details": {"cached_tokens": 4},
            "cost_in_usd_ticks": 37_756_000,
        },
    }
    answer = answer_in(body)
    assert answer.fingerprint == "fp_1"
    assert answer.usage == Usage(
        prompt_tokens=9,
        completion_tokens=2,
        cached_tokens=4,
        billed_tokens=52,
        cost_ticks=37_756_000,
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": None}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}]}, "a"),
        ({"content": "half \ud83d pair"}, "half \ufffd pair"),
        ({"content": "\ud83d\ude00"}, "\U0001f600"),
    ],
)
def test_contents_of_all_shapes(message, text):
    answer = answer_in({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert answer.text == text
    assert (answer.model, answer.usage) == ("", Usage())


@pytest.mark.parametrize("raw", [True, False])
def test_log_probabilities_are_read_as_bytes(raw):
    content = [
        told("h\u00e9", -0.5, ("h\u00e9", -0.5), ("ha", -1.25), raw=raw),
        told("llo", 1e-5, ("llo", 1e-5), raw=raw),  # above 0 by rounding
        told("<end>", -0.1, ("<end>", -0.1), raw=raw),  # told after the text by some
    ]
    answer = answer_in(completion("h\u00e9llo", logprobs={"content": content}))
    assert answer.logprobs_told
    assert [bytes.fromhex(t.bytes).decode() for t in answer.tokens] == ["h\u00e9", "llo"]
    assert [t.logprob for t in answer.tokens] == [-0.5, 0.0]
    assert [[(bytes.fromhex(t.bytes).decode(), t.logprob) for t in one] for one in answer.top] == [
        [("h\u00e9", -0.5), ("ha", -1.25)],
        [("llo", 0.0)],
    ]


def test_reasoning_is_no_part_of_the_answer():
    content = [
        told(word, -0.5, (word, -0.5)) for word in ("<think>", "so", "</think>", "\n", "sad")
    ]
    logprobs = {"content": content}
    answer = answer_in(completion("<think>so</think>\nsad", logprobs=logprobs))
    assert (answer.text, answer.reasoned, len(answer.tokens)) == ("sad", True, 1)
    # A server that takes it out by itself still tells its tokens.
    apart = answer_in(completion("sad", logprobs=logprobs))
    assert (apart.text, apart.reasoned, apart.tokens) == ("sad", False, answer.tokens)
