import pytest

from opengrok_jax.teacher import responses_api
from opengrok_jax.teacher.outcome import Asking, Kind, Usage
from tests.teacher.questions import outcome, prompts, told

ASKING = Asking(api="responses", model="m", temperature=0.5, max_tokens=9)


def response(*parts, **changes):
    items = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": list(parts)},
    ]
    usage = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
    body = {"object": "response", "status": "completed", "error": None, "model": "m-1"}
    return body | {"output": items, "usage": usage} | changes


def text(said, **more):
    return {"type": "output_text", "text": said, "annotations": []} | more


def test_the_body_is_what_the_endpoint_documents():
    body = responses_api.body(prompts(1)[0], ASKING)
    assert body == {
        "model": "m",
        "input": [{"role": "user", "content": "What is the mood of post 0?"}],
        "temperature": 0.5,
        "max_output_tokens": 9,
        "store": False,
    }
    asked = responses_api.body(
        prompts(1)[0],
        Asking(api="responses", model="m", temperature=0.5, max_tokens=9, top_logprobs=3),
    )
    assert asked == body | {"include": ["message.output_text.logprobs"], "top_logprobs": 3}


def test_an_answer_is_read_whole():
    answer = outcome(200, response(text("good "), text("day"))).answer
    assert answer is not None
    assert (answer.text, answer.finish_reason, answer.model) == ("good day", "stop", "m-1")
    assert answer.usage == Usage(prompt_tokens=7, completion_tokens=5, billed_tokens=5)
    assert not answer.logprobs_told


def test_log_probabilities_over_several_parts():
    one = [told("good ", -0.5, ("good ", -0.5))]
    two = [told("day", -0.25, ("day", -0.25))]
    body = response(text("good ", logprobs=one), text("day", logprobs=two))
    answer = outcome(200, body).answer
    assert answer is not None
    assert [t.logprob for t in answer.tokens] == [-0.5, -0.25]


def test_a_refusal_is_an_answer():
    answer = outcome(200, response({"type": "refusal", "refusal": "I will not."})).answer
    assert answer is not None
    assert answer.text == "I will not."


def test_a_cut_answer_says_so():
    why = {"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"}
    answer = outcome(200, response(text("good"), **why)).answer
    assert answer is not None
    assert (answer.text, answer.finish_reason) == ("good", "length")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            response(status="incomplete", incomplete_details={"reason": "content_filter"}),
            Kind.BLOCKED,
        ),
        (response(status="failed", error={"code": "server_error"}, output=[]), Kind.TRANSIENT),
        (
            response(status="failed", error={"code": "rate_limit_exceeded"}, output=[]),
            Kind.RATE_LIMITED,
        ),
        (response(status="in_progress", output=[]), Kind.TRANSIENT),
        (response(output=[]), Kind.TRANSIENT),
        (response(output=[3]), Kind.TRANSIENT),
        (response(output=[{"type": "message", "content": "x"}]), Kind.TRANSIENT),
    ],
)
def test_what_is_no_answer(body, kind):
    read = outcome(200, body)
    assert (read.kind, read.answer) == (kind, None)


def test_reasoning_is_no_part_of_the_answer():
    answer = outcome(200, response(text("<think>so</think>"), text("\n\nsad"))).answer
    assert answer is not None
    assert (answer.text, answer.reasoned) == ("sad", True)
