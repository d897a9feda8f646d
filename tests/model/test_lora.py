"""Adapters against torch, against the weights they add up to, and in PEFT's files."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import CheckpointError
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.lora import ADAPTERS, BASE, TARGETS, adapt, merged, save_adapter
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.weights import load_hf, save_hf

TOKENS = np.random.default_rng(0).integers(0, 61, (2, 9)).astype(np.int32)
SEGMENTS = np.ones_like(TOKENS)
RANK, ALPHA = 3, 5.0  # the scale 5/3 is no power of two


@nnx.jit
def logits(model: Phi3) -> Any:
    return model(jnp.asarray(TOKENS), jnp.asarray(SEGMENTS))


def adapted(model: Phi3, targets: Any = TARGETS, *, rank: int = RANK, new: bool = False) -> Phi3:
    """The model with adapters that have learnt something, or with `new` ones."""

    def make() -> Phi3:
        other = Phi3(model.config, rngs=nnx.Rngs(0))
        return adapt(other, rank=rank, alpha=ALPHA, targets=targets, rngs=nnx.Rngs(1))

    abstract, rng = nnx.eval_shape(make), np.random.default_rng(2)
    learnt = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(0, 0.3, p.shape), p.dtype), nnx.state(abstract, ADAPTERS)
    )
    state = jax.jit(lambda: nnx.state(make(), ADAPTERS))() if new else learnt
    return nnx.merge(nnx.graphdef(abstract), state, nnx.state(model, nnx.Param))


def matrices(model: Phi3) -> dict[str, tuple[Any, ...]]:
    """Name in a block -> W, A, B of each layer, as NumPy copies in float64."""
    block = model.layers
    named = {
        "self_attn.qkv_proj": block.self_attn.qkv_proj,
        "self_attn.o_proj": block.self_attn.o_proj,
        "mlp.gate_up_proj": block.mlp.gate_up_proj,
        "mlp.down_proj": block.mlp.down_proj,
    }
    return {
        name: tuple(
            np.array(x[...].astype(jnp.float32), np.float64)
            for x in (p.weight, p.lora.A, p.lora.B)  # type: ignore[union-attr]
        )
        for name, p in named.items()
        if p.lora is not None
    }


@pytest.fixture
def model(random_model, small) -> Phi3:
    fields = {k: v for k, v in small.items() if k in Phi3Config.__dataclass_fields__}
    return random_model(Phi3Config(**fields))


def test_new_adapters_change_nothing(model):
    before = logits(model)
    np.testing.assert_array_equal(logits(adapted(model, new=True)), before)


def test_a_is_drawn_as_kaiming_does_and_b_is_zero(random_model):
    model = random_model(Phi3Config.tiny(61, num_hidden_layers=3))
    for name, (w, a, b) in matrices(adapted(model, rank=16, new=True)).items():
        bound = 1 / np.sqrt(w.shape[-1])
        assert 0.98 * bound < np.abs(a).max() <= bound, name
        assert np.std(a) == pytest.approx(bound / np.sqrt(3), rel=0.03)
        assert len({float(layer.sum()) for layer in a}) == 3, "each layer draws its own"
        assert not b.any()


@pytest.mark.parametrize("targets", [TARGETS, ("qkv_proj",), ("down_proj", "o_proj")])
def test_only_the_targets_get_adapters(model, targets):
    with_adapters = adapted(model, targets)
    found = matrices(with_adapters)
    assert {name.split(".")[1] for name in found} == set(targets)
    trained = sum(p.size for p in jax.tree.leaves(nnx.state(with_adapters, ADAPTERS)))
    assert trained == sum(3 * RANK * (w.shape[1] + w.shape[2]) for w, _, _ in found.values())


class Torch:
    """The same adapters on a Phi3ForCausalLM of transformers: hooks add alpha/r (x A^T) B^T."""

    def __init__(self, model: Any, adapters: dict[str, tuple[Any, ...]]):
        torch = pytest.importorskip("torch")
        self.torch, self.model, self.parts = torch, model, {}
        for name, (_, a, b) in adapters.items():
            for layer in range(len(a)):
                part = [
                    torch.tensor(x[layer], dtype=torch.float32).requires_grad_() for x in (a, b)
                ]
                self.parts[name, layer] = part
                module = model.model.layers[layer].get_submodule(name)
                module.register_forward_hook(
                    lambda _, given, y, part=part: (
                        y + ALPHA / RANK * (given[0] @ part[0].T) @ part[1].T
                    )
                )

    def run(self, weight: Any) -> tuple[Any, dict[str, list[Any]]]:
        """Logits, and the gradient of their weighted sum by A and B, stacked over layers."""
        found = self.model(self.torch.tensor(TOKENS).long(), use_cache=False).logits
        (found * self.torch.tensor(weight)).sum().backward()
        names = dict.fromkeys(name for name, _ in self.parts)
        stacked = {
            name: [
                np.stack([p[k].grad.numpy() for (n, _), p in self.parts.items() if n == name])
                for k in (0, 1)
            ]
            for name in names
        }
        return found.detach().numpy(), stacked


def test_logits_and_gradients_are_those_of_torch(hf_model, hf_folder):
    oracle = hf_model()
    model = adapted(load_hf(hf_folder(oracle)))
    weight = np.random.default_rng(3).normal(size=(2, 9, 61)).astype(np.float32)
    want, gradients = Torch(oracle, matrices(model)).run(weight)
    graph, base = nnx.graphdef(model), nnx.state(model, BASE)

    def total(adapters: Any) -> Any:
        found = nnx.merge(graph, adapters, base)(jnp.asarray(TOKENS), jnp.asarray(SEGMENTS))
        return (found * weight).sum(), found

    found, got = jax.jit(jax.grad(total, has_aux=True))(nnx.state(model, ADAPTERS))[::-1]
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())
    compared = 0
    for name, of_torch in gradients.items():
        room, projection = name.split(".")
        for part, expected in zip("AB", of_torch, strict=True):
            ours = np.asarray(got["layers"][room][projection]["lora"][part][...])
            np.testing.assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())
            compared += 1
    assert compared == 8


def test_merged_weights_compute_the_same_and_transformers_reads_them(
    model, hf_logits, tmp_path, small
):
    transformers = pytest.importorskip("transformers")
    with_adapters = adapted(model, ("qkv_proj", "down_proj"))
    want, before = logits(with_adapters), matrices(with_adapters)
    others = np.array(with_adapters.layers.mlp.gate_up_proj.weight[...])
    plain = merged(with_adapters)
    assert not jax.tree.leaves(nnx.state(plain, ADAPTERS))
    np.testing.assert_allclose(logits(plain), want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_array_equal(plain.layers.mlp.gate_up_proj.weight[...], others)
    w, a, b = before["mlp.down_proj"]
    np.testing.assert_allclose(
        plain.layers.mlp.down_proj.weight[...], w + 5 / 3 * b @ a, rtol=2e-6, atol=2e-6
    )
    save_hf(plain, plain.config, tmp_path / "hf")
    reread = transformers.Phi3ForCausalLM.from_pretrained(
        tmp_path / "hf", attn_implementation="eager"
    )
    found = hf_logits(reread.eval(), TOKENS)
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())


def test_merging_into_bfloat16_rounds_once(random_model):
    model = random_model(Phi3Config.tiny(61, num_hidden_layers=2), param_dtype=jnp.bfloat16)
    with_adapters = adapted(model, ("o_proj",))
    assert {str(p.dtype) for p in jax.tree.leaves(nnx.state(with_adapters, ADAPTERS))} == {
        "float32"
    }
    w, a, b = matrices(with_adapters)["self_attn.o_proj"]
    weight = merged(with_adapters).layers.self_attn.o_proj.weight[...]
    assert weight.dtype == jnp.bfloat16
    exact = w + 5 / 3 * b @ a
    error = np.abs(np.asarray(weight, np.float64) - exact)
    assert (error <= 2.0**-8 * np.abs(exact) + 1e-6).all(), "8 significant bits, rounded to nearest"


def test_the_adapter_is_written_as_peft_names_it(model, tmp_path):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    with_adapters = adapted(model, ("down_proj", "qkv_proj"))
    for _ in range(2):  # the second takes the first one's place
        save_adapter(tmp_path / "adapter", with_adapters, "microsoft/some-phi-3")
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 3 * 2 * 2
    _, a, b = matrices(with_adapters)["self_attn.qkv_proj"]
    name = "base_model.model.model.layers.2.self_attn.qkv_proj.lora_{}.weight"
    np.testing.assert_array_equal(tensors[name.format("A")], a[2])
    np.testing.assert_array_equal(tensors[name.format("B")], b[2])
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "microsoft/some-phi-3"
    assert (config["r"], config["lora_alpha"]) == (RANK, pytest.approx(ALPHA))
    assert config["target_modules"] == ["qkv_proj", "down_proj"]


def test_other_folders_are_left_alone(model, tmp_path):
    (tmp_path / "mine").write_text("a thesis")
    with pytest.raises(CheckpointError, match="holds something else"):
        save_adapter(tmp_path, adapted(model), "base")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
