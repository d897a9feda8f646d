import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.predict import by_generation, by_likelihood, response_log_probs
from opengrok_jax.evaluation.tasks import Item, Task, load_items
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import ChatTokenizer


@nnx.jit
def all_logits(model: Phi3, row: jax.Array) -> jax.Array:
    return model(row, jnp.ones_like(row))[0]


def oracle(model: Phi3, tokenizer: ChatTokenizer, task: Task, post: str, label: str) -> float:
    """One row, no padding, all logits, float64 NumPy: log P of the label's tokens and <|end|>."""
    messages = (Message(role="user", content=task.ask(post)),)
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


def test_likelihood_equals_the_oracle(student: Phi3, tokenizer: ChatTokenizer, mood: Task) -> None:
    items = load_items(mood)[:2]  # a short and a long post; every row is another length to compile
    found = by_likelihood(student, tokenizer, mood, items, batch_size=4)
    for item, got in zip(items, found, strict=True):
        expected = {
            label: oracle(student, tokenizer, mood, item.text, label) for label in mood.labels
        }
        assert got.scores == pytest.approx(expected, abs=2e-4)
        assert got.predicted == max(expected, key=lambda label: expected[label])
        assert (got.id, got.text, got.gold, got.answer) == (item.id, item.text, item.gold, "")


def test_likelihood_does_not_depend_on_the_batch(
    student: Phi3, tokenizer: ChatTokenizer, mood: Task
) -> None:
    items = load_items(mood)
    seen: list[int] = []
    whole = by_likelihood(student, tokenizer, mood, items, batch_size=8, advance=seen.append)
    assert sum(seen) == len(items) * len(mood.labels)
    for size, chosen in ((8, items[::-1]), (8, items[1:2]), (3, items)):
        again = by_likelihood(student, tokenizer, mood, chosen, batch_size=size)
        for got in again:
            before = next(p for p in whole if p.id == got.id)
            assert got.predicted == before.predicted
            assert got.scores == pytest.approx(before.scores, abs=1e-4)


def test_a_row_without_response_has_log_probability_zero(
    student: Phi3, tokenizer: ChatTokenizer
) -> None:
    chat = (Message(role="user", content="hello"),)
    rows = [tokenizer.encode_chat(chat), tokenizer.encode_chat(chat, "hi")]
    got = response_log_probs(student, rows, batch_size=2)
    assert got[0] == 0
    assert got[1] < -1


def test_ties_go_to_the_first_label(tokenizer: ChatTokenizer, mood: Task) -> None:
    config = Phi3Config.tiny(tokenizer.vocab_size, hidden_size=32, num_hidden_layers=1)
    model = Phi3(config, rngs=nnx.Rngs(0))
    assert model.lm_head is not None
    model.lm_head.weight.set_value(jnp.zeros_like(model.lm_head.weight.get_value()))
    # Every token now has log P = -log V, so labels of equal length tie.
    even = Task(
        name="even",
        instruction="{post}",
        labels=("b", "a"),
        metric="accuracy",
        file=mood.file,
    )
    found = by_likelihood(model, tokenizer, even, [Item(id="1", text="x", gold="a")], batch_size=2)
    logs = list(found[0].scores.values())
    tokens = len(tokenizer.encode_chat((), "a").tokens) - len(tokenizer.encode_chat(()).tokens)
    assert logs == pytest.approx([-tokens * np.log(config.vocab_size)] * 2, rel=1e-5)
    assert found[0].predicted == "b"


def test_generation_reads_the_greedy_answer(
    student: Phi3, tokenizer: ChatTokenizer, mood: Task
) -> None:
    items = load_items(mood)[:3]
    found = by_generation(student, tokenizer, mood, items, batch_size=2, max_new_tokens=4)
    for item, got in zip(items, found, strict=True):
        row = tokenizer.encode_chat((Message(role="user", content=mood.ask(item.text)),)).tokens
        answer: list[int] = []
        while len(answer) < 4:
            so_far = jnp.asarray([*row, *answer])[None]
            answer.append(int(np.argmax(np.asarray(all_logits(student, so_far))[-1])))
            if answer[-1] in (tokenizer.end_id, tokenizer.eos_id):
                break
        assert got.answer == tokenizer.decode(answer).strip()
        assert got.predicted is None  # noise from a random student is no label
        assert (got.id, got.text, got.gold, got.scores) == (item.id, item.text, item.gold, {})
    assert len({p.answer for p in found}) > 1


def test_a_student_that_says_a_label(tokenizer: ChatTokenizer, mood: Task, names: Task) -> None:
    """A head that always says the tokens of one answer in turn, whatever the post."""
    for task, answer, read in ((mood, "good", "good"), (names, "none", ())):
        model = _parrot(tokenizer, task, answer)
        items = load_items(task)[:2]
        found = by_generation(model, tokenizer, task, items, batch_size=2, max_new_tokens=12)
        assert [p.answer for p in found] == [answer] * 2
        assert [p.predicted for p in found] == [read] * 2


def _parrot(tokenizer: ChatTokenizer, task: Task, answer: str) -> Phi3:
    """A student whose every next token follows from the last one alone (a chain of bigrams)."""
    chat = (Message(role="user", content=task.ask("x")),)
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


def test_a_post_that_does_not_fit_is_refused(
    student: Phi3, tokenizer: ChatTokenizer, mood: Task
) -> None:
    long = [Item(id="long", text="word " * 400, gold="good")]
    with pytest.raises(
        ConfigError, match=r"task 'mood': the prompt with post 'long' has \d+ tokens"
    ):
        by_likelihood(student, tokenizer, mood, long, batch_size=2)
    with pytest.raises(ConfigError, match="the student's context of 160"):
        by_generation(student, tokenizer, mood, long, batch_size=2, max_new_tokens=5)


def test_a_tokenizer_of_another_student_is_refused(tokenizer: ChatTokenizer, mood: Task) -> None:
    small = Phi3(Phi3Config.tiny(100, hidden_size=32, num_hidden_layers=1), rngs=nnx.Rngs(0))
    with pytest.raises(ConfigError, match="100 rows"):
        by_likelihood(small, tokenizer, mood, load_items(mood), batch_size=2)
    with pytest.raises(ConfigError, match="100 rows"):
        by_generation(small, tokenizer, mood, load_items(mood), batch_size=2, max_new_tokens=3)
