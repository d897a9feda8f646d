from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax.tree_utils import tree_get

from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.training.optimizer import (
    B1,
    B2,
    EPS,
    KEPT_IN_BFLOAT16,
    decayed,
    make_optimizer,
    schedule,
)

STEPS = 6  # of `some_updates`


def rates(steps, **given):
    rate = schedule(steps=steps, **given)
    return np.array([rate(n) for n in range(steps)]).tolist()


@pytest.mark.parametrize(
    ("shape", "final_share", "falls"),
    [
        ("cosine", 0.0, [1.0, 0.85, 0.5, 0.15]),
        ("linear", 0.0, [1.0, 0.75, 0.5, 0.25]),
        ("linear", 0.4, [1.0, 0.85, 0.7, 0.55]),
        ("constant", 0.0, [1.0, 1.0, 1.0, 1.0]),
        ("cosine", 0.5, [1.0, 0.93, 0.75, 0.57]),
    ],
)
def test_schedule_is_the_drawing(shape, final_share, falls):
    found = rates(6, learning_rate=1.0, warmup_share=1 / 3, shape=shape, final_share=final_share)
    np.testing.assert_allclose(found, [0.5, 1.0, *falls], atol=5e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("warmup_share", [0.0, 0.05, 0.5, 0.999])
def test_no_update_is_wasted(steps, warmup_share):
    found = rates(steps, learning_rate=0.3, warmup_share=warmup_share)
    assert min(found) > 0
    assert max(found) == pytest.approx(0.3)


def test_one_update_is_adamw():
    """By hand: clip to norm 1, bias-corrected moments, decay on the matrix and not on the norm."""
    params = {
        "mlp": {"weight": jnp.asarray([[1.0, -2.0]])},
        "input_layernorm": {"weight": jnp.ones((3, 2))},
    }
    grads = {
        "mlp": {"weight": jnp.asarray([[3.0, -4.0]])},
        "input_layernorm": {"weight": jnp.zeros((3, 2))},
    }
    optimizer = make_optimizer(rate=optax.constant_schedule(0.1), weight_decay=0.5, clip_norm=1.0)
    updates: Any = optimizer.update(grads, optimizer.init(params), params)[0]
    clipped = np.array([[0.6, -0.8]])
    m = (1 - B1) * clipped / (1 - B1)
    v = (1 - B2) * clipped**2 / (1 - B2)
    expected = -0.1 * (m / (np.sqrt(v) + EPS) + 0.5 * np.array([[1.0, -2.0]]))
    np.testing.assert_allclose(updates["mlp"]["weight"], expected, rtol=1e-5)
    assert not np.asarray(updates["input_layernorm"]["weight"]).any()


def some_updates():
    """A matrix and a norm, and gradients of them: small ones, and such as are clipped."""
    rng = np.random.default_rng(0)
    shapes = {"mlp": (3, 5), "norm": (7,)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    grads = [
        {name: (size * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
        for size in np.geomspace(0.01, 10, STEPS)
    ]
    return params, grads


GIVEN: Any = {"weight_decay": 0.3, "clip_norm": 0.8, "b1": 0.8, "b2": 0.97, "eps": 1e-3}


def descended(optimizer, params, grads):
    """The parameters after each update."""
    params = jax.tree.map(jnp.asarray, params)
    state, path = optimizer.init(params), []
    for gradient in grads:
        changes, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, changes)
        path.append(params)
    return path, state


def test_updates_are_those_of_torch():
    """Its AdamW and gradient clipping, with a group that decays and one that does not."""
    torch = pytest.importorskip("torch", reason="parity needs torch")
    params, grads = some_updates()
    rate = schedule(learning_rate=0.1, steps=STEPS, warmup_share=0.4, shape="linear")
    ours, _ = descended(make_optimizer(rate=rate, **GIVEN), params, grads)
    theirs = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in params.items()}
    adamw = torch.optim.AdamW(
        [
            {"params": [theirs["mlp"]], "weight_decay": GIVEN["weight_decay"]},
            {"params": [theirs["norm"]], "weight_decay": 0.0},
        ],
        betas=(GIVEN["b1"], GIVEN["b2"]),
        eps=GIVEN["eps"],
    )
    for step, gradient in enumerate(grads):
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(gradient[name])
        torch.nn.utils.clip_grad_norm_(theirs.values(), GIVEN["clip_norm"])
        for group in adamw.param_groups:
            group["lr"] = float(np.asarray(rate(step)))
        adamw.step()
        for name, parameter in theirs.items():
            found = np.asarray(ours[step][name])
            np.testing.assert_allclose(found, parameter.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_updates_are_those_of_optax():
    params, grads = some_updates()
    rate = schedule(learning_rate=0.1, steps=STEPS, warmup_share=0.4, final_share=0.2)
    ours, _ = descended(make_optimizer(rate=rate, **GIVEN), params, grads)
    how = {name: GIVEN[name] for name in ("b1", "b2", "eps", "weight_decay")}
    plain = optax.adamw(rate, mask={"mlp": True, "norm": False}, **how)
    clip = optax.clip_by_global_norm(GIVEN["clip_norm"])
    theirs, _ = descended(plain, params, [clip.update(g, clip.init(params))[0] for g in grads])
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_moments_in_bfloat16_are_float32_ones_rounded_after_each_update():
    """In NumPy, with ml_dtypes' rounding; no more than 4 % of a step from float32 moments."""
    params, grads = some_updates()
    grads = [{"mlp": g["mlp"] / 100} for g in grads]  # none is clipped
    params, rate = {"mlp": params["mlp"]}, 0.1
    given = GIVEN | {"rate": optax.constant_schedule(rate), "weight_decay": 0.0, "b2": 0.95}
    half, state = descended(make_optimizer(**given, moments_dtype="bfloat16"), params, grads)
    moments = [x for x in jax.tree.leaves(state) if x.shape]
    assert [str(x.dtype) for x in moments] == ["bfloat16", "bfloat16"]

    def rounded(x):
        return x.astype(jnp.bfloat16).astype(np.float64)

    x, m, v = params["mlp"].astype(np.float64), np.zeros((3, 5)), np.zeros((3, 5))
    for step, gradient in enumerate(grads, start=1):
        g = gradient["mlp"].astype(np.float64)
        m = GIVEN["b1"] * m + (1 - GIVEN["b1"]) * g
        v = 0.95 * v + 0.05 * g**2
        x -= rate * (m / (1 - GIVEN["b1"] ** step)) / (np.sqrt(v / (1 - 0.95**step)) + GIVEN["eps"])
        m, v = rounded(m), rounded(v)
        np.testing.assert_allclose(half[step - 1]["mlp"], x, rtol=1e-5, atol=1e-6)
    for found, expected in zip(moments, (m, v), strict=True):
        np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-7)
    whole, _ = descended(make_optimizer(**given), params, grads)
    apart = np.abs(np.asarray(half[-1]["mlp"] - whole[-1]["mlp"])).max()
    assert 0 < apart < 0.04 * rate * STEPS


@pytest.mark.parametrize(("b2", "decays"), [(0.95, True), (0.995, True), (0.998, False)])
def test_a_second_moment_that_keeps_too_much_of_itself_never_decays_in_bfloat16(b2, decays):
    """What `settings.check` refuses: after one large gradient, nothing but zeros."""
    assert decays == (b2 < KEPT_IN_BFLOAT16)
    given = GIVEN | {"rate": optax.constant_schedule(0.1), "b2": b2, "clip_norm": 1e6}
    optimizer = make_optimizer(**given, moments_dtype="bfloat16")
    params = {"mlp": jnp.ones(64)}
    large = {"mlp": jnp.asarray(np.random.default_rng(0).uniform(1, 100, 64), jnp.float32)}
    _, state = optimizer.update(large, optimizer.init(params), params)
    before = np.asarray(tree_get(state, "nu")["mlp"], np.float64)
    nothing = jax.tree.map(jnp.zeros_like, large)
    for _ in range(20):
        _, state = optimizer.update(nothing, state, params)
    after = np.asarray(tree_get(state, "nu")["mlp"], np.float64)
    assert (after < before).all() == decays


def test_norms_and_only_norms_are_spared(tiny):
    params = nnx.state(nnx.eval_shape(lambda: Phi3(tiny, rngs=nnx.Rngs(0))), nnx.Param)
    spared = {
        ".".join(str(getattr(k, "key", "")) for k in path).strip(".")
        for path, is_decayed in jax.tree_util.tree_leaves_with_path(decayed(params))
        if not is_decayed
    }
    assert spared == {
        "norm.weight",
        "layers.input_layernorm.weight",
        "layers.post_attention_layernorm.weight",
    }
