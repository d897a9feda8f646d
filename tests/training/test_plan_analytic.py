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
    assert found["gradients"] == 4 * COUNT
    assert found["saved"] == 2 * 32 * tokens * 2  # layers, width, tokens, bfloat16
    assert found["head"] == tokens // 2 * 64 * (4 + 4 + 2)
    live = 6 * 32 + 2 * (4 + 2 * 2) * 8 + 6 * 48
    assert found["working"] == live * 2 * tokens + 3 * LAYER * 2
    held = 16 * COUNT + found["saved"]
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
    attention, table, width = 64 * 32 + 32 * 32, 64 * 32, 2
    once = 2 * (2 * 2 * LAYER + 2 * table) * width * 3 // 4  # forwards and backwards
    anew = 2 * (2 * attention) * width * 3 // 4
    scattered = 2 * (2 * LAYER * width + 2 * table * 4) * 3 // 4  # of the tables in float32
    fsdp = Parts(1, 4, 1)
    assert plan_analytic.received(work(parts=fsdp)) == once + anew + scattered
    assert plan_analytic.received(work(parts=fsdp, remat="none")) == once + scattered
    tied = dataclasses.replace(SMALL, tie_word_embeddings=True)
    one_less = 2 * table * 4 * 3 // 4
    assert (
        plan_analytic.received(work(parts=fsdp, config=tied)) == once + anew + scattered - one_less
    )
    summed = 2 * 2 * COUNT * 4 * 3 // 4  # of whole gradients in float32
    assert plan_analytic.received(work(parts=Parts(4, 1, 1))) == summed
    # tensor 4: five sums of a token's state in a layer, and three times its fused projections sorted
    inner = 5 * 2 * 32 * 3 // 4 + 3 * (64 + 2 * 48) // 4
    assert plan_analytic.received(work(parts=Parts(1, 1, 4))) == 2 * 2 * 48 * inner * width
    # frozen matrices are gathered as before, and have no gradients
    lora = {"rank": 2, "targets": ["o_proj"]}
    assert plan_analytic.received(work(parts=fsdp, adapters=lora)) == once + anew
    # a teacher's are gathered once, and its head if its logits are compared
    layer, aim = dataclasses.replace(SMALL, num_hidden_layers=1), Objective(feature_weight=1.0)
    more = 2 * (LAYER + table) * width * 3 // 4
    given = {"parts": fsdp, "adapters": lora, "teacher": layer}
    assert plan_analytic.received(work(**given, objective=aim)) == once + anew + more
    aim, more = Objective(loss="forward_kl", weight=1.0), more + 2 * table * width * 3 // 4
    assert plan_analytic.received(work(**given, objective=aim)) == once + anew + more


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
    assert found["gradients"] == 4 * count
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
