"""Against transformers, and against one row at a time without a cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.attention import Rule
from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.model.generate import generate, stream
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sampling import Sampling
from opengrok_jax.model.weights import load_hf

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
def all_logits(model: Phi3, row: jax.Array, segments: jax.Array) -> jax.Array:
    return model(row, segments)[0]


def step_by_step(model: Phi3, prompt: np.ndarray, stops: tuple[int, ...], room: int) -> list[int]:
    """The oracle: no batch, no cache, no loop primitive; all logits at every step."""
    row, answer = np.zeros((1, CONTEXT), np.int32), []
    row[0, : len(prompt)] = prompt
    while len(answer) < room:
        at = len(prompt) + len(answer)
        segments = (np.arange(CONTEXT)[None] < at).astype(np.int32)
        logits = all_logits(model, jnp.asarray(row), jnp.asarray(segments))
        answer.append(int(np.argmax(np.asarray(logits)[at - 1])))
        row[0, at : at + 1] = answer[-1]
        if answer[-1] in stops:
            break
    return answer


def test_greedy_equals_step_by_step_argmax(model: Phi3) -> None:
    rows = prompts(30, 4, 33, 5, 3)
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


def test_no_prompts(model: Phi3) -> None:
    assert generate(model, [], stop_ids=(1,), max_new_tokens=3) == []


def test_what_does_not_fit_is_refused(model: Phi3) -> None:
    with pytest.raises(ConfigError, match=r"prompt 1 has 70 tokens; with 3 .* context of 72"):
        generate(model, prompts(5, 70), stop_ids=NEVER, max_new_tokens=3)
    with pytest.raises(ConfigError, match="the prompt is empty"):
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


CASES: dict[str, dict[str, Any]] = {
    "grouped, partial, tied": {
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "hidden_size": 60,
        "partial_rotary_factor": 0.6,
        "tie_word_embeddings": True,
    },
    "sliding window": {"sliding_window": 5},
    "longrope": {},  # original context 11: of the prompts below two cross it, one is beyond
}


@pytest.mark.parametrize("name", CASES)
def test_greedy_equals_transformers(
    name: str, hf_folder: Callable[..., Path], hf_model: Any, make_long_rope: Any
) -> None:
    torch = pytest.importorskip("torch")
    theirs = hf_model(**CASES[name], **(make_long_rope() if name == "longrope" else {}))
    rows = prompts(3, 11, 6, 14)
    expected = []
    for row in rows:
        ids = torch.tensor(row[None].astype(np.int64))
        with torch.no_grad():
            grown = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16
            )
        expected.append(grown[0, len(row) :].tolist())
    ours = load_hf(hf_folder(theirs))
    stops = (5, NEVER[0])  # transformers stops at the config's eos_token_id, 5
    got = generate(ours, rows, stop_ids=stops, max_new_tokens=16, batch_size=3)
    assert [answer.tolist() for answer in got] == expected
    assert max(map(len, expected)) == 16


def test_bfloat16_chooses_what_bfloat16_of_transformers_chooses(
    hf_folder: Callable[..., Path], hf_model: Any
) -> None:
    """Token for token, until a row comes to a choice that rounding decides.

    Such a choice is one where the logits of transformers in float32, on the very same tokens, have
    their two highest nearer to each other than twice what its bfloat16 is off there at most: either
    may then come first. From there on the rows have different texts and are not compared.
    """
    torch = pytest.importorskip("torch")
    exact = hf_model()
    folder, rows, new = hf_folder(exact), prompts(3, 11, 6, 14, 9, 20), 16
    theirs = hf_model().bfloat16()
    ours = load_hf(folder, param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)
    got = generate(ours, rows, stop_ids=(5, NEVER[0]), max_new_tokens=new, batch_size=3)
    compared = 0
    for row, answer in zip(rows, got, strict=True):
        ids = torch.tensor(row[None].astype(np.int64))
        with torch.no_grad():
            grown = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new
            )
            at = slice(len(row) - 1, -1)
            sure = exact(grown).logits[0, at]
            off = (theirs(grown).logits[0, at].float() - sure).abs().amax(-1)
        highest = sure.topk(2).values
        rounding = (highest[:, 0] - highest[:, 1] <= 2 * off).tolist()
        until = rounding.index(True) if True in rounding else len(rounding)
        assert answer[:until].tolist() == grown[0, len(row) : len(row) + until].tolist()
        compared += until
    assert compared > 20, "enough choices must not hang on rounding"


LONG = Phi3Config.tiny(
    61,
    hidden_size=30,
    intermediate_size=23,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    partial_rotary_factor=0.6,
    max_position_embeddings=40,
    original_max_position_embeddings=9,
    rope_scaling=LongRope((1.0, 1.1, 1.2), (2.0, 4.0, 8.0)),
    sliding_window=6,
)


@pytest.fixture(scope="module")
def long_model(random_model: Callable[..., Phi3]) -> Phi3:
    return random_model(LONG)


@nnx.jit(static_argnames="rule")
def masked_logits(
    model: Phi3, row: jax.Array, segments: jax.Array, mask: jax.Array | None, rule: Rule
) -> jax.Array:
    return model(row, segments, None, mask, rule)


@pytest.mark.parametrize("rule", ["none", "multiply", "exclude"])
def test_cached_logits_equal_uncached(rule: Rule, long_model: Phi3) -> None:
    """Prefill 12 and 10 tokens (beyond the original context), then 8 steps; all logits at 1e-5."""
    lengths, steps, room = np.array([12, 10], np.int32), 8, 20
    random = np.random.default_rng(3)
    tokens = random.integers(0, 61, (2, room), np.int32)
    mask = None
    if rule != "none":
        mask = random.random((2, room)) < 0.6
        mask[0, lengths[0] :] = mask[1, lengths[1] :] = True
    tokens, mask = jnp.asarray(tokens), None if mask is None else jnp.asarray(mask)
    index = np.arange(room)[None]
    prefill = nnx.jit(type(long_model).prefill, static_argnames="rule")
    step = nnx.jit(type(long_model).step, static_argnames="rule")
    _, cache = prefill(
        long_model, tokens, jnp.asarray((index < lengths[:, None]) * 1), mask, rule=rule
    )
    config = LONG
    assert cache.keys.shape == (3, 2, config.num_key_value_heads, room, config.head_dim)
    for more in range(steps):
        at = lengths + more
        newest = tokens[np.arange(2), at]
        hidden, cache = step(long_model, newest, jnp.asarray(at), cache, mask, rule=rule)
        got = np.asarray(long_model.logits(hidden))
        segments = jnp.asarray((index <= at[:, None]) * 1)
        whole = np.asarray(masked_logits(long_model, tokens, segments, mask, rule))
        want = whole[np.arange(2), at]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("rule", ["multiply", "exclude"])
def test_the_prompts_key_mask_reaches_every_new_token(rule: Rule, long_model: Phi3) -> None:
    """Greedy under a mask equals argmax without a cache, across LongRoPE's original context."""
    rows, new, room = prompts(6, 12, 4), 9, 24
    masks = [np.random.default_rng(n).random(len(row)) < 0.5 for n, row in enumerate(rows)]
    expected = []
    for row, mask in zip(rows, masks, strict=True):
        ids, seen = np.zeros((1, room), np.int32), np.ones((1, room), bool)
        ids[0, : len(row)], seen[0, : len(row)] = row, mask
        for at in range(len(row), len(row) + new):
            segments = jnp.asarray((np.arange(room)[None] < at) * 1)
            logits = masked_logits(long_model, jnp.asarray(ids), segments, jnp.asarray(seen), rule)
            ids[0, at] = np.argmax(np.asarray(logits)[0, at - 1])
        expected.append(ids[0, len(row) : len(row) + new].tolist())
    asked: dict[str, Any] = {"stop_ids": NEVER, "max_new_tokens": new, "batch_size": 3}
    got = generate(long_model, rows, key_masks=masks, rule=rule, **asked)
    assert [answer.tolist() for answer in got] == expected
    free = generate(long_model, rows, **asked)
    assert [a.tolist() for a in free] != expected


def test_a_key_mask_that_does_not_fit_is_refused(model: Phi3) -> None:
    rows, mask = prompts(4), [np.ones(3, bool)]
    with pytest.raises(ConfigError, match="one truth value per token"):
        generate(model, rows, stop_ids=(), max_new_tokens=1, key_masks=mask, rule="exclude")
    with pytest.raises(ConfigError, match="needs a key_mask"):
        generate(model, rows, stop_ids=(), max_new_tokens=1, rule="exclude")
    with pytest.raises(ConfigError, match="'none' reads no key mask"):
        generate(model, rows, stop_ids=(), max_new_tokens=1, key_masks=mask)
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        generate(model, rows, stop_ids=(), max_new_tokens=0)


def test_draws_depend_on_the_seed_and_not_on_the_batch(model: Phi3) -> None:
    rows = prompts(5, 5, 9)
    rows[1] = rows[0]

    def draw(seed: int, batch_size: int, top_p: float = 0.95) -> list[list[int]]:
        sampling = Sampling(temperature=3.0, top_p=top_p, seed=seed)
        answers = generate(
            model, rows, stop_ids=NEVER, max_new_tokens=8, sampling=sampling, batch_size=batch_size
        )
        return [answer.tolist() for answer in answers]

    first = draw(1, 3)
    assert draw(1, 3) == draw(1, 2) == first
    assert draw(2, 3) != first
    assert first[0] != first[1], "the same prompt twice draws twice"
    greedy = generate(model, rows, stop_ids=NEVER, max_new_tokens=8, batch_size=3)
    assert draw(1, 3, top_p=1e-6) == [answer.tolist() for answer in greedy]
    streamed = stream(
        model,
        rows[0],
        stop_ids=NEVER,
        max_new_tokens=8,
        sampling=Sampling(temperature=3.0, top_p=0.95, seed=1),
    )
    assert [*streamed] == first[0]
