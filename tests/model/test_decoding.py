"""What is compiled when, and the same tokens on eight devices as on one."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.model.generate import generate, stream
from opengrok_jax.model.phi3 import Phi3
from tests.together import together

ON_EIGHT_DEVICES = """
import warnings
warnings.simplefilter("error")
import re, sys
import jax, numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from opengrok_jax.model import decoding
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.generate import generate, stream
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import make_mesh, parameter_shardings

assert jax.device_count() == 8
config = Phi3Config.tiny(60, hidden_size=24, intermediate_size=28, num_hidden_layers=2,
                         num_attention_heads=6, num_key_value_heads=2, sliding_window=19)
graph, abstract = nnx.split(nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0))))
rng = np.random.default_rng(0)
state = jax.tree.map(lambda a: rng.normal(0, 0.4, a.shape).astype(np.float32), abstract)
mesh = make_mesh(data=2, fsdp=2, tensor=2)
one = nnx.merge(graph, jax.device_put(state, jax.devices()[0]))
many = nnx.merge(graph, jax.device_put(state, parameter_shardings(one, mesh)))

kept = []  # what each batch leaves behind
class Watched(decoding.Run):
    def decode(self, *arguments):
        kept.append(super().decode(*arguments))
        return kept[-1]
sys.modules["opengrok_jax.model.generate"].Run = Watched

prompts = [rng.integers(0, 60, n).astype(np.int32) for n in (5, 17, 3, 9, 12)]
masks = [rng.random(len(p)) < 0.7 for p in prompts]
for more in ({}, {"key_masks": masks, "rule": "exclude"}):
    want, got = (generate(model, prompts, stop_ids=(3,), max_new_tokens=13, batch_size=4, **more)
                 for model in (one, many))
    assert len({tuple(a.tolist()) for a in want}) == 5
    assert [a.tolist() for a in got] == [a.tolist() for a in want]
alone = [*stream(many, prompts[1], stop_ids=(3,), max_new_tokens=13)]
assert alone == generate(one, prompts[1:2], stop_ids=(3,), max_new_tokens=13)[0].tolist()

# Layers, rows, heads, slots, width: 4 rows over data x fsdp, 2 heads over tensor.
cache = kept[2].cache.keys
assert cache.shape == (2, 4, 2, 32, 4), cache.shape
assert cache.addressable_shards[0].data.shape == (2, 1, 1, 32, 4), cache.sharding
# Nor is it gathered on the way: what collectives give has no axis of 32 slots, but for the tokens.
run = decoding.Run(*nnx.split(many), "none", False)
ask = decoding.Ask(*jax.device_get((np.full(4, 30, np.int32), np.array([3], np.int32), None,
    None, np.float32(0), np.float32(1))))._replace(keys=jax.random.split(jax.random.key(0), 4))
with jax.set_mesh(mesh):
    text = decoding._decode.lower(run.graph, run.state, ask, kept[2], 5, rule="none",
                                  sampled=False).compile().as_text()
moved = re.findall(r"= \\w+\\[([\\d,]*)\\]\\S* (?:all-gather|all-to-all|collective-permute)\\(", text)
assert moved, "parameters are gathered over fsdp"
assert {shape for shape in moved if "32" in shape.split(",")} <= {"4,32"}, moved
"""


def test_eight_devices_say_what_one_says() -> None:
    """Tokens, the cache's place and the collectives are compared inside the program."""
    together(ON_EIGHT_DEVICES, count=1, devices=8)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Grows by one with everything that XLA compiles."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


LONG = Phi3Config.tiny(
    61,
    hidden_size=12,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=64,
    original_max_position_embeddings=9,
    rope_scaling=LongRope((1.0, 1.1, 1.2), (2.0, 4.0, 8.0)),
)


def prompts(*lengths: int) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, 61, n, dtype=np.int32) for n in lengths]


def test_decoding_compiles_nothing_as_it_proceeds(
    random_model: Callable[..., Phi3], compilations: list[str]
) -> None:
    """Prompt 5, 20 new tokens: the second token compiles the step, LongRoPE's change included."""
    model = random_model(LONG)
    ids = stream(model, prompts(5)[0], stop_ids=(61, 62), max_new_tokens=20)
    first = [next(ids), next(ids)]
    assert compilations, "the listener must hear something"
    heard = len(compilations)
    rest = [*ids]
    assert len(compilations) == heard
    (whole,) = generate(model, prompts(5), stop_ids=(61, 62), max_new_tokens=20, batch_size=1)
    assert len(compilations) == heard, "one loop serves the stream and the batch"
    assert first + rest == whole.tolist()


def test_a_bucket_is_compiled_once(
    random_model: Callable[..., Phi3], compilations: list[str]
) -> None:
    """Other lengths, counts, rooms and stop ids, prompts up to 32 and totals of 33 to 48."""
    model = random_model(LONG)
    generate(model, prompts(7, 30, 4), stop_ids=(3, 62), max_new_tokens=9, batch_size=3)
    heard = len(compilations)
    assert heard
    for lengths, room, stops in (
        ((25,), 8, (5, 6)),
        ((8, 31, 31), 17, (1, 2)),
        ((9, 21), 20, (4, 8)),
    ):
        generate(model, prompts(*lengths), stop_ids=stops, max_new_tokens=room, batch_size=3)
    assert len(compilations) == heard
    generate(model, prompts(33), stop_ids=(3, 62), max_new_tokens=9, batch_size=3)
    assert len(compilations) > heard, "a longer prompt is another bucket"
