import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.errors import ConfigError
from opengrok_jax.model import generate as generate_module
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.generate import batches, generate, pad_rows, padded_length, row_segments
from opengrok_jax.model.phi3 import Phi3

CONTEXT = 72
NEVER = (61, 62)  # stop ids outside the vocabulary; two, as elsewhere, so that less is compiled


@pytest.fixture(scope="module")
def model() -> Phi3:
    config = Phi3Config.tiny(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.4,
    )
    return Phi3(config, rngs=nnx.Rngs(3))


def prompts(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, 61, n, dtype=np.int32) for n in lengths]


@nnx.jit
def all_logits(model: Phi3, row: jax.Array) -> jax.Array:
    return model(row, jnp.ones_like(row))[0]


def step_by_step(model: Phi3, prompt: np.ndarray, stops: tuple[int, ...], room: int) -> list[int]:
    """The oracle: no padding, no batch, no loop primitive; all logits at every step."""
    tokens, answer = prompt.tolist(), []
    while len(answer) < room:
        row = jnp.asarray([tokens + answer], jnp.int32)
        answer.append(int(np.argmax(np.asarray(all_logits(model, row))[-1])))
        if answer[-1] in stops:
            break
    return answer


def test_greedy_equals_step_by_step_argmax(model: Phi3) -> None:
    rows = prompts(
        30, 4, 33, 5, 3
    )  # lengths that overlap as they grow, so the oracle compiles less
    free = [step_by_step(model, row, (), 6) for row in rows]
    assert len({tuple(answer) for answer in free}) > 1, "the model must not say the same to all"
    got = generate(model, rows, stop_ids=NEVER, max_new_tokens=6, batch_size=2)
    assert [answer.tolist() for answer in got] == free
    # Stop ids that do come: the answer ends with the first of them.
    stops = (free[0][2], free[3][3])
    got = generate(model, rows, stop_ids=stops, max_new_tokens=6, batch_size=2)
    assert [answer.tolist() for answer in got] == [step_by_step(model, r, stops, 6) for r in rows]
    assert {len(answer) for answer in got} != {6}


def test_an_answer_does_not_depend_on_the_batch(model: Phi3) -> None:
    rows = prompts(5, 21, 12, 40, 2, 12)
    whole = generate(model, rows, stop_ids=(7, 11), max_new_tokens=6, batch_size=3)
    again = generate(model, rows[::-1], stop_ids=(7, 11), max_new_tokens=6, batch_size=2)
    assert [a.tolist() for a in again[::-1]] == [a.tolist() for a in whole]


def test_the_context_can_be_filled_to_the_last_token(model: Phi3) -> None:
    rows = prompts(CONTEXT - 2)
    (got,) = generate(model, rows, stop_ids=NEVER, max_new_tokens=2, batch_size=2)
    assert got.tolist() == step_by_step(model, rows[0], (), 2)


def test_one_compilation_whatever_the_number_of_steps(model: Phi3) -> None:
    cache_size = getattr(generate_module._decode, "_cache_size")  # noqa: B009
    generate(model, prompts(4, 6), stop_ids=(1, 2), max_new_tokens=3, batch_size=3)
    before = cache_size()
    generate(model, prompts(9, 2, 5, 7), stop_ids=(3, 4), max_new_tokens=12, batch_size=3)
    assert cache_size() == before


def test_no_prompts(model: Phi3) -> None:
    assert generate(model, [], stop_ids=(1,), max_new_tokens=3) == []


def test_what_does_not_fit_is_refused(model: Phi3) -> None:
    with pytest.raises(ConfigError, match=r"prompt 1 has 70 tokens; with 3 .* context of 72"):
        generate(model, prompts(5, 70), stop_ids=NEVER, max_new_tokens=3)
    with pytest.raises(ConfigError, match="prompt 0 is empty"):
        generate(model, prompts(0), stop_ids=NEVER, max_new_tokens=3)


def test_progress_counts_prompts(model: Phi3) -> None:
    seen: list[int] = []
    generate(
        model,
        prompts(5, 40, 6),
        stop_ids=NEVER,
        max_new_tokens=2,
        batch_size=2,
        advance=seen.append,
    )
    assert sum(seen) == 3


def test_drawings() -> None:
    assert list(batches([40, 9, 12, 70, 9], 2, 1024)) == [([3, 0], 96), ([2, 1], 32), ([4], 32)]
    tokens, lengths = pad_rows([np.array([7, 8, 9], np.int32), np.array([5], np.int32)], 3, 4)
    assert tokens.tolist() == [[7, 8, 9, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
    assert lengths.tolist() == [3, 1, 0]
    assert row_segments(jnp.array([3, 1]), 4).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


@given(st.integers(1, 5000))
def test_padding_is_at_most_a_third(length: int) -> None:
    padded = padded_length(length, 10_000)
    assert padded >= length
    assert padded == 32 or length > padded * 2 / 3
    assert padded_length(length, length) == length


@settings(max_examples=30)
@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 7))
def test_every_row_is_in_one_batch(lengths: list[int], batch_size: int) -> None:
    made = list(batches(lengths, batch_size, 200))
    assert sorted(i for rows, _ in made for i in rows) == list(range(len(lengths)))
    for rows, padded in made:
        assert 1 <= len(rows) <= batch_size
        assert padded_length(max(lengths[i] for i in rows), 200) == padded
    assert [len(rows) for rows, _ in made[:-1]] == [batch_size] * (len(made) - 1)
