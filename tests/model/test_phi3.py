"""The forward pass: packed against alone, the key masks, gradients, and what it holds on to."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.attention import Rule
from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.model.phi3 import Phi3, Remat

QUICKLY: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}  # half the compile time

CONFIG = Phi3Config.tiny(
    61,
    hidden_size=30,
    intermediate_size=23,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    partial_rotary_factor=0.6,
    max_position_embeddings=44,
    original_max_position_embeddings=4,  # of the packed segments below one is longer, two are not
    rope_scaling=LongRope((1.0, 1.1, 1.2), (2.0, 4.0, 8.0)),
    sliding_window=5,
)


@pytest.fixture(scope="module")
def model(random_model: Callable[..., Phi3]) -> Phi3:
    return random_model(CONFIG)


def run(model: Phi3, *arrays: Any, rule: Rule = "none") -> np.ndarray:
    """All logits."""
    graph, state = nnx.split(model)
    arrays = tuple(None if a is None else jnp.asarray(a) for a in arrays)
    forward = jax.jit(lambda state, *arrays: nnx.merge(graph, state)(*arrays, rule=rule))
    return np.asarray(forward.lower(state, *arrays).compile(QUICKLY)(state, *arrays))


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-5) -> None:
    """Within `tolerance` of the largest logit."""
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


def tokens_like(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(8, 61, shape)


@pytest.mark.parametrize("rule", ["none", "multiply", "exclude"])
def test_packed_equals_alone(rule: Rule, model: Phi3) -> None:
    lengths = [4, 7, 2]
    tokens, mask = tokens_like(1, 17), np.random.default_rng(1).random((1, 17)) < 0.6
    segments = np.array(
        [[n for n, length in enumerate(lengths, 1) for _ in range(length)] + [0] * 4]
    )
    packed = run(model, tokens, segments, None, mask, rule=rule)
    # The same three examples in rows of their own, padded, so that one compilation serves.
    starts = np.cumsum([0, *lengths[:-1]])
    alone = [np.zeros((3, 17), kind) for kind in (tokens.dtype, segments.dtype, bool)]
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for into, source in zip(alone, (tokens, np.ones_like(tokens), mask), strict=True):
            into[row, :length] = source[0, start : start + length]
    apart = run(model, alone[0], alone[1], None, alone[2], rule=rule)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        assert_close(packed[0, start : start + length], apart[row, :length])
    assert np.isfinite(packed).all()


def test_key_mask_rules_reach_every_layer(model: Phi3) -> None:
    """Token 2 is masked: `exclude` keeps it from all later tokens, `multiply` does not."""
    tokens = np.repeat(tokens_like(1, 7), 2, axis=0)
    tokens[1, 2] += 1 if tokens[0, 2] < 60 else -1
    mask = np.repeat(np.arange(7)[None] != 2, 2, axis=0)
    rules: tuple[Rule, ...] = ("exclude", "multiply", "none")
    exclude, multiply, none = (
        run(model, tokens, np.ones_like(tokens), None, mask, rule=rule)[:, 3:] for rule in rules
    )
    assert_close(exclude[0], exclude[1], 1e-6)
    assert np.abs(multiply[0] - multiply[1]).max() > 1e-2
    assert np.abs(none[0] - multiply[0]).max() > 1e-2


def test_padding_has_no_gradient(model: Phi3) -> None:
    """Whatever stands in the padding, the gradient of the others' loss is the same and finite."""
    segments = jnp.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    graph, state = nnx.split(model)

    def loss(state: Any, tokens: jax.Array) -> jax.Array:
        logits = nnx.merge(graph, state)(tokens, segments, None, segments > 0, "exclude")
        return jnp.sum(jnp.where(segments[..., None] > 0, jnp.square(logits), 0.0))

    tokens = jnp.asarray(tokens_like(2, 5))
    gradient = jax.jit(jax.grad(loss)).lower(state, tokens).compile(QUICKLY)
    first = gradient(state, tokens)
    changed = jnp.where(segments > 0, tokens, 60)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(gradient(state, changed)), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def test_remat_saves_memory_and_changes_no_gradient(random_model: Callable[..., Phi3]) -> None:
    tokens = jnp.asarray(tokens_like(3, 44))
    results: dict[Remat, tuple[int, Any]] = {}
    for remat in ("none", "dots", "full", "offload"):
        model = random_model(CONFIG, remat=remat)
        graph, state = nnx.split(model)

        def loss(state: Any, graph: Any = graph) -> jax.Array:
            return jnp.sum(nnx.merge(graph, state).hidden(tokens, jnp.ones_like(tokens)) ** 3)

        compiled = jax.jit(jax.grad(loss)).lower(state).compile(QUICKLY)
        memory = compiled.memory_analysis()
        assert memory is not None
        results[remat] = (memory.temp_size_in_bytes, compiled(state))
    assert results["full"][0] < results["dots"][0] < results["none"][0]
    for remat in ("dots", "full", "offload"):
        pairs = zip(*(jax.tree.leaves(results[r][1]) for r in ("none", remat)), strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_attention_is_computed_as_the_model_was_told(random_model: Callable[..., Phi3]) -> None:
    tokens, segments = jnp.asarray(tokens_like(2, 13)), jnp.array([[1] * 9 + [2] * 4] * 2)
    results = {}
    for attention in ("dense", "blockwise"):
        graph, state = nnx.split(random_model(CONFIG, attention=attention))
        lowered = jax.jit(
            lambda state, graph=graph: nnx.merge(graph, state).hidden(tokens, segments)
        )
        lowered = lowered.lower(state)
        # Over layers there is a loop in any case; by blocks there are loops in it.
        results[attention] = lowered.as_text().count("stablehlo.while"), lowered.compile()(state)
    assert results["blockwise"][0] > results["dense"][0] == 1
    np.testing.assert_allclose(results["blockwise"][1], results["dense"][1], rtol=0, atol=1e-5)


def test_hidden_states_are_those_of_shallower_models(model: Phi3, random_model: Any) -> None:
    """Of packed rows with masked keys: after l blocks stands what a model of l blocks has."""
    tokens, mask = tokens_like(2, 9), np.random.default_rng(2).random((2, 9)) < 0.6
    segments = np.array([[1] * 6 + [2] * 3, [1] * 4 + [2] * 2 + [0] * 3])
    graph, state = nnx.split(model)
    arrays = (jnp.asarray(tokens), jnp.asarray(segments), None, jnp.asarray(mask))
    every = jax.jit(lambda state: nnx.merge(graph, state).hidden_states(*arrays, rule="exclude"))
    states = every.lower(state).compile(QUICKLY)(state)
    assert (states.shape, states.dtype) == ((4, 2, 9, 30), jnp.float32)
    np.testing.assert_array_equal(states[0], np.asarray(model.embed_tokens.weight[...])[tokens])
    parameters = nnx.to_flat_state(state)
    for depth in (1, 3):
        shallow = random_model(replace(CONFIG, num_hidden_layers=depth))
        first = [
            (path, leaf.replace(leaf[...][:depth]) if path[0] == "layers" else leaf)
            for path, leaf in parameters
        ]
        nnx.update(shallow, nnx.from_flat_state(first))
        graph_of_it, its_state = nnx.split(shallow)
        hidden = jax.jit(
            lambda state, graph=graph_of_it: nnx.merge(graph, state).hidden(*arrays, rule="exclude")
        )
        want = np.asarray(hidden.lower(its_state).compile(QUICKLY)(its_state))
        got = states[depth] if depth == 3 else model.norm(states[depth])
        assert_close(np.asarray(got), want, 1e-6)


def test_a_loss_on_hidden_states_has_the_same_gradient_under_remat(random_model: Any) -> None:
    tokens = jnp.asarray(tokens_like(2, 7))
    gradients = []
    for remat in ("none", "full"):
        graph, state = nnx.split(random_model(CONFIG, remat=remat))

        def loss(state: Any, graph: Any = graph) -> jax.Array:
            states = nnx.merge(graph, state).hidden_states(tokens, jnp.ones_like(tokens))
            return jnp.sum(jnp.mean(states**3, axis=(1, 2, 3)))  # each layer bears on it

        gradients.append(jax.jit(jax.grad(loss)).lower(state).compile(QUICKLY)(state))
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    without = {path for path, g in nnx.to_flat_state(gradients[0]) if not np.any(g[...])}
    assert without == {("lm_head", "weight")}, "only the head stands after all states"


@pytest.mark.parametrize("remat", ["none", "full"])
def test_some_hidden_states_are_those_of_all_and_none_else_is_kept(
    random_model: Any, remat: str
) -> None:
    tokens, layers = jnp.asarray(tokens_like(2, 7)), (2, 3, 1, 2)
    graph, state = nnx.split(random_model(CONFIG, remat=remat))

    def states(state: Any, layers: Any) -> jax.Array:
        all_or_some = nnx.merge(graph, state).hidden_states(
            tokens, jnp.ones_like(tokens), layers=layers
        )
        return all_or_some if layers else all_or_some[jnp.array((2, 3, 1, 2))]

    found, expected = (
        jax.jit(lambda s, of=of: jax.value_and_grad(lambda s: jnp.sum(states(s, of) ** 3))(s))
        .lower(state)
        .compile(QUICKLY)(state)
        for of in (layers, None)
    )
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b).max())


def test_some_hidden_states_cost_memory_that_does_not_grow_with_the_depth(
    random_model: Any,
) -> None:
    tokens = jnp.asarray(tokens_like(2, 9))

    def cost(depth: int) -> int:
        config = replace(CONFIG, num_hidden_layers=depth)
        graph, state = nnx.split(random_model(config, remat="full"))

        def needs(layers: Any) -> int:
            def loss(state: Any) -> jax.Array:
                model = nnx.merge(graph, state)
                return jnp.sum(
                    model.hidden_states(tokens, jnp.ones_like(tokens), layers=layers) ** 3
                )

            program = jax.jit(jax.grad(loss)).lower(state).compile()
            memory = program.memory_analysis()
            assert memory is not None
            return memory.temp_size_in_bytes

        return needs((1, 3, depth)) - needs((depth,))

    one = 2 * 9 * CONFIG.hidden_size * 4
    assert cost(24) - cost(8) < 2 * one


def test_compute_in_bfloat16_with_parameters_in_float32(
    model: Phi3, random_model: Callable[..., Phi3]
) -> None:
    tokens = jnp.asarray(tokens_like(1, 7))
    half = random_model(CONFIG, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half))} == {jnp.dtype(jnp.float32)}
    hidden = jax.jit(lambda t: half.hidden(t, jnp.ones_like(t)))(tokens)
    assert hidden.dtype == jnp.bfloat16
    logits = half.logits(hidden)
    assert logits.dtype == jnp.float32
    assert_close(np.asarray(logits), run(model, tokens, jnp.ones_like(tokens)), 0.05)
    stored = nnx.eval_shape(lambda: Phi3(CONFIG, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(stored))} == {jnp.dtype(jnp.bfloat16)}


def test_the_head_multiplies_any_rows(model: Phi3) -> None:
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(5, 30)), jnp.float32)
    assert model.lm_head is not None
    want = np.asarray(rows) @ np.asarray(model.lm_head.weight[...]).T
    np.testing.assert_allclose(model.logits(rows), want, rtol=1e-5, atol=1e-5)


def test_parameter_paths_are_those_of_the_checkpoint(model: Phi3) -> None:
    shapes = {
        ".".join(map(str, path)): parameter.shape
        for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    assert shapes == {
        "embed_tokens.weight": (61, 30),
        "layers.input_layernorm.weight": (3, 30),
        "layers.self_attn.qkv_proj.weight": (3, (3 + 2 * 1) * 10, 30),
        "layers.self_attn.o_proj.weight": (3, 30, 30),
        "layers.post_attention_layernorm.weight": (3, 30),
        "layers.mlp.gate_up_proj.weight": (3, 46, 30),
        "layers.mlp.down_proj.weight": (3, 30, 23),
        "norm.weight": (30,),
        "lm_head.weight": (61, 30),
    }


def test_errors(model: Phi3) -> None:
    row = jnp.ones((1, 45), jnp.int32)
    with pytest.raises(ConfigError, match="a row of 45 tokens is more than max_position_embed"):
        model.hidden(row, row)
    with pytest.raises(ConfigError, match="needs a key_mask"):
        model.hidden(row[:, :5], row[:, :5], rule="multiply")
    assert np.isnan(run(model, np.array([[61]]), np.array([[1]]))).all(), (
        "an id outside the vocabulary must not pass for another"
    )


def test_layers_run_in_one_scan(model: Phi3) -> None:
    """One traced block whatever the depth: what keeps compile time flat in the number of layers."""
    row = jnp.ones((1, 3), jnp.int32)
    graph, state = nnx.split(model)
    jaxpr = str(jax.make_jaxpr(lambda state: nnx.merge(graph, state).hidden(row, row))(state))
    assert jaxpr.count("scan[") == 1
    assert "length=3" in jaxpr


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_blocks_one_after_another_are_the_loop(random_model: Any, remat: Remat) -> None:
    tokens, found = jnp.asarray(tokens_like(2, 7)), []
    for unroll in (False, True):
        graph, state = nnx.split(random_model(CONFIG, remat=remat, unroll=unroll))

        def loss(state: Any, graph: Any = graph) -> jax.Array:
            return jnp.mean(nnx.merge(graph, state)(tokens, jnp.ones_like(tokens)) ** 2)

        lowered = jax.jit(jax.value_and_grad(loss)).lower(state)
        assert ("stablehlo.while" in lowered.as_text()) is not unroll
        found.append(lowered.compile(QUICKLY)(state))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_gradient_through_the_head_multiplies_in_its_dtype(random_model: Any) -> None:
    """In float32 that of the formula; in bfloat16 no product has a float32 operand."""

    def gradients(model: Phi3, logits: Any, hidden: jax.Array) -> Any:
        graph, state = nnx.split(model)

        def loss(state: Any, hidden: jax.Array) -> jax.Array:
            return jnp.mean(jnp.sin(logits(nnx.merge(graph, state), hidden)))

        return jax.jit(jax.grad(loss, (0, 1))), state

    def formula(model: Phi3, hidden: jax.Array) -> jax.Array:
        assert model.lm_head is not None
        return hidden @ model.lm_head.weight[...].T

    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(4, 30)), jnp.float32)
    model = random_model(CONFIG)
    (written, state), (automatic, _) = (
        gradients(model, how, hidden) for how in (Phi3.logits, formula)
    )
    for a, b in zip(
        *(jax.tree.leaves(f(state, hidden)) for f in (written, automatic)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    half, state = gradients(random_model(CONFIG, dtype=jnp.bfloat16), Phi3.logits, hidden)
    dots = [x for x in half.lower(state, hidden).as_text().splitlines() if "dot_general" in x]
    assert len(dots) == 3
    operands = [line.partition(" : (")[2].partition(")")[0] for line in dots]
    assert all(x.count("bf16") == 2 for x in operands), operands
