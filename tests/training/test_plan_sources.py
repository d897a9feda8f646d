"""What a plan is for, from settings and from what is there of models and data."""

from typing import Any

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config, published
from opengrok_jax.training import plan_sources
from opengrok_jax.training.objective import Objective
from opengrok_jax.training.plan import _defaults

GIVEN: dict[str, Any] = _defaults() | {
    "init": "",
    "model": {},
    "mesh": {},
    "learning_rate": 1e-5,
    "eval_every": 0,
    "patience": 0,
    "save_every": 0,
}


def read(model="phi-3-mini-4k", teacher="", masked_file=None, k=0, **changes):
    told = {"model": model, "teacher": teacher, "masked_file": masked_file, "k": k}
    return plan_sources.read(GIVEN | changes, **told)


def test_the_reports_setting_by_name():
    found = read()
    assert found == (published("phi-3-mini-4k"), None, Objective(), 0, None, "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_teachers_folder_says_what_it_is_stored_in(tmp_path, dtype):
    config = Phi3Config.tiny(32064, num_hidden_layers=3)
    (tmp_path / "config.json").write_text(hf_config.write(config, dtype))
    given = GIVEN | {"distill": {"relation_weight": 1.0}, "teacher": str(tmp_path)}
    told: Any = {"model": "phi-3-mini-4k", "teacher": "", "masked_file": None, "k": 0}
    found = plan_sources.read(given, **told)
    assert found.teacher is not None
    assert (found.teacher.num_hidden_layers, found.teacher_dtype) == (3, dtype)


def test_sizes_from_the_data(masked_file):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    given, told = GIVEN | {"init": "scratch", "model": sizes}, {"model": "", "teacher": "", "k": 0}
    found = plan_sources.read(given, **told, masked_file=masked_file)
    assert found.config.vocab_size == 64
    with pytest.raises(ConfigError, match="vocabulary comes from the data"):
        plan_sources.read(given, **told, masked_file=None)


def test_every_parameter_must_divide():
    sizes = {"data": 1, "fsdp": 3, "tensor": 1}
    plan_sources.check_parameters(read(), sizes)
    small = Phi3Config.tiny(32064, hidden_size=32)
    beside = read()._replace(teacher=small)
    with pytest.raises(ConfigError, match="axis 'embed' of 32 does not divide by fsdp = 3"):
        plan_sources.check_parameters(beside, sizes)
