"""The whole objective against float64 NumPy, and what must change nothing."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.soft_file import (
    ABSENT,
    SoftFile,
    SoftRows,
    checksum,
    finish,
    response_positions,
    write_part,
)
from opengrok_jax.training import batches, objective
from opengrok_jax.training.objective import Objective
from tests.training import formula

K, ROW = 3, 40
OBJECTIVES = {
    "hard": Objective(),
    "topk": Objective(loss="topk", weight=0.7),
    "forward": Objective(loss="forward_kl", weight=0.4, temperature=2.0),
    "reverse": Objective(loss="reverse_kl", weight=1.0),
    "jsd": Objective(loss="jensen_shannon", weight=0.5, temperature=0.7),
    "states": Objective(feature_weight=0.3, relation_weight=2.0, relation_window=3),
    "all": Objective(loss="forward_kl", weight=0.5, feature_weight=0.1, relation_weight=0.1),
}


@pytest.fixture(scope="module")
def data(examples):
    return [e for e in examples if e.split == "train"][:6]


def randomly(config: Phi3Config, seed: int) -> Phi3:
    graph, state = nnx.split(nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.asarray(rng.normal(0.3, 0.3, x.shape), x.dtype)  # noqa: E731
    return nnx.merge(graph, jax.tree.map(draw, state))


@pytest.fixture(scope="module")
def models(tiny: Phi3Config) -> tuple[Phi3, Phi3]:
    """A student, and a teacher of other weights and depth."""
    deeper = Phi3Config.tiny(
        tiny.vocab_size, hidden_size=tiny.hidden_size, num_hidden_layers=1, num_attention_heads=2
    )

    return randomly(tiny, 1), randomly(deeper, 2)


@pytest.fixture(scope="module")
def soft_file(data, tmp_path_factory) -> SoftFile:
    """Random distributions; every fifth position and the whole of the last example have none."""
    folder, rng, rows = tmp_path_factory.mktemp("soft"), np.random.default_rng(5), []
    for example in data[:-1]:
        count = len(response_positions(example))
        ids = np.stack([rng.permutation(61)[:K] for _ in range(count)]).astype(np.int32)
        logprobs = np.log(rng.dirichlet(np.ones(9), count)[:, :K]).astype(np.float32)
        ids[::5] = ABSENT
        rows.append(SoftRows(id=example.id, fits=checksum(example), ids=ids, logprobs=logprobs))
    write_part(folder, 0, rows, k=K)
    finish(folder, parts=1, k=K, facts={})
    return SoftFile(folder)


def compiled(models: tuple[Phi3, Phi3], asked: Objective, rule: Any = "exclude") -> Any:
    """(student's parameters, batch) -> ((sum, weight), gradient)."""
    graph, params = nnx.split(models[0])
    teacher = models[1] if asked.needs_teacher else None

    def loss(params: Any, batch: batches.Batch) -> Any:
        return objective.summed_loss(
            nnx.merge(graph, params), batch, objective=asked, rule=rule, capacity=80, groups=1,
            teacher=teacher,
        )  # fmt: skip

    function = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda batch: function(params, jax.tree.map(jnp.asarray, batch))


def forward(models: tuple[Phi3, Phi3], batch: batches.Batch) -> formula.Forward:
    """What the formula begins with; the teacher reads every token."""
    student, teacher = models
    assert student.lm_head is not None
    tokens, segments, positions, mask = (jnp.asarray(x) for x in batch[:4])
    hidden = student.hidden(tokens, segments, positions, mask, "exclude")
    states = teacher.hidden(tokens, segments, positions)
    said = (hidden, student.lm_head.weight[...], states, teacher.logits(states))
    return formula.Forward(*(np.asarray(x, np.float64) for x in said))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_equals_the_formula_with_its_gradient_and_packing_changes_nothing(
    name, models, data, soft_file
) -> None:
    asked = OBJECTIVES[name]
    run = compiled(models, asked)
    form = {"row_tokens": ROW, "normalize": "token", "soft_file": soft_file}
    alone = batches.fill([[i] for i in range(6)], data, **form)
    packed = batches.fill([[], [4, 1], [0], [5], [2], [3]], data, **form)
    # Weights that are fractions, by example, so that the other layout can carry the same.
    scale = np.array([1, 0.5, 2, 0.25, 1, 0.75], np.float32)
    alone = alone._replace(loss_weight=alone.loss_weight * scale[:, None])
    order = np.array([[0, 0], [4, 1], [0, 0], [5, 5], [2, 2], [3, 3]])
    segment = np.clip(packed.segment_ids - 1, 0, 1)
    packed = packed._replace(
        loss_weight=packed.loss_weight * np.take_along_axis(scale[order], segment, axis=1)
    )
    ((one, weight), gradient), ((two, other), moved) = run(alone), run(packed)
    said, norm = forward(models, alone), np.asarray(models[0].norm.weight[...], np.float64)
    assert float(one) == pytest.approx(formula.value(asked, alone, said), rel=2e-5)
    found = (gradient["lm_head"]["weight"], gradient["norm"]["weight"])
    for mine, theirs in zip(found, formula.gradient(asked, alone, said, norm), strict=True):
        largest = np.abs(theirs).max()
        np.testing.assert_allclose(mine.get_value(), theirs, rtol=0, atol=1e-5 * largest)
    assert float(two) == pytest.approx(float(one), rel=2e-6)
    assert float(weight) == float(other) == alone.norm_weight.sum()
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * max(1, np.abs(a).max()), rtol=1e-5)


PAIRS = ((1, 3), (2, 1), (1, 2))


def test_features_of_chosen_layers_equal_the_formula_with_their_gradient(models, data) -> None:
    """In float64 as far as the states; from there each number's slope goes back by `hidden_states`
    of all layers, which has no part in what is tested."""
    student, _ = models
    config = Phi3Config.tiny(64, hidden_size=32, num_hidden_layers=3, num_attention_heads=2)
    teacher = randomly(config, 4)
    asked = Objective(feature_weight=0.7, feature_layers=PAIRS)
    batch = batches.fill([[4, 1], [0], [5]], data, row_tokens=ROW, normalize="token")
    batch = batch._replace(
        loss_weight=batch.loss_weight * np.asarray([[1], [0.5], [2]], np.float32)
    )
    (loss, _), gradient = compiled((student, teacher), asked)(batch)

    graph, params = nnx.split(student)
    tokens, segments, positions, visible = (jnp.asarray(x) for x in batch[:4])
    every, pull = jax.vjp(
        lambda p: nnx.merge(graph, p).hidden_states(
            tokens, segments, positions, visible, "exclude"
        ),
        params,
    )
    of_teacher = teacher.hidden_states(tokens, segments, positions)
    mine, theirs = (np.asarray(x, np.float64) for x in (every, of_teacher))
    assert student.lm_head is not None
    head = np.asarray(student.lm_head.weight[...], np.float64)
    slope, of_head, total = np.zeros_like(mine), np.zeros_like(head), 0.0
    for b, t in np.argwhere(batch.loss_weight > 0):
        weight, target = float(batch.loss_weight[b, t]), batch.targets[b, t]
        q = formula.softmax(head @ mine[-1, b, t])
        total -= weight * np.log(q[target])
        by_logit = weight * (q - np.eye(len(q))[target])
        of_head += np.outer(by_logit, mine[-1, b, t])
        slope[-1, b, t] += by_logit @ head
        for i, j in PAIRS:
            here, there, share = mine[i, b, t], theirs[j, b, t], weight * 0.7 / len(PAIRS)
            total += share * formula.feature(here, there)
            slope[i, b, t] += share * formula.differences(
                lambda nudge, h=here, s=there: formula.feature(h + nudge, s), len(here)
            )
    assert float(loss) == pytest.approx(total, rel=2e-6)
    (expected,) = pull(jnp.asarray(slope, jnp.float32))
    expected["lm_head"]["weight"].set_value(jnp.asarray(of_head, jnp.float32))
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_what_stands_where_no_loss_is_changes_nothing(models, data, soft_file) -> None:
    form = {"row_tokens": ROW, "normalize": "token", "soft_file": soft_file}
    batch = batches.fill([[i] for i in range(6)], data, **form)
    idle = batch.loss_weight == 0
    assert batch.soft is not None
    noise = np.random.default_rng(0).integers(0, 61, batch.soft.ids.shape).astype(np.int32)
    soft = batches.Soft(
        np.where(idle[..., None], noise, batch.soft.ids),
        np.where(idle[..., None], np.float32(np.nan), batch.soft.logprobs),
    )
    changed = batch._replace(targets=np.where(idle, 7, batch.targets), soft=soft)
    run = compiled(models, OBJECTIVES["topk"])
    (before, _), gradient = run(batch)
    (after, _), other = run(changed)
    assert float(before) == float(after)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"los": "topk"}, "distill has no los; it has loss, weight"),
        ({"loss": "kl"}, "distill.loss is 'kl' with loss 'kl'; expected one of hard, topk"),
        ({"loss": "topk"}, "distill.weight is 0.0 with loss 'topk'; expected a share"),
        ({"weight": 0.5}, "distill.weight is 0.5 with loss 'hard'; expected 0, or another"),
        ({"loss": "topk", "weight": 1.5}, "distill.weight is 1.5"),
        ({"loss": "topk", "weight": "1"}, "distill.weight is '1' .* expected a number"),
        ({"loss": "topk", "weight": 1, "temperature": 2}, "temperature is 2.0 with loss 'topk'"),
        ({"loss": "forward_kl", "weight": 1, "temperature": 0}, "temperature is 0.0 with loss"),
        ({"relation_window": 4}, "relation_window is 4 .* expected 8 while relation_weight is 0"),
        ({"relation_weight": 1, "relation_window": 0}, "relation_window is 0 .* a whole number"),
        ({"feature_weight": float("nan")}, "feature_weight is nan"),
        (
            {"feature_layers": ((1, 1),)},
            "feature_layers is .* expected .. while feature_weight is 0",
        ),
        ({"feature_weight": 1, "feature_layers": 3}, "feature_layers has 3; expected pairs"),
        ({"feature_weight": 1, "feature_layers": ((0, 1),)}, r"feature_layers has \(0, 1\)"),
        ({"feature_weight": 1, "feature_layers": ((1, 2, 3),)}, "feature_layers has"),
    ],
)
def test_a_wrong_objective_is_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        objective.read(given)


def test_what_an_objective_needs() -> None:
    needs = {n: (o.needs_soft_targets, o.needs_teacher) for n, o in OBJECTIVES.items()}
    assert needs == {
        "hard": (False, False),
        "topk": (True, False),
        "forward": (False, True),
        "reverse": (False, True),
        "jsd": (False, True),
        "states": (False, True),
        "all": (False, True),
    }
    assert objective.read({}) == objective.HARD == Objective()


def test_a_teacher_that_cannot_be_compared_is_refused(tiny: Phi3Config) -> None:
    other = Phi3Config.tiny(tiny.vocab_size + 1, hidden_size=64)
    with pytest.raises(ConfigError, match="has 65 logits and the student 64"):
        objective.check_teacher(tiny, other, OBJECTIVES["forward"])
    with pytest.raises(ConfigError, match="64 wide and the student's 32"):
        objective.check_teacher(tiny, other, Objective(feature_weight=1.0))
    objective.check_teacher(tiny, other, Objective(relation_weight=1.0))
    pairs = objective.read({"feature_weight": 1, "feature_layers": [[2, 4], [1, 5]]})
    assert pairs.feature_layers == ((2, 4), (1, 5))
    with pytest.raises(ConfigError, match="names layer 5 of the teacher, which has 4"):
        objective.check_teacher(tiny, replace(tiny, num_hidden_layers=4), pairs)
    with pytest.raises(ConfigError, match="names layer 2 of the student, which has 1"):
        objective.check_teacher(replace(tiny, num_hidden_layers=1), tiny, pairs)
