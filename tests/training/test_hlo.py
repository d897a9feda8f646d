"""Reading programs: what 8 fake devices compile, and what TPUs write."""

import json

import pytest

from opengrok_jax.training import hlo
from tests.together import together

PROGRAM = """
import json, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from opengrok_jax.training import hlo

mesh = jax.make_mesh((2, 4), ("a", "b"), (jax.sharding.AxisType.Auto,) * 2)

def array(shape, *axes):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes)))

def read(function, *arrays, out=P()):
    jitted = jax.jit(function, out_shardings=NamedSharding(mesh, out))
    found = hlo.totals(jitted.lower(*arrays).compile().as_text())
    return [found.collectives, found.matmul_flops, found.cycles]

def loop(x, w):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

print(json.dumps({
    "sum": read(lambda x, w: x @ w, array((8, 64), None, "b"), array((64, 16), "b")),
    "gather": read(lambda x: x * 2, array((8, 64), "b")),
    "loop": read(loop, array((8, 16)), array((5, 16, 16), None, "b"), out=P()),
    "move": read(lambda x: jax.shard_map(
        lambda x: jax.lax.ppermute(x, "b", [(0, 1), (1, 2), (2, 3), (3, 0)]),
        mesh=mesh, in_specs=P("b"), out_specs=P("b"))(x), array((8, 64), "b"), out=P("b")),
    "swap": read(lambda x: jax.shard_map(
        lambda x: jax.lax.all_to_all(x, "b", 1, 0),
        mesh=mesh, in_specs=P("b"), out_specs=P("b"))(x), array((4, 4, 16), "b"), out=P("b")),
}))
"""


@pytest.fixture(scope="module")
def programs():
    """Sharded programs of eight fake devices, read in a process that has them."""
    (said,) = together(PROGRAM, count=1, devices=8)
    return json.loads(said)


@pytest.mark.parametrize(
    ("name", "kind", "count", "size"),
    [
        ("sum", "all-reduce", 1, 2 * 8 * 16 * 4 * 3 // 4),
        ("gather", "all-gather", 1, 8 * 64 * 4 * 3 // 4),
        ("move", "collective-permute", 1, 2 * 64 * 4),
        ("swap", "all-to-all", 1, 4 * 16 * 4 * 3 // 4),
    ],
)
def test_collectives_and_their_bytes(programs, name, kind, count, size):
    collectives, _, cycles = programs[name]
    assert collectives == {kind: [count, size]}
    assert cycles is None  # a CPU's compiler estimates none


def test_products_are_counted_once_a_turn_of_the_loop(programs):
    assert programs["sum"][1] == 2 * 8 * 16 * 64 // 4
    collectives, flops, _ = programs["loop"]
    assert flops in (2 * 8 * 16 * 16 * 5, 2 * 8 * 16 * 4 * 5)  # gathered weights, or split sums
    assert all(count in (1, 5) for count, _ in collectives.values())


# As a TPU writes it: one gather in the pieces of a fusion, a ring whose counter advances by 2.
TPU = """HloModule jit_update, is_scheduled=true

%piece.1 (p: bf16[8,4]) -> bf16[8,16] {
  %p = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={1}
}

%piece.2 (p: bf16[8,4]) -> bf16[8,16] {
  %p.2 = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[8,16]{1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=7, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={1}
}

%all-reduce-scatter.1 (p: bf16[60,8]) -> bf16[16,8] {
  %p.5 = bf16[60,8]{1,0:T(8,128)(2,1)} parameter(0)
  %zero = bf16[] constant(0)
  %pad.1 = bf16[64,8]{1,0:T(8,128)(2,1)} pad(%p.5, %zero), padding=0_4x0_0
  %all-reduce.1 = bf16[64,8]{1,0:T(8,128)(2,1)} all-reduce(%pad.1), channel_id=9, replica_groups={{0,1,2,3}}, use_global_device_ids=true, to_apply=%add.1
  %id = u32[] partition-id()
  %sixteen = u32[] constant(16)
  %from = u32[]{:T(128)} multiply(%id, %sixteen)
  %first = u32[] constant(0)
  ROOT %dynamic-slice.1 = bf16[16,8]{1,0:T(8,128)(2,1)S(1)} dynamic-slice(%all-reduce.1, %from, %first), dynamic_slice_sizes={16,8}
}

%multiply (x: bf16[32,2,16], w: bf16[64,2,16]) -> bf16[32,64,1] {
  %x = bf16[32,2,16]{2,1,0} parameter(0)
  %w = bf16[64,2,16]{2,1,0} parameter(1)
  ROOT %convolution.1 = bf16[32,64,1]{1,0,2} convolution(%x, %w), window={size=2}, dim_labels=b0f_o0i->bf0
}

%body (p.3: (u32[], bf16[8,4], bf16[32,2,16], bf16[64,2,16])) -> (u32[], bf16[8,4], bf16[32,2,16], bf16[64,2,16]) {
  %p.3 = (u32[]{:T(128)}, bf16[8,4]{1,0:T(8,128)(2,1)S(1)}, /*index=2*/bf16[32,2,16]{2,1,0}, bf16[64,2,16]{2,1,0}) parameter(0)
  %two = u32[]{:T(128)} constant(2)
  %count = u32[]{:T(128)} get-tuple-element(%p.3), index=0
  %part = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%p.3), index=1
  %left = bf16[32,2,16]{2,1,0} get-tuple-element(%p.3), index=2
  %right = bf16[64,2,16]{2,1,0} get-tuple-element(%p.3), index=3
  %next = u32[]{:T(128)} add(%count, %two)
  %fusion.1 = bf16[8,16]{1,0} fusion(%part), kind=kCustom, calls=%piece.1, backend_config={"window_config":{"estimated_cycles":"100"}}
  %fusion.2 = bf16[8,16]{1,0} fusion(%part), kind=kCustom, calls=%piece.2, backend_config={"window_config":{"estimated_cycles":"10"}}
  %fusion.3 = bf16[32,64,1]{1,0,2} fusion(%left, %right), kind=kOutput, calls=%multiply
  %start = (bf16[8,4]{1,0:S(1)}, bf16[8,4]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%part), channel_id=8, source_target_pairs={{0,1},{1,0}}
  %done = bf16[8,4]{1,0} collective-permute-done(%start)
  ROOT %tuple = (u32[]{:T(128)}, bf16[8,4]{1,0}, bf16[32,2,16]{2,1,0}, bf16[64,2,16]{2,1,0}) tuple(%next, %done, %left, %right)
}

%condition (p.4: (u32[], bf16[8,4], bf16[32,2,16], bf16[64,2,16])) -> pred[] {
  %p.4 = (u32[]{:T(128)}, bf16[8,4]{1,0}, bf16[32,2,16]{2,1,0}, bf16[64,2,16]{2,1,0}) parameter(0)
  %limit = u32[]{:T(128)} constant(8)
  %at = u32[]{:T(128)} get-tuple-element(%p.4), index=0
  ROOT %compare = pred[]{:T(512)} compare(%at, %limit), direction=LT
}

ENTRY %main (a: u32[], b: bf16[8,4], c: bf16[32,2,16], d: bf16[64,2,16], e: bf16[60,8]) -> bf16[8,4] {
  %a = u32[]{:T(128)} parameter(0)
  %b = bf16[8,4]{1,0} parameter(1)
  %c = bf16[32,2,16]{2,1,0} parameter(2)
  %d = bf16[64,2,16]{2,1,0} parameter(3)
  %e = bf16[60,8]{1,0} parameter(4)
  %kept = bf16[16,8]{1,0} fusion(%e), kind=kCustom, calls=%all-reduce-scatter.1
  %sum = bf16[60,8]{1,0} all-reduce(%e), channel_id=10, replica_groups={{0,1,2,3}}, to_apply=%add.1
  %all = (u32[]{:T(128)}, bf16[8,4]{1,0}, bf16[32,2,16]{2,1,0}, bf16[64,2,16]{2,1,0}) tuple(%a, %b, %c, %d)
  %while.1 = (u32[]{:T(128)}, bf16[8,4]{1,0}, bf16[32,2,16]{2,1,0}, bf16[64,2,16]{2,1,0}) while(%all), condition=%condition, body=%body
  ROOT %result = bf16[8,4]{1,0} get-tuple-element(%while.1), index=1
}
"""


def test_a_tpu_program():
    found = hlo.totals(TPU)
    turns = 8 // 2
    assert found.collectives == {
        "all-gather": (turns, turns * 8 * 16 * 2 * 3 // 4),
        "reduce-scatter": (1, 64 * 8 * 2 * 3 // 4),
        "all-reduce": (1, 2 * 60 * 8 * 2 * 3 // 4),
        "collective-permute": (turns, turns * 8 * 4 * 2),
    }
    assert found.matmul_flops == turns * 2 * 32 * 64 * (2 * 16)
    assert found.cycles == turns * 110
    assert found.received == sum(size for _, size in found.collectives.values())


@pytest.mark.parametrize(
    ("window", "labels", "left", "right", "out", "flops"),
    [
        # x (4096, 3072) times W (9216, 3072), all in one
        ("", "bf_oi->bf", (40, 30), (90, 30), (40, 90), 2 * 40 * 30 * 90),
        # a block of channels out of many: only one tap of each place lies inside
        (
            "window={size=9 pad=8_8 rhs_reversal=1}, ",
            "b0f_0oi->b0f",
            (5, 1, 7),
            (9, 3, 7),
            (5, 9, 3),
            2 * 5 * 3 * 7 * 9,
        ),
        # batched: nine products at once, spelt by dilation
        (
            "window={size=9 stride=8 lhs_dilate=9}, ",
            "0bf_0oi->0bf",
            (9, 5, 7),
            (9, 3, 7),
            (9, 5, 3),
            2 * 5 * 3 * 7 * 9,
        ),
    ],
)
def test_products_spelt_as_convolutions(window, labels, left, right, out, flops):
    rest = f"%a, %b), {window}dim_labels={labels}"
    assert hlo._convolution(rest, left, right, out) == flops


@pytest.mark.parametrize(
    ("spelt", "devices"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, x", 4),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", 8),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", 2),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'b'}, x={1}", 4),
    ],
)
def test_spellings_of_a_group(spelt, devices):
    assert hlo._group(spelt) == devices
