import pytest

from opengrok_jax.teacher import plain
from opengrok_jax.teacher.outcome import Usage
from tests.teacher.questions import completion, outcome, told


def answer_in(body):
    answer = outcome(200, body).answer
    assert answer is not None
    return answer


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


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {"prompt_tokens": None},
        {"prompt_tokens": -3},
        {"prompt_tokens": True},
        {"prompt_tokens": 1.5, "cost_in_usd_ticks": 2.5},
        {"prompt_tokens": 10**400, "cost_in_usd_ticks": -1},
    ],
)
def test_odd_usage_counts_nothing(usage):
    assert plain.usage(usage, "prompt_tokens", "completion_tokens") == Usage()


def test_what_is_no_json():
    assert plain.value(b"[" * 100_000) is None
    assert plain.value(b"\xff") is None
    assert plain.value(b"3") == 3
    assert plain.section({"a": {"b": 1}}, "a") == {"b": 1}
    assert plain.section([1], "a") == plain.section({"a": 3}, "a") == {}


def test_a_character_cut_in_two_does_not_lose_the_answer():
    body = completion("fish and chips").replace(b"chips", b"chi\xf0\x9f")
    assert answer_in(body).text == "fish and chi\ufffd"
    assert plain.value(b"\xff\xfe\xfd") is None
    assert plain.value(b'"\xff' + b"[" * 100_000) is None


def test_the_drawn_thoughts():
    drawn = {
        "<think>Rain again, so sad.</think>\n\nsadness": "sadness",
        "Rain again, so sad.\n</think>\n\nsadness": "sadness",
        "<think>Rain again": "",
        "Their bio says </think> and no more.": "Their bio says </think> and no more.",
    }
    assert {said: plain.spoken(said) for said in drawn} == drawn


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("<think>\n\n</think>\n\nok", "ok"),  # what a model says that was told not to reason
        ("\n<think>a\n\nb</think>ok\nand more ", "ok\nand more "),
        ("[THINK]a[/THINK]ok", "ok"),
        ("</think>\n\nok", "ok"),
        ("so sad.</think>\nok", "ok"),
        ("ok <think>a</think> ok", "ok <think>a</think> ok"),
        ("it ends with </think>", "it ends with </think>"),
        (" ok\n", " ok\n"),
        ("", ""),
    ],
)
def test_what_is_said_after_thinking(said, answer):
    assert plain.spoken(said) == answer
    assert plain.spoken(answer) == answer


def listed(*words):
    return [told(word, -0.5, (word, -0.5)) for word in words]


@pytest.mark.parametrize(
    ("tokens", "said", "kept"),
    [
        (["<think>", "Rain", "</think>", "\n\n", "sad", "ness", "<end>"], "sadness", [4, 5]),
        (["<think>", "Rain", "</think>", "\n\n", "sad", "ness"], "sadness", [4, 5]),
        (["sad", "</think>", "sad"], "sad", [0]),  # nothing shows that the first is a thought
        (["so", "sad", "</think>", "sad"], "sad", [3]),
        (["</think>\n\nsad", "ness"], "sadness", []),  # no token begins where the answer does
        (["so", "sad", "and", "more"], "sad", []),  # not at the end: another text
        (["sad"], "", []),
    ],
)
def test_the_tokens_of_the_answer_among_those_of_the_reasoning(tokens, said, kept):
    chosen, top = plain.logprobs(listed(*tokens), said)
    assert [bytes.fromhex(t.bytes).decode() for t in chosen] == [tokens[n] for n in kept]
    assert len(top) == len(chosen)
