"""The gradient is the examples' own: it is the same however they lie, and wherever.

In float64 (`exactly.double`: the same programs, float32 read as float64) any two layouts agree to
3e-15, so nothing but rounding differs. In float32 it is the rounding of the model itself: every
layout's gradient is 3e-7 to 1.1e-6 from that of float64, parameter by parameter (Euclidean norms),
for a product of other sizes adds up in another order from the first block on; layouts whose rows
are multiplied together in like numbers agree to 3e-7, one row at a time (or on a device of its own)
against twelve to 1.4e-6. A mean of means is wrong by 1e-2 and more.
"""

import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.soft_file import response_positions
from opengrok_jax.training.batches import Soft
from tests.together import together
from tests.training import exactly
from tests.training.exactly import OBJECTIVES, apart, examples, laid_out, rows_of, weights

ROWS = 12
NEAR, WORST = 1e-6, 2.5e-6  # of some layouts on one device; of any, and of a device's own products
ROUNDING = 1e-13  # in float64
ALONE = [*([number] for number in range(10)), [], []]
# One compilation each; the one objective of most terms stands for all in a quick run.
QUICK = ["together"]
OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in OBJECTIVES if n not in QUICK]


@functools.cache
def update(name: str) -> exactly.Update:
    mesh = make_mesh(fsdp=1, devices=jax.devices()[:1])
    return exactly.Update(OBJECTIVES[name], mesh)


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Programs of other files are of no use here, nor these there."""
    yield
    update.cache_clear()


def assert_layout_changes_nothing(
    name: str, seed: int, skewed: bool, microbatches: int, most: float
) -> None:
    """`skewed`: most rows, and with them whole microbatches, are padding."""
    draw = np.random.default_rng(seed)
    weight, rows = weights(draw), rows_of(draw, ROWS, skewed=skewed)
    found = update(name)(rows, weight, microbatches=microbatches)
    assert apart(found, update(name)(ALONE, weight)) < most


@given(seed=st.integers(0, 2**32), skewed=st.booleans(), microbatches=st.sampled_from([1, 3]))
@settings(max_examples=8, derandomize=True)
def test_packing_microbatches_and_padding_change_no_gradient(
    seed: int, skewed: bool, microbatches: int
) -> None:
    assert_layout_changes_nothing("together", seed, skewed, microbatches, NEAR)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OBJECTIVES)
@given(
    seed=st.integers(0, 2**32),
    skewed=st.booleans(),
    microbatches=st.sampled_from([1, 2, 3, 4, 6, 12]),
)
@settings(max_examples=60)
def test_no_layout_changes_a_gradient_of_any_objective(
    name: str, seed: int, skewed: bool, microbatches: int
) -> None:
    assert_layout_changes_nothing(name, seed, skewed, microbatches, WORST)


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_what_bears_no_loss_changes_nothing(name: str) -> None:
    """Bit for bit: targets and stored distributions there, padding, last tokens, which nothing
    follows, and all of an example without weight."""
    draw, run = np.random.default_rng(3), update(name)
    weight = weights(draw)
    weight[4][:] = 0
    rows = [[4, 0], [1], [2], [3, 5], [6], [7], [8], [9], [], [], [], []]
    batch = laid_out(rows, weight, soft=run.asked.needs_soft_targets)
    idle = batch.loss_weight == 0
    free = batch.segment_ids == 0
    free[0, : len(examples()[4].tokens)] = True
    last = np.diff(batch.segment_ids, axis=1, append=0) != 0
    other = draw.integers(0, exactly.VOCAB, batch.tokens.shape).astype(np.int32)
    flipped = (free | last) & (batch.positions > 0)
    changed = batch._replace(
        tokens=np.where(free | last, other, batch.tokens),
        key_mask=batch.key_mask ^ flipped,
        targets=np.where(idle, other, batch.targets),
    )
    if batch.soft:
        ids = np.where(idle[..., None], other[..., None], batch.soft.ids)
        nothing = np.where(idle[..., None], np.float32(np.nan), batch.soft.logprobs)
        changed = changed._replace(soft=Soft(ids, nothing))
    assert (changed.tokens != batch.tokens).sum() > 100
    (loss, before), (again, after) = run.of(batch), run.of(changed)
    assert loss == again
    jax.tree.map(np.testing.assert_array_equal, before, after)
    if run.asked.weight == 1:  # nothing is learnt of the answer's own words
        return
    bearing = batch._replace(targets=np.where(idle, batch.targets, (batch.targets + 1) % 64))
    assert run.of(bearing)[0] != loss


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
@pytest.mark.parametrize("share", [0.5, 0.3])
def test_a_weight_is_the_sum_of_its_fractions(name: str, share: float) -> None:
    """An example with its weights is that example twice, with a share of them and the rest."""
    run, weight = update(name), weights(np.random.default_rng(8))
    soft = run.asked.needs_soft_targets
    twice = laid_out([[0], *ALONE[:-1]], weight, soft=soft)
    shares = np.array([share, 1 - share, *np.ones(10)], np.float32)[:, None]
    twice = twice._replace(
        loss_weight=twice.loss_weight * shares, norm_weight=twice.norm_weight * shares
    )
    whole = run.of(laid_out(ALONE, weight, soft=soft))
    assert apart(run.of(twice), whole) < NEAR
    halved = run(ALONE, [each / 2 for each in weight])
    assert apart(halved, whole) < NEAR, "only proportions count"


def test_the_end_of_an_answer_is_learnt_though_padding_has_its_id() -> None:
    run, ones = update("together"), [np.ones_like(w) for w in weights(np.random.default_rng(0))]
    without = [np.append(w[:-1], np.float32(0)) for w in ones]
    batch = laid_out(ALONE, ones, soft=True)
    ends = [(i, response_positions(e)[-1]) for i, e in enumerate(examples())]
    assert all(batch.targets[at] == exactly.PAD and batch.loss_weight[at] == 1 for at in ends)
    total = sum(map(len, ones))
    of_all, of_others = run(ALONE, ones), run(ALONE, without)
    of_ends = of_all[0] * total - of_others[0] * (total - len(ends))
    assert of_ends > len(ends), "more than a nat each, of a student that knows nothing"
    assert apart(of_all, of_others) > 1e-2


def test_the_old_state_is_where_the_new_one_goes() -> None:
    """The program reuses the memory of every array of the state."""
    run = update("together")
    run(ALONE, weights(np.random.default_rng(0)))
    for program in run.programs.values():
        assert_gives_up_its_memory(run, program.memory_analysis().alias_size_in_bytes)


def assert_gives_up_its_memory(run: Any, aliased: int) -> None:
    assert aliased == exactly.bytes_of(run.like)


ON_EIGHT = """
import json, sys
import jax, numpy as np
from opengrok_jax.model.sharding import make_mesh
from tests.training import exactly
from tests.training.exactly import OBJECTIVES, Update, apart, bytes_of, rows_of, weights

names, meshes, double = json.loads(sys.argv[1])
if double:
    exactly.double()
for name in names:
    draw = np.random.default_rng(21)
    weight = weights(draw)
    rows = [rows_of(draw, 16, skewed=skewed) for skewed in (False, True)]
    one = Update(OBJECTIVES[name], make_mesh(fsdp=1, devices=jax.devices()[:1]))
    expected = one([[i] for i in range(10)] + [[]] * 6, weight, microbatches=2)
    if double:
        for microbatches in (1, 16):
            found = [apart(one(each, weight, microbatches=microbatches), expected) for each in rows]
            print(json.dumps([name, microbatches, max(found), 0, 0]), flush=True)
    for mesh in meshes:
        run = Update(OBJECTIVES[name], make_mesh(*mesh))
        found = [apart(run(each, weight, microbatches=2), expected) for each in rows]
        (program,) = run.programs.values()
        aliased = program.memory_analysis().alias_size_in_bytes
        print(json.dumps([name, mesh, max(found), aliased, bytes_of(run.like)]), flush=True)
"""


MESH = [2, 2, 2]
ALL = (pytest.mark.slow, pytest.mark.timeout(1800))


@pytest.mark.parametrize(
    ("names", "double", "meshes"),
    [
        (QUICK, False, [MESH]),
        (QUICK, True, []),
        pytest.param(list(OBJECTIVES), False, [MESH], marks=ALL),
        pytest.param(list(OBJECTIVES), True, [MESH], marks=ALL),
    ],
)
def test_devices_and_float64_change_no_gradient_and_give_up_their_memory(
    names: list[str], double: bool, meshes: list[list[int]]
) -> None:
    """In float64 neither do microbatches: none, or one for each row."""
    asked, devices = json.dumps([names, meshes, double]), 8 if meshes else 1
    (said,) = together(ON_EIGHT, asked, count=1, devices=devices, seconds=1700)
    lines = [json.loads(line) for line in said.splitlines()]
    kinds = [*([1, 16] if double else []), *meshes]
    assert [line[:2] for line in lines] == [[name, kind] for name in names for kind in kinds]
    for name, kind, difference, aliased, held in lines:
        assert difference < (ROUNDING if double else WORST), (name, kind, difference)
        assert aliased == held, (name, kind)
