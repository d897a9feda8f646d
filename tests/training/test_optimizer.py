from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.training.optimizer import B1, B2, EPS, decayed, make_optimizer, schedule


def rates(steps, **given):
    rate = schedule(steps=steps, **given)
    return np.array([rate(n) for n in range(steps)]).tolist()


def test_schedule_is_the_drawing():
    found = rates(6, learning_rate=1.0, warmup_share=1 / 3)
    assert [round(x, 2) for x in found] == [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]


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
