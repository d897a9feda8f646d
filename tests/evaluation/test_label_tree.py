import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.evaluation.label_tree import label_log_probs, label_tree
from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.model.phi3 import Phi3

SO, GOOD, END, BAD = 11, 12, 3, 14


def test_the_drawing() -> None:
    """
    labels     "so so <end>"   "so good <end>"          nodes   so  so  good
    prompt     p0 p1 p2                                 place    3   4   4
    """
    tree = label_tree([(SO, SO, END), (SO, GOOD, END)])
    assert tree.tokens.tolist() == [SO, SO, GOOD]
    assert tree.depth.tolist() == [1, 2, 2]
    assert tree.above.astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    # so after the prompt; so and <end> after so, so; good and <end> after so, good
    assert tree.edge_from.tolist() == [0, 1, 2, 1, 3]
    assert tree.edge_token.tolist() == [SO, SO, END, GOOD, END]
    assert tree.on_path.astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 1, 1]]


def test_labels_of_one_token_need_no_node() -> None:
    tree = label_tree([(SO,), (BAD,)])
    assert len(tree.tokens) == 0
    assert tree.edge_from.tolist() == [0, 0]


CONFIGS = {
    "grouped keys, partial rotary, tied": {
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.5,
        "tie_word_embeddings": True,
    },
    "sliding window": {"sliding_window": 7},
    "long rope": {
        "original_max_position_embeddings": 20,
        "rope_scaling": LongRope(short_factor=(1.0,) * 4, long_factor=(2.0, 3.0, 5.0, 7.0)),
    },
}
LABELS = [(SO, SO, END), (SO, GOOD, END), (BAD, END), (SO, END)]
LENGTHS = (5, 23, 11)  # on both sides of LongRoPE's 20, none of them near it


def model_of(**changes) -> Phi3:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 4, "intermediate_size": 24, "max_position_embeddings": 64}
    return Phi3(
        Phi3Config.tiny(31, **{**sizes, "initializer_range": 0.3, **changes}), rngs=nnx.Rngs(3)
    )


@nnx.jit(static_argnames="rule")
def logits_of(
    model: Phi3, row: jax.Array, length: jax.Array, mask: jax.Array, rule: str
) -> jax.Array:
    segments = (jnp.arange(row.shape[1]) < length)[None].astype(jnp.int32)
    return model(row, segments, None, mask, rule)[0]  # type: ignore[arg-type]


def one_by_one(model: Phi3, prompt: np.ndarray, label: tuple, mask=None, rule="none") -> float:
    """log P of one label in a row of its own, all logits, float64 NumPy."""
    row, visible = np.zeros((1, 32), np.int32), np.ones((1, 32), bool)
    end = len(prompt) + len(label)
    row[0, :end] = [*prompt, *label]
    visible[0, : len(prompt)] = True if mask is None else mask
    found = logits_of(model, jnp.asarray(row), jnp.int32(end), jnp.asarray(visible), rule)
    logits = np.asarray(found).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return sum(logs[len(prompt) + i - 1, token] for i, token in enumerate(label))


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_a_row_a_label(name: str) -> None:
    model, random = model_of(**CONFIGS[name]), np.random.default_rng(0)
    prompts = [random.integers(0, 31, n).astype(np.int32) for n in LENGTHS]
    tokens = np.zeros((4, 24), np.int32)  # one row is empty, and every prompt is padded
    for at, prompt in enumerate(prompts):
        tokens[at, : len(prompt)] = prompt
    lengths = np.array([*LENGTHS, 0], np.int32)
    graph, state = nnx.split(model)
    got = np.asarray(
        label_log_probs(graph, state, label_tree(LABELS), tokens, lengths, None, "none")
    )
    expected = [[one_by_one(model, prompt, label) for label in LABELS] for prompt in prompts]
    assert got[:3] == pytest.approx(np.array(expected), abs=1e-5)
    assert np.exp(got[:3]) == pytest.approx(np.exp(np.array(expected)), abs=1e-5)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("rule", ["exclude", "multiply"])
def test_masked_prompts(rule: str) -> None:
    model, random = model_of(), np.random.default_rng(1)
    prompt = random.integers(0, 31, 9).astype(np.int32)
    mask = random.random(9) > 0.4
    mask[0] = True
    tokens = np.zeros((1, 12), np.int32)
    tokens[0, :9] = prompt
    padded = np.ones((1, 12), bool)
    padded[0, :9] = mask
    graph, state = nnx.split(model)
    got = label_log_probs(
        graph, state, label_tree(LABELS), tokens, np.array([9], np.int32), padded, rule
    )
    expected = [one_by_one(model, prompt, label, mask, rule) for label in LABELS]
    assert np.asarray(got)[0] == pytest.approx(expected, abs=1e-5)
    plain = [one_by_one(model, prompt, label) for label in LABELS]
    assert np.abs(np.array(plain) - expected).max() > 1e-3  # the mask does something
