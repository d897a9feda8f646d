"""Compiling for TPUs that are not there; where libtpu is absent, what can be said without it."""

import json
import os
import resource
import subprocess
import sys

import pytest

from opengrok_jax.errors import ConfigError, TrainingError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config, published
from opengrok_jax.training import plan_compile

GIB = 2**30
SETTINGS = {
    "rule": "exclude",
    "learning_rate": 1e-2,
    "warmup_share": 0.0,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "remat": "full",
    "dtype": "bfloat16",
    "param_dtype": "float32",
    "seed": 3,
}
needs_libtpu = pytest.mark.skipif(
    not plan_compile.available(), reason="libtpu is not installed: pip install 'opengrok-jax[plan]'"
)
QUICK = ("JAX_", "XLA_")  # what makes tests compile quickly, and badly, begins so
TINY = Phi3Config.tiny(64, hidden_size=32, intermediate_size=64, num_hidden_layers=2)


def request(config, **changes):
    given = {
        "slice": "v5e:2x2",
        "config_json": hf_config.write(config, "float32"),
        "mesh": {"data": 1, "fsdp": 4, "tensor": 1},
        "microbatches": 1,
        "rows_per_device": 1,
        "row_tokens": 128,
        "capacity": 128,
        "steps": 10,
        "settings": SETTINGS,
    }
    return given | changes


@pytest.fixture(autouse=True)
def a_users_environment(monkeypatch):
    """Not the one of tests."""
    for name in [name for name in os.environ if name.startswith(QUICK)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Used 20.25G of 15.75G hbm. Exceeded hbm capacity by 4.50G.", (20.25, 15.75)),
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
            "required for HLO temporaries (15.78G) exceeds available HBM (15.75G). HLO module: x.",
            (15.78, 15.75),
        ),
        ("XLA:TPU ran out.\n  Used 512.00M of 15.75G hbm.", (0.5, 15.75)),
    ],
)
def test_reads_what_does_not_fit(text, expected):
    assert plan_compile.too_much(text) == tuple(int(x * GIB) for x in expected)


def test_any_other_error_is_told_in_one_line():
    with pytest.raises(TrainingError, match=r"does not compile for the slice: INTERNAL: no\."):
        plan_compile.too_much("INTERNAL: no.\nstack\nstack")


def test_a_dead_compiler_and_a_slow_one(monkeypatch, tmp_path):
    (tmp_path / "jax.py").write_text(
        "import os, sys; print('broken', file=sys.stderr); os._exit(9)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError, match=r"died \(status 9\): broken; plan with --analytic"):
        plan_compile.compile_apart({})
    (tmp_path / "jax.py").write_text("import time; time.sleep(60)")
    with pytest.raises(TrainingError, match="more than 1 s"):
        plan_compile.compile_apart({}, seconds=1.0)


@pytest.mark.libtpu
@needs_libtpu
@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"mesh": {"data": 1, "fsdp": 3, "tensor": 1}}, ConfigError, "there are 4 .tpu"),
        ({"mesh": {"data": 1, "fsdp": 1, "tensor": 4}}, None, ""),
    ],
)
def test_tiny(changes, kind, said):
    if kind:
        with pytest.raises(kind, match=said):
            plan_compile.compile_apart(request(TINY, **changes))
        return
    found = plan_compile.compile_apart(request(TINY, **changes))
    assert found["fits"]
    assert found["collectives"]["all-reduce"]["count"] >= 2 * 2  # two outputs a layer


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What is found out of two small layers, and all that could be seen meanwhile."""
    path = tmp_path_factory.mktemp("plain") / "found.json"
    code = (
        "import json, sys; from pathlib import Path\n"
        "from opengrok_jax.training import plan_compile\n"
        "found = plan_compile.compile_apart(json.load(sys.stdin))\n"
        "Path(sys.argv[1]).write_text(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        input=json.dumps(request(TINY)),
        env={name: value for name, value in os.environ.items() if not name.startswith(QUICK)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(path.read_text()), done.stdout + done.stderr


@pytest.mark.libtpu
@needs_libtpu
def test_nothing_is_shown_to_the_user(plain):
    """Neither libtpu nor JAX warns where the command could be seen."""
    assert plain[1] == ""


@pytest.mark.libtpu
@needs_libtpu
@pytest.mark.parametrize(
    ("d", "f", "v", "heads", "tokens"),
    [
        (512, 1024, 4096, 4, 128),
        pytest.param(3072, 8192, 32064, 32, 512, marks=pytest.mark.slow, id="Phi-3-mini's"),
    ],
)
def test_two_layers(d, f, v, heads, tokens):
    """Wide enough to lie in memory without padding."""
    config = Phi3Config(
        vocab_size=v,
        hidden_size=d,
        intermediate_size=f,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        eos_token_id=2,
        pad_token_id=2,
    )
    found = plan_compile.compile_apart(request(config, row_tokens=tokens, capacity=tokens))
    layer = d * (3 * d + d + 3 * f)
    count = 2 * (layer + 2 * d) + 2 * v * d + d
    memory = found["memory"]
    assert memory["parameters"] == pytest.approx(4 * count / 4, rel=1e-3)
    assert memory["optimizer"] == pytest.approx(2 * memory["parameters"], rel=1e-3)
    # The state lies in memory without padding, and the old one gives its place to the new.
    assert memory["arguments"] == pytest.approx(3 * memory["parameters"], rel=5e-3)
    assert memory["arguments"] < memory["peak"] < 3 * memory["arguments"]
    # Forwards, again for remat, and twice backwards; the head only on those that bear loss.
    expected = 2 * tokens * (4 * 2 * layer + 3 * v * d)
    assert found["matmul_flops"] == pytest.approx(expected, rel=0.15)
    gathered = found["collectives"]["all-gather"]["bytes"]
    gathered += found["collectives"].get("collective-permute", {"bytes": 0})["bytes"]
    assert gathered > 2 * 2 * layer * 2 * 3 // 4  # in bfloat16, forwards and backwards
    assert found["cycles"] > 0


LORA = {"rank": 4, "alpha": 8.0, "targets": ["qkv_proj", "down_proj"]}
# Of two layers, over fsdp 4: A and B beside qkv (64, 32) and down (32, 64), of which `fsdp` splits 32.
ADAPTERS = 2 * 4 * ((32 // 4 + 64) + (64 + 32 // 4))
TEACHER = Phi3Config.tiny(64, hidden_size=64, intermediate_size=64, num_hidden_layers=2)
OF_TEACHER = (2 * (128 * 64 + 64 * 64 + 3 * 64 * 64) + 2 * 64 * 64) // 4 + 5 * 64


@pytest.mark.libtpu
@needs_libtpu
@pytest.mark.parametrize(
    ("changes", "parameters", "trained"),
    [
        ({"lora": LORA}, 4 * ADAPTERS, ADAPTERS),
        ({"distill": {"loss": "topk", "weight": 0.5}, "k": 7}, 0, None),
        (
            {
                "distill": {"loss": "reverse_kl", "weight": 0.5},
                "teacher_json": hf_config.write(TEACHER, "bfloat16"),
                "teacher_dtype": "bfloat16",
            },
            2 * OF_TEACHER,
            None,
        ),
    ],
    ids=["adapters", "stored distributions", "a teacher's logits"],
)
def test_what_else_trains_is_compiled_too(changes, parameters, trained, plain):
    """Two small layers: the plain update's state, and what each kind adds to it."""
    plain, found = (
        plain[0]["memory"],
        plan_compile.compile_apart(request(TINY, **changes))["memory"],
    )
    assert found["parameters"] - plain["parameters"] == parameters
    if trained is None:
        assert found["optimizer"] == plain["optimizer"]
    else:
        assert found["optimizer"] == pytest.approx(2 * 4 * trained, abs=64)
        assert found["optimizer"] < plain["optimizer"]
    if "k" in changes:
        stored = found["arguments"] - plain["arguments"]
        assert stored >= 128 * 7 * (4 + 4), "ids and log-probabilities of a row"


@pytest.mark.libtpu
@needs_libtpu
def test_what_does_not_fit():
    found = plan_compile.compile_apart(
        request(
            Phi3Config(num_hidden_layers=8),
            slice="v5e:1x1",
            mesh={"data": 1, "fsdp": 1, "tensor": 1},
        )
    )
    assert not found["fits"]
    assert found["needs"] > found["has"]
    assert 15 * GIB < found["has"] < 16 * GIB


@pytest.mark.slow
@pytest.mark.libtpu
@needs_libtpu
def test_phi_3_mini_on_sixteen_chips():
    """Within 120 seconds of one core; MaxText's state takes 2.95 GiB a chip, with padding."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    found = plan_compile.compile_apart(
        request(
            published("phi-3-mini-4k"),
            slice="v5e:4x4",
            mesh={"data": 1, "fsdp": 16, "tensor": 1},
            row_tokens=4096,
            capacity=4096,
        )
    )
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 120
    assert found["fits"]
    assert found["memory"]["arguments"] < 2.68 * GIB
