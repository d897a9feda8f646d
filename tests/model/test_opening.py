"""Either kind of folder gives the same model, on one device and spread over eight."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import CheckpointError
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.opening import is_student, open_model
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import DIGESTS, save_student
from opengrok_jax.model.weights import save_hf
from tests.together import together

CONFIG = Phi3Config.tiny(64, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip


@pytest.fixture(scope="module")
def model(random_model: Callable[..., Phi3]) -> Phi3:
    return random_model(CONFIG)


@pytest.fixture(scope="module", params=["student", "hf"])
def folder(
    request: pytest.FixtureRequest, model: Phi3, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("opening") / request.param
    (save_student if request.param == "student" else _save_hf)(folder, model, CONFIG)
    assert is_student(folder) == (request.param == "student")
    return folder


def _save_hf(folder: Path, model: Phi3, config: Phi3Config) -> None:
    save_hf(model, config, folder)


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_either_kind_is_opened(folder: Path, model: Phi3, dtype: Any) -> None:
    found = nnx.state(open_model(folder, dtype), nnx.Param)
    wanted = jax.tree.map(lambda a: a.astype(dtype or a.dtype), nnx.state(model, nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert {a.dtype for a in jax.tree.leaves(found)} == {jnp.dtype(dtype or jnp.float32)}


def test_either_kind_is_spread_over_a_mesh(folder: Path) -> None:
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        import jax, numpy as np
        from flax import nnx
        from opengrok_jax.model.opening import open_model
        from opengrok_jax.model.sharding import make_mesh, parameter_shardings

        mesh = make_mesh(data=1, fsdp=4, tensor=2)
        folder = Path(sys.argv[1])
        alone = nnx.state(open_model(folder), nnx.Param)
        with jax.set_mesh(mesh):
            model = open_model(folder, "bfloat16", mesh=mesh)
            wanted = nnx.to_pure_dict(parameter_shardings(nnx.eval_shape(lambda: model), mesh))
            spread = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        halves = jax.tree.map(lambda a: a.astype("bfloat16"), nnx.to_pure_dict(alone))
        jax.tree.map(np.testing.assert_array_equal, spread, halves)
        same = jax.tree.map(lambda a, s: a.sharding.is_equivalent_to(s, a.ndim), spread, wanted)
        assert all(jax.tree.leaves(same)), same
        print(max(len({str(s.index) for s in a.addressable_shards}) for a in jax.tree.leaves(spread)))
    """)
    (said,) = together(code, str(folder), count=1, devices=8)
    assert int(said) == 8


def test_no_model_is_said(folder: Path, tmp_path: Path) -> None:
    for name in (tmp_path / "nothing", tmp_path):
        with pytest.raises(CheckpointError, match=r"holds no model: config\.json is missing"):
            open_model(name)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="pickled weights"):
        open_model(tmp_path)
    (tmp_path / DIGESTS).write_text("{}")
    with pytest.raises(CheckpointError, match="params is missing"):
        open_model(tmp_path)
