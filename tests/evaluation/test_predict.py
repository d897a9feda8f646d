import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.answers import read_answer
from opengrok_jax.evaluation.predict import Student, response_log_probs
from opengrok_jax.evaluation.tasks import Item, Task, load_items
from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import ChatTokenizer


@nnx.jit
def all_logits(model: Phi3, row: jax.Array) -> jax.Array:
    return model(row, jnp.ones_like(row))[0]


def oracle(model: Phi3, tokenizer: ChatTokenizer, task: Task, item: Item, label: str) -> float:
    """One row, no padding, all logits, float64 NumPy: log P of the label's tokens and <|end|>."""
    messages = (Message(role="user", content=task.ask(item)),)
    prompt = tokenizer.encode_chat(messages).tokens
    both = tokenizer.encode_chat(messages, label).tokens
    # Everything after the prompt is the answer: the label, then <|end|>.
    assert both[: len(prompt)].tolist() == prompt.tolist()
    assert both[-1] == tokenizer.end_id
    assert tokenizer.decode(both[len(prompt) :]).strip() == label
    row = jnp.asarray(both)[None]
    logits = np.asarray(all_logits(model, row)).astype(np.float64)
    logs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logs -= logits.max(-1, keepdims=True)
    return sum(logs[t - 1, both[t]] for t in range(len(prompt), len(both)))


def likelihoods(student: Student, task: Task, items) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    student.log_probs(
        [task.ask(item) for item in items],
        task.labels,
        lambda rows, values: found.update(zip(rows, values, strict=True)),
    )
    return [found[i] for i in range(len(items))]


def said(student: Student, task: Task, items, max_new_tokens: int) -> list[str]:
    found: dict[int, str] = {}
    student.answers(
        [task.ask(item) for item in items],
        max_new_tokens,
        lambda rows, values: found.update(zip(rows, values, strict=True)),
    )
    return [found[i] for i in range(len(items))]


def test_likelihood_equals_the_oracle(student: Phi3, tokenizer: ChatTokenizer, mood: Task) -> None:
    items = load_items(mood)[:2]  # a short and a long post; every row is another length to compile
    asked = Student(student, tokenizer, batch_size=4)
    for item, got in zip(items, likelihoods(asked, mood, items), strict=True):
        expected = [oracle(student, tokenizer, mood, item, label) for label in mood.labels]
        assert got == pytest.approx(expected, abs=2e-4)
        assert np.exp(got) == pytest.approx(np.exp(expected), abs=1e-5)
    assert asked.label_tokens(("good",)) == [
        len(tokenizer.encode_chat((), "good").tokens) - len(tokenizer.encode_chat(()).tokens)
    ]


def test_shared_prompts_give_what_a_row_a_label_gives(
    student: Phi3, tokenizer: ChatTokenizer, mood: Task
) -> None:
    items = load_items(mood)
    rows = [
        tokenizer.encode_chat((Message(role="user", content=mood.ask(item)),), label)
        for item in items
        for label in mood.labels
    ]
    plain = response_log_probs(student, rows, batch_size=8).reshape(len(items), -1)
    for size in (8, 3):
        asked = Student(student, tokenizer, batch_size=size)
        got = np.array(likelihoods(asked, mood, items))
        assert got == pytest.approx(plain, abs=1e-4)
        assert np.exp(got) == pytest.approx(np.exp(plain), abs=1e-5)
        wasted, computed = asked.wasted
        assert wasted / computed <= 0.1
        lengths = [
            len(tokenizer.encode_chat((Message(role="user", content=mood.ask(i)),)).tokens)
            for i in items
        ]
        assert computed - wasted == sum(lengths) + 5 * len(items)  # good; so, so so; bad: 5 nodes


def test_rows_at_the_threshold_of_longrope_go_one_a_label(
    tokenizer: ChatTokenizer, mood: Task
) -> None:
    items = load_items(mood)
    lengths = [
        len(tokenizer.encode_chat((Message(role="user", content=mood.ask(i)),)).tokens)
        for i in items
    ]
    config = Phi3Config.tiny(
        tokenizer.vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=160, initializer_range=0.3,
        original_max_position_embeddings=lengths[0] + 2,  # "good <end>" fits before it, "so so" not
        rope_scaling=LongRope(short_factor=(1.0,) * 4, long_factor=(2.0, 3.0, 5.0, 7.0)),
    )  # fmt: skip
    model = Phi3(config, rngs=nnx.Rngs(1))
    asked = Student(model, tokenizer, batch_size=4)
    for item, got in zip(items[:1], likelihoods(asked, mood, items[:1]), strict=True):
        expected = [oracle(model, tokenizer, mood, item, label) for label in mood.labels]
        assert got == pytest.approx(expected, abs=2e-4)
    mask = [np.ones(n, bool) for n in lengths[:1]]
    with pytest.raises(ConfigError, match="LongRoPE's threshold"):
        asked.log_probs([mood.ask(items[0])], mood.labels, print, key_masks=mask, rule="exclude")


def test_masked_prompts_are_read_masked(
    student: Phi3, tokenizer: ChatTokenizer, mood: Task
) -> None:
    asked, items = Student(student, tokenizer, batch_size=2), load_items(mood)[:2]
    prompts = [mood.ask(item) for item in items]
    lengths = [
        len(tokenizer.encode_chat((Message(role="user", content=p),)).tokens) for p in prompts
    ]
    found: dict[int, list[float]] = {}
    asked.log_probs(
        prompts,
        mood.labels,
        lambda rows, values: found.update(zip(rows, values, strict=True)),
        key_masks=[np.arange(n) % 5 != 3 for n in lengths],
        rule="exclude",
    )
    for got, plain in zip((found[0], found[1]), likelihoods(asked, mood, items), strict=True):
        assert got != pytest.approx(plain, abs=1e-3)


def test_a_row_without_response_has_log_probability_zero(
    student: Phi3, tokenizer: ChatTokenizer
) -> None:
    chat = (Message(role="user", content="hello"),)
    rows = [tokenizer.encode_chat(chat), tokenizer.encode_chat(chat, "hi")]
    got = response_log_probs(student, rows, batch_size=2)
    assert got[0] == 0
    assert got[1] < -1


def test_generation_reads_the_greedy_answer(
    student: Phi3, tokenizer: ChatTokenizer, mood: Task
) -> None:
    items = load_items(mood)[:3]
    found = said(Student(student, tokenizer, batch_size=2), mood, items, 4)
    for item, got in zip(items, found, strict=True):
        row = tokenizer.encode_chat((Message(role="user", content=mood.ask(item)),)).tokens
        answer: list[int] = []
        while len(answer) < 4:
            so_far = jnp.asarray([*row, *answer])[None]
            answer.append(int(np.argmax(np.asarray(all_logits(student, so_far))[-1])))
            if answer[-1] in (tokenizer.end_id, tokenizer.eos_id):
                break
        assert got == tokenizer.decode(answer).strip()
    assert len({*found}) > 1


def test_a_student_that_says_a_label(tokenizer: ChatTokenizer, mood: Task, names: Task) -> None:
    """A head that always says the tokens of one answer in turn, whatever the post."""
    for task, answer, read in ((mood, "good", "good"), (names, "none", ())):
        model = _parrot(tokenizer, task, answer)
        items = load_items(task)[:2]
        found = said(Student(model, tokenizer, batch_size=2), task, items, 12)
        assert found == [answer] * 2
        assert [read_answer(task, items[0], text) for text in found] == [read] * 2


def _parrot(tokenizer: ChatTokenizer, task: Task, answer: str) -> Phi3:
    """A student whose every next token follows from the last one alone (a chain of bigrams)."""
    chat = (Message(role="user", content=task.ask(Item(id="", text="x", gold=""))),)
    start = len(tokenizer.encode_chat(chat).tokens)
    chain = tokenizer.encode_chat(chat, answer).tokens[start - 1 :].tolist()
    following: dict[int, int] = {}
    for before, after in itertools.pairwise(chain):
        assert following.setdefault(before, after) == after, "choose an answer of distinct tokens"
    width = 2 * len(chain) + 2 * (len(chain) % 2)
    config = Phi3Config.tiny(
        tokenizer.vocab_size,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = Phi3(config, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    nnx.update(model, nnx.map_state(lambda _, p: p.replace(jnp.zeros_like(p.get_value())), state))
    table, head = np.zeros((2, config.vocab_size, width), np.float32)
    for channel, (before, after) in enumerate(following.items()):
        table[before, channel] = 1
        head[after, channel] = 1
    assert model.lm_head is not None
    model.embed_tokens.weight.set_value(jnp.asarray(table))
    model.lm_head.weight.set_value(jnp.asarray(head))
    model.norm.weight.set_value(jnp.ones(width))
    return model


def test_what_does_not_fit_is_refused(student: Phi3, tokenizer: ChatTokenizer) -> None:
    asked = Student(student, tokenizer, batch_size=2)
    asked.check("task 'mood'", ["short"], ("good",), 0)
    with pytest.raises(ConfigError, match=r"task 'mood': the prompt 'word word .* has \d+ tokens"):
        asked.check("task 'mood'", ["word " * 400], ("good",), 0)
    with pytest.raises(ConfigError, match="the student's context of 160"):
        asked.check("task 'mood'", ["short"], (), 158)


def test_a_tokenizer_of_another_student_is_refused(tokenizer: ChatTokenizer) -> None:
    small = Phi3(Phi3Config.tiny(100, hidden_size=32, num_hidden_layers=1), rngs=nnx.Rngs(0))
    with pytest.raises(ConfigError, match="100 rows"):
        Student(small, tokenizer, batch_size=2)
