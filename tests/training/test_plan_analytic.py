"""The estimate against counts by hand, and against what the compiler of TPUs made."""

import dataclasses

import pytest

from opengrok_jax.model.config import Phi3Config, published
from opengrok_jax.training import plan_analytic
from opengrok_jax.training.chips import of_kind
from opengrok_jax.training.flops import train_flops
from opengrok_jax.training.objective import Objective
from opengrok_jax.training.plan_analytic import Parts, Work

GIB = 2**30
SMALL = Phi3Config.tiny(
    64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
# Parameters of SMALL: a layer has qkv 64 x 32, out 32 x 32, gate and up 96 x 32, down 32 x 48 and
# two norms of 32; then embedding and head 64 x 32 each, and the last norm.
LAYER = 64 * 32 + 32 * 32 + 96 * 32 + 32 * 48
COUNT = 2 * (LAYER + 2 * 32) + 2 * 64 * 32 + 32


def work(**changes):
    given = {
        "config": SMALL,
        "parts": Parts(1, 1, 1),
        "rows": 3,
        "row_tokens": 16,
        "microbatches": 2,
        "loss_share": 0.5,
        "remat": "full",
        "dtype": "bfloat16",
        "param_dtype": "float32",
    }
    return Work(**(given | changes))


def test_parameters():
    assert plan_analytic.parameters(SMALL) == COUNT
    tied = dataclasses.replace(SMALL, tie_word_embeddings=True)
    assert plan_analytic.parameters(tied) == COUNT - 64 * 32
    assert plan_analytic.parameters(published("phi-3-mini-4k")) == 3_821_079_552


def test_memory_by_hand():
    found = plan_analytic.memory(work())
    tokens = 3 * 16
    assert found["parameters"] == 4 * COUNT
    assert found["optimizer"] == 8 * COUNT
    assert plan_analytic.memory(work(moments_dtype="bfloat16"))["optimizer"] == 4 * COUNT
    assert found["gradients"] == 2 * 4 * COUNT  # two microbatches
    assert plan_analytic.memory(work(microbatches=1))["gradients"] == 4 * COUNT
    assert found["saved"] == 2 * 32 * tokens * 2  # layers, width, tokens, bfloat16
    assert found["head"] == tokens // 2 * 64 * (4 + 4 + 2)
    live = 6 * 32 + 2 * (4 + 2 * 2) * 8 + 6 * 48
    assert found["working"] == live * 2 * tokens + 3 * LAYER * 2
    held = 20 * COUNT + found["saved"]
    assert found["peak"] == held + max(found["working"], found["head"])


def test_the_mesh_splits_state_and_layer():
    whole, split = (plan_analytic.memory(work(parts=Parts(*p))) for p in ((1, 1, 1), (2, 4, 2)))
    assert split["optimizer"] == 8 * (COUNT // 8)  # `data` holds copies
    assert split["saved"] == whole["saved"]
    assert split["head"] == whole["head"] // 2


def test_what_is_kept_by_remat():
    kept = [
        plan_analytic.saved_per_token(work(remat=r)) for r in ("offload", "full", "dots", "none")
    ]
    assert kept == sorted(kept)
    assert kept[:2] == [0, 32 * 2]
    dense = (
        plan_analytic.memory(work(dense=True))["working"] - plan_analytic.memory(work())["working"]
    )
    assert dense == 3 * 16 * 4 * 16 * (4 + 2)  # queries, heads, keys, float32 and bfloat16


def test_arithmetic_and_links_by_hand():
    tokens, pairs = 2 * 3 * 16, 2 * 3 * (16 * 17 // 2)
    forward = 2 * (2 * LAYER * tokens + 64 * 32 * tokens // 2 + 2 * 2 * 4 * 8 * pairs)
    assert plan_analytic.executed_flops(work(remat="none")) == 3 * forward
    assert plan_analytic.executed_flops(work()) == 4 * forward
    split = plan_analytic.executed_flops(work(parts=Parts(1, 4, 2)))
    assert split == pytest.approx(4 * forward * 4 / 8)  # four times the rows on eight devices
    assert plan_analytic.received(work()) == 0


def test_links_by_hand():
    """Two microbatches of two layers, three rings of four: what a device receives of each."""
    assert plan_analytic.received(work()) == 0
    attention, table, width, ring = 64 * 32 + 32 * 32, 64 * 32, 2, 3 / 4

    def received(**changes):
        return plan_analytic.received(work(**({"parts": Parts(1, 4, 1)} | changes)))

    gathered = 2 * ring * (2 * 2 * LAYER + 2 * table) * width  # forwards and backwards
    anew = 2 * ring * 2 * attention * width
    scattered = 2 * ring * (2 * LAYER * width + 2 * table * 4)  # of the tables in float32
    assert received() == gathered + anew + scattered
    assert received(remat="none") == gathered + scattered
    tied = dataclasses.replace(SMALL, tie_word_embeddings=True)
    assert received(config=tied) == gathered + anew + scattered - 2 * ring * table * 4
    # Everything of the embedding's gradient in every microbatch, of the head's once.
    summed = 2 * ring * (2 * 2 * LAYER * width + 2 * 4 * table + 4 * table)
    assert received(parts=Parts(4, 1, 1)) == summed
    # tensor 4: five sums of a token's state in a layer, and three times its fused projections
    # sorted; and the gradient of what the head multiplies.
    inner = 2 * 48 * (5 * 2 * 32 * ring + 3 * (64 + 2 * 48) / 4) * width
    assert received(parts=Parts(1, 1, 4)) == 2 * (inner + 2 * ring * 24 * 32 * 4)
    # Frozen matrices are gathered as before, and have no gradients.
    lora = {"rank": 2, "targets": ["o_proj"]}
    assert received(adapters=lora) == gathered + anew
    # A teacher's are gathered once, and its head if its logits are compared.
    more = 2 * ring * (LAYER + table) * width
    beside = {"adapters": lora, "teacher": dataclasses.replace(SMALL, num_hidden_layers=1)}
    aim = Objective(feature_weight=1.0)
    assert received(**beside, objective=aim) == gathered + anew + more
    aim, more = Objective(loss="forward_kl", weight=1.0), more + 2 * ring * table * width
    assert received(**beside, objective=aim) == gathered + anew + more


def test_every_chunk_gathers_the_head_twice_and_scatters_its_gradient():
    given = {"parts": Parts(1, 4, 1), "rows": 512, "microbatches": 1}  # 4096 positions, two chunks
    more = plan_analytic.received(work(**given))
    one = plan_analytic.received(work(**(given | {"rows": 256})))
    assert more - one == 3 / 4 * 64 * 32 * (3 * 2 + 4)


def test_adapters_by_hand():
    """Rank 3 beside two of the four: A and B of each layer, and what they are split over."""
    lora = {"rank": 3, "targets": ["qkv_proj", "down_proj"]}
    count = 2 * 3 * (32 + 64 + 48 + 32)
    assert plan_analytic.adapter_parameters(work(adapters=lora)) == count
    split = 2 * 3 * (2 * 32 // 2 + (64 + 48) // 4)
    assert plan_analytic.adapter_parameters(work(adapters=lora), fsdp=2, tensor=4) == split
    found = plan_analytic.memory(work(adapters=lora, param_dtype="bfloat16"))
    assert found["parameters"] == 2 * COUNT + 4 * count
    assert found["optimizer"] == 8 * count
    assert found["gradients"] == 2 * 4 * count
    flops = train_flops(SMALL, work().load(), count)
    assert plan_analytic.model_flops(work(adapters=lora)) == flops
    forward = train_flops(SMALL, work().load()) / 3
    assert plan_analytic.executed_flops(work(adapters=lora)) == flops + forward


def test_a_teacher_and_stored_distributions_by_hand():
    aim = Objective(loss="reverse_kl", weight=1.0)
    layer = dataclasses.replace(SMALL, num_hidden_layers=1)
    given = {"objective": aim, "teacher": layer, "teacher_dtype": "bfloat16"}
    found = plan_analytic.memory(work(**given, parts=Parts(1, 2, 1)))
    assert found["teacher"] == plan_analytic.parameters(layer) // 2 * 2
    more = plan_analytic.executed_flops(work(**given)) - plan_analytic.executed_flops(work())
    assert more == train_flops(layer, work().load()) / 3
    found = plan_analytic.memory(work(objective=Objective(loss="topk", weight=1.0), k=5))
    assert found["soft_targets"] == 2 * 48 * 5 * (4 + 4)


def test_times_are_shares_of_a_chip():
    chip = of_kind("TPU7x")
    assert chip is not None
    found = plan_analytic.times(2307e12, 7380 * 10**9, 600 * 10**9, chip)
    assert found == {"compute": 2, "memory": 2, "links": 2}  # one of two devices


# GiB at the peak: Phi-3-mini, v5e:4x4, fsdp 16, rows of 4096 tokens all bearing loss, bfloat16
# products, float32 parameters and moments; jax 0.10.2, libtpu 0.0.42.1, 2026-11.
@pytest.mark.parametrize(
    ("rows", "remat", "dense", "compiled"),
    [
        (1, "full", True, 8.301),
        (1, "full", False, 5.545),
        (7, "full", False, 14.312),
        (7, "offload", False, 9.144),
        (14, "offload", False, 14.005),
    ],
)
def test_against_the_compiler(rows, remat, dense, compiled):
    found = plan_analytic.memory(
        work(
            config=dataclasses.replace(published("phi-3-mini-4k"), sliding_window=None),
            parts=Parts(1, 16, 1),
            rows=rows,
            row_tokens=4096,
            microbatches=1,
            loss_share=1.0,
            remat=remat,
            dense=dense,
        )
    )
    assert found["peak"] / GIB == pytest.approx(compiled, rel=0.05)


# Bytes that a device receives and GiB at the peak: two layers of Phi-3-mini on v5e:2x2, remat
# "full", bfloat16 products; the compiler's of the same day.
SLICES = {
    "fsdp 4": ({}, 2_022_205_488, 2.220),
    "fsdp 2, tensor 2": ({"parts": Parts(1, 2, 2)}, 846_563_372, 1.776),
    "data 2, fsdp 2, two microbatches": (
        {"parts": Parts(2, 2, 1), "microbatches": 2},
        4_136_405_028,
        4.889,
    ),
    "top-k from disk, four chunks": (
        {"row_tokens": 2048, "k": 32, "objective": Objective(loss="topk", weight=0.5)},
        4_166_314_032,
        2.097,
    ),
    "a teacher's logits, four chunks": (
        {
            "row_tokens": 2048,
            "objective": Objective(loss="forward_kl", weight=0.5),
            "teacher": dataclasses.replace(published("phi-3-mini-4k"), num_hidden_layers=2),
            "teacher_dtype": "bfloat16",
        },
        5_835_810_864,
        2.443,
    ),
    "adapters": (
        {
            "row_tokens": 2048,
            "param_dtype": "bfloat16",
            "adapters": {
                "rank": 16,
                "targets": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
            },
        },
        1_361_068_068,
        0.677,
    ),
}
# The compiler gathers a frozen head of bfloat16 three times; a layer's gathered matrices, which a
# slice of two has sixteen times the share of, it often moves in rings that need no whole copy.
LINKS = {"adapters": 0.21}
PEAK = {
    "top-k from disk, four chunks": 0.23,
    "a teacher's logits, four chunks": 0.14,
    "adapters": 0.16,
}


@pytest.mark.parametrize("name", SLICES)
def test_slices_against_the_compiler(name):
    changes, links, peak = SLICES[name]
    given = {
        "config": dataclasses.replace(published("phi-3-mini-4k"), num_hidden_layers=2),
        "parts": Parts(1, 4, 1),
        "rows": 1,
        "row_tokens": 512,
        "microbatches": 1,
        "loss_share": 1.0,
    }
    asked = work(**(given | changes))
    assert plan_analytic.received(asked) == pytest.approx(links, rel=LINKS.get(name, 0.06))
    found = plan_analytic.memory(asked)["peak"] / GIB
    assert found == pytest.approx(peak, rel=PEAK.get(name, 0.1))
