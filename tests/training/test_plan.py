"""Plans, from the settings of a run to hours and money."""

import json

import pytest

from opengrok_jax.errors import ConfigError, MissingExtra
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import published
from opengrok_jax.soft_file import finish, write_part
from opengrok_jax.training import plan, plan_analytic, plan_compile
from opengrok_jax.training.flops import train_flops
from opengrok_jax.training.plan_analytic import Parts, Work

TRAINING = {
    "init": "",
    "model": {},
    "row_tokens": 2048,
    "rows_per_batch": 32,
    "microbatches": 2,
    "epochs": 3.0,
    "learning_rate": 1e-5,
    "eval_every": 20,
    "patience": 5,
    "save_every": 100,
    "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
    "remat": "full",
    "dtype": "bfloat16",
}


def make(*, chips="v5e:4x4", model="phi-3-mini-4k", analytic=True, training=None, **told):
    section = TRAINING | (training or {})
    return plan.run(training=section, chips=chips, model=model, analytic=analytic, **told)


@pytest.fixture(scope="module")
def phi3():
    return make(rows=1600, price=1.25)


def test_is_labelled_and_goes_into_json(phi3):
    assert phi3["basis"] == "analytic"
    assert phi3["meaning"].startswith("analytic, not compiled")
    assert json.loads(json.dumps(phi3)) == phi3
    assert set(phi3) == {
        *("basis", "meaning", "slice", "model", "step", "fits", "memory", "largest", "flops"),
        *("collectives", "estimated_cycles", "seconds_at_peak", "efficiency", "step_seconds"),
        *("tokens_per_second", "data", "hours", "price_per_chip_hour", "money", "versions"),
        "compile_seconds",
    }


def test_hours_and_money_by_hand(phi3):
    assert phi3["data"] == {"source": "1600 rows", "rows": 1600, "steps": 150}
    assert phi3["step_seconds"] == max(phi3["seconds_at_peak"].values()) / 0.5
    assert phi3["hours"] == pytest.approx(150 * phi3["step_seconds"] / 3600)
    assert phi3["money"] == pytest.approx(phi3["hours"] * 16 * 1.25)
    assert phi3["tokens_per_second"] == pytest.approx(32 * 2048 / phi3["step_seconds"])


def test_counts_the_update_of_the_config(phi3):
    work = Work(
        config=published("phi-3-mini-4k"),
        parts=Parts(1, 16, 1),
        rows=1,
        row_tokens=2048,
        microbatches=2,
        loss_share=1.0,
        remat="full",
        dtype="bfloat16",
        param_dtype="float32",
    )
    assert phi3["flops"]["model"] == train_flops(work.config, work.load())
    assert phi3["step"]["mesh"] == {"data": 1, "fsdp": 16, "tensor": 1}
    assert phi3["memory"]["optimizer"] == plan_analytic.memory(work)["optimizer"]


def test_the_largest_microbatch_fits_and_one_more_does_not(phi3):
    found = phi3["largest"]
    assert found["too_many"] == found["rows_per_device"] + 1
    tried = found["tried"]
    assert tried[str(found["rows_per_device"])]["fits"]
    assert not tried[str(found["too_many"])]["fits"]
    assert tried[str(found["too_many"])]["bytes"] > phi3["slice"]["hbm_bytes"]


def test_offload_makes_room(phi3):
    found = make(training={"remat": "offload"})
    assert found["largest"]["rows_per_device"] > phi3["largest"]["rows_per_device"]
    assert found["hours"] is found["money"] is None


def test_a_gpu_is_counted_by_hand():
    more = {"rows_per_batch": 64}  # weights, moments and gradients alone are 57 GiB
    found = make(chips="h100:1", analytic=False, search=False, training=more)
    assert found["basis"] == "analytic"
    assert not found["fits"]
    assert found["largest"]["rows_per_device"] is None


def test_a_chip_of_two_devices():
    found = make(chips="tpu7x:2x2x2", training={"rows_per_batch": 32})
    assert (found["slice"]["chips"], found["slice"]["devices"]) == (8, 16)
    assert found["slice"]["hbm_bytes"] == 96 * 2**30


def test_data_as_the_run_would_pack_it(settings, masked_file):
    section = {k: v for k, v in settings.items() if k != "masked_file"}
    section |= {"rows_per_batch": 8, "mesh": {"data": 1, "fsdp": -1, "tensor": 1}}
    found = plan.run(training=section, chips="v5e:2x2", masked_file=masked_file, analytic=True)
    assert found["data"]["steps"] == 30  # max_steps
    assert found["model"]["layers"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chips": "v7:2x2"}, "'v7' is unknown"),
        ({"chips": "v5e:3x3"}, "no such v5e slice"),
        ({"chips": "v5e:8x8"}, "rows_per_batch is 32; expected a multiple of .* = 128"),
        (
            {"training": {"mesh": {"data": 1, "fsdp": 3, "tensor": 1}}},
            "needs 3 devices, but there are 16",
        ),
        (
            {
                "training": {"mesh": {"data": 1, "fsdp": 1, "tensor": 16}, "model": {}},
                "model": "phi-9",
            },
            "no published sizes",
        ),
        ({"training": {"row_tokens": 8192}}, "row_tokens is 8192; expected at most"),
        ({"training": {"remat": "some"}}, "remat is 'some'; expected one of"),
        ({"model": ""}, "init is ''"),
        ({"model": "", "training": {"init": "scratch"}}, "vocabulary comes from the data"),
        ({"tokens": 5, "rows": 5}, "one of tokens, rows"),
        ({"training": {"lora": {"rank": -1}}}, "lora.rank is -1"),
        ({"training": {"distill": {"loss": "forward_kl", "weight": 1.0}}}, "teacher is ''"),
        ({"teacher": "phi-3-mini-4k"}, "no term of distill compares with a model"),
        (
            {"training": {"distill": {"loss": "forward_kl", "weight": 1.0}}, "teacher": "phi-4"},
            "the teacher has 100352 logits and the student 32064",
        ),
        ({"price": -1.0}, "price is -1.0; expected 0 or more"),
    ],
)
def test_refusals(changes, said):
    with pytest.raises(ConfigError, match=said):
        make(**changes)


def test_adapters_and_a_teacher_are_planned(phi3, tmp_path):
    lora = {"rank": 16, "alpha": 32.0, "targets": ["qkv_proj", "o_proj"]}
    found = make(training={"lora": lora}, search=False)
    assert found["memory"]["parameters"] > phi3["memory"]["parameters"]
    assert found["memory"]["optimizer"] < phi3["memory"]["optimizer"] / 30
    assert found["flops"]["model"] < phi3["flops"]["model"]
    aim = {"loss": "jensen_shannon", "weight": 0.5}
    by_name = make(training={"distill": aim}, teacher="phi-3-medium-4k", search=False)
    medium = published("phi-3-medium-4k")
    assert by_name["memory"]["teacher"] == plan_analytic.parameters(medium) // 16 * 2
    assert by_name["step_seconds"] > phi3["step_seconds"]
    # The same from the teacher's folder: config.json alone is read.
    (tmp_path / "config.json").write_text(hf_config.write(medium, "bfloat16"))
    by_folder = make(training={"distill": aim, "teacher": str(tmp_path)}, search=False)
    assert by_folder == by_name


def test_slots_of_distributions_as_stored_or_as_told(tmp_path):
    aim = {"distill": {"loss": "topk", "weight": 0.5}, "soft_targets": str(tmp_path)}

    def slots(**told):
        memory = make(training=aim, search=False, **told)["memory"]
        return memory["soft_targets"] / (2 * 2048 * 8)  # two microbatches of a row

    assert slots() == 32
    assert slots(k=5) == 5
    write_part(tmp_path, 0, [], k=7)
    finish(tmp_path, parts=1, k=7, facts={})
    assert slots(k=5) == 7


def test_a_parameter_that_does_not_divide():
    with pytest.raises(ConfigError, match=r"axis 'embed' of 3072 does not divide by fsdp = 36"):
        make(chips="v5e:6x6", training={"rows_per_batch": 72, "microbatches": 1})


def test_without_libtpu_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(plan_compile, "available", lambda: False)
    with pytest.raises(MissingExtra, match=r"opengrok-jax\[plan\]"):
        make(analytic=False)


@pytest.mark.libtpu
@pytest.mark.skipif(not plan_compile.available(), reason="libtpu is not installed")
def test_compiled(monkeypatch, settings, masked_file):
    for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    section = {k: v for k, v in settings.items() if k != "masked_file"}
    section |= {"rows_per_batch": 8, "mesh": {"data": 1, "fsdp": -1, "tensor": 1}}
    found = plan.run(training=section, chips="v5e:2x2", masked_file=masked_file, search=False)
    assert found["basis"] == "compiled"
    assert found["fits"]
    assert found["flops"]["matrix_products"] > 0
    assert found["collectives"]["all-gather"]["count"] > 0
    assert set(found["memory"]) == {"parameters", "optimizer", "gradients_activations", "peak"}
    assert found["versions"]["libtpu"]
    assert json.loads(json.dumps(found)) == found
