"""One gradient of fixed examples, however they lie: what the tests of exactness compare.

Import it in a process of its own, too: nothing here depends on pytest.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import parameter_shardings
from opengrok_jax.records import MaskedExample
from opengrok_jax.soft_file import ABSENT, response_positions
from opengrok_jax.tokenizer import PROMPT, RESPONSE, TEMPLATE
from opengrok_jax.training import batches, step
from opengrok_jax.training.objective import Objective

VOCAB, ROW, K, PAD = 64, 40, 3, 0
PRECISION: Any = np.float32
OBJECTIVES = {
    "hard": Objective(),
    "topk": Objective(loss="topk", weight=0.7),
    "forward_kl": Objective(loss="forward_kl", weight=0.4, temperature=2.0),
    "reverse_kl": Objective(loss="reverse_kl", weight=1.0),
    "jensen_shannon": Objective(loss="jensen_shannon", weight=0.5, temperature=0.7),
    "feature": Objective(feature_weight=0.3),
    "relation": Objective(relation_weight=2.0, relation_window=3),
    "together": Objective(
        loss="topk",
        weight=0.5,
        feature_weight=0.1,
        feature_layers=((1, 1), (2, 1)),
        relation_weight=0.5,
        relation_window=2,
    ),
}
CAPACITY = 64  # more than all examples have
GRADIENT = optax.sgd(1.0, momentum=0.0)  # its state is the gradient, not rounded by any parameter

STUDENT = Phi3Config.tiny(
    VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.2,
)
TEACHER = Phi3Config.tiny(
    VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, initializer_range=0.4
)


def double() -> None:
    """The same programs in float64, for a process of its own: float32 means float64 from here on."""
    global PRECISION
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64
    PRECISION = np.float64


@functools.cache
def examples() -> list[MaskedExample]:
    """Ten of 5 to 18 tokens; every answer ends in the token that pads, as pad == eos has it."""
    rng = np.random.default_rng(11)

    def one(number: int) -> MaskedExample:
        length, response = int(rng.integers(5, 19)), int(rng.integers(2, 5))
        tokens = rng.integers(0, VOCAB, length).astype(np.int32)
        tokens[-1] = PAD
        roles = np.full(length, PROMPT, np.int8)
        roles[0], roles[length - response :] = TEMPLATE, RESPONSE
        key_mask = rng.random(length) < 0.7
        key_mask[0] = True
        factor = dict.fromkeys(
            ("tfidf", "pos", "dep", "random", "keep_prob"), np.zeros(length, np.float32)
        )
        about: Any = {"id": f"{number:016x}", "split": "train"}
        return MaskedExample(**about, tokens=tokens, roles=roles, key_mask=key_mask, **factor)

    return [one(number) for number in range(10)]


@functools.cache
def stored() -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and log-probabilities of each example's answer; some positions have none."""
    rng = np.random.default_rng(5)

    def one(example: MaskedExample) -> tuple[np.ndarray, np.ndarray]:
        count = len(response_positions(example))
        ids = np.stack([rng.permutation(VOCAB)[:K] for _ in range(count)]).astype(np.int32)
        ids[rng.random(count) < 0.2] = ABSENT
        return ids, np.log(rng.dirichlet(np.ones(9), count)[:, :K]).astype(np.float32)

    return [one(example) for example in examples()]


def weights(draw: Any) -> list[np.ndarray]:
    """Each answer's weights: fractions, zeros among them, an example with hardly any weight."""
    chosen = [
        draw.choice([0, 0.25, 0.5, 1, 1.7, draw.random()], len(response_positions(example)))
        for example in examples()
    ]
    chosen[0][:] = 1  # something is always learnt
    return [each.astype(np.float32) for each in chosen]


def rows_of(draw: Any, count: int, *, skewed: bool) -> list[list[int]]:
    """Some way to put the examples into `count` rows: `skewed` leaves most of them empty."""
    rows: list[list[int]] = [[] for _ in range(count)]
    free = np.full(count, ROW)
    for index in draw.permutation(len(examples())):
        length = len(examples()[index].tokens)
        fitting = np.flatnonzero(free >= length)
        row = fitting[0] if skewed else draw.choice(fitting)
        rows[row].append(int(index))
        free[row] -= length
    return [rows[row] for row in draw.permutation(count)]


def laid_out(
    rows: Sequence[Sequence[int]], weight: Sequence[np.ndarray], *, soft: bool
) -> batches.Batch:
    """The batch of these rows, each position with its example's weight and stored distribution."""
    batch = batches.fill(rows, examples(), row_tokens=ROW, normalize="token")
    shape = batch.tokens.shape
    logprobs = np.zeros((*shape, K), np.float32)
    ids, loss_weight = np.full((*shape, K), ABSENT, np.int32), np.zeros(shape, np.float32)
    for b, row in enumerate(rows):
        start = 0
        for index in row:
            bearing = response_positions(examples()[index]) + start
            loss_weight[b, bearing] = weight[index]
            ids[b, bearing], logprobs[b, bearing] = stored()[index]
            start += len(examples()[index].tokens)
    batch = batch._replace(loss_weight=loss_weight, norm_weight=loss_weight.copy())
    batch = batch._replace(soft=batches.Soft(ids, logprobs)) if soft else batch
    return jax.tree.map(lambda x: x.astype(PRECISION) if x.dtype == np.float32 else x, batch)


@functools.cache
def parameters(config: Phi3Config, seed: int) -> Mapping[str, Any]:
    """Random ones, norms included."""
    state = nnx.state(nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0))), nnx.Param)
    rng = np.random.default_rng(seed)
    centres = {True: 1.0, False: 0.0}

    def draw(path: Any, x: jax.ShapeDtypeStruct) -> np.ndarray:
        centre = centres["norm" in jax.tree_util.keystr(path)]
        drawn = rng.normal(centre, config.initializer_range, x.shape).astype(np.float32)
        return drawn.astype(PRECISION)

    return jax.tree_util.tree_map_with_path(draw, state)


class Update:
    """The real update of one objective on one mesh; each shape of a batch is compiled once."""

    def __init__(self, asked: Objective, mesh: Mesh):
        self.asked, self.mesh = asked, mesh
        self.programs: dict[tuple[int, ...], Any] = {}  # by the shape of the batch
        student, teacher = (nnx.eval_shape(make(config)) for config in (STUDENT, TEACHER))
        self.like = step.abstract_state(student, GRADIENT, mesh)
        self.of_teacher = None
        if asked.needs_teacher:
            self.of_teacher = jax.device_put(
                parameters(TEACHER, 2), parameter_shardings(teacher, mesh)
            )
        self.update = step.make_train_step(
            nnx.graphdef(student),
            GRADIENT,
            optax.constant_schedule(1.0),
            self.like,
            rule="exclude",
            capacity=CAPACITY,
            groups=step.row_groups(mesh),
            objective=asked,
            teacher=nnx.graphdef(teacher) if asked.needs_teacher else None,
        )

    def __call__(
        self,
        rows: Sequence[Sequence[int]],
        weight: Sequence[np.ndarray],
        *,
        microbatches: int = 1,
    ) -> tuple[float, Any]:
        """The loss, and the gradient as a tree of NumPy arrays."""
        return self.of(laid_out(rows, weight, soft=self.asked.needs_soft_targets), microbatches)

    def of(self, batch: batches.Batch, microbatches: int = 1) -> tuple[float, Any]:
        """The same of any batch."""
        params = jax.tree.map(jnp.asarray, parameters(STUDENT, 1))
        state = step.TrainState(jnp.zeros((), jnp.int32), params, GRADIENT.init(params))
        with jax.set_mesh(self.mesh):
            state = jax.device_put(state, step.shardings(self.like))
            placed = step.place(batch, self.mesh, microbatches=microbatches)
            key = placed.tokens.shape
            if key not in self.programs:
                lowered = self.update.lower(state, placed, of_teacher=self.of_teacher)  # type: ignore[attr-defined]
                self.programs[key] = lowered.compile()
            state, report = self.programs[key](state, placed, of_teacher=self.of_teacher)
        trace = optax.tree_utils.tree_get(state.opt_state, "trace")
        return float(report.loss), jax.tree.map(np.asarray, trace)


def bytes_of(state: step.TrainState) -> int:
    """What a device holds of a state."""
    held = (
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(state)
    )
    return sum(held)


def make(config: Phi3Config) -> Any:
    how = {"dtype": PRECISION, "param_dtype": PRECISION}
    return lambda: Phi3(config, rngs=nnx.Rngs(0), **how)


def apart(found: tuple[float, Any], expected: tuple[float, Any]) -> float:
    """How far two answers are apart, relatively: the loss, or the worst parameter's gradient.

    Of a gradient it is the Euclidean norm of the difference over that of the gradient, parameter by
    parameter, so that no small one hides behind a large one.
    """
    pairs = zip(*map(jax.tree.leaves, (found[1], expected[1])), strict=True)
    gradients = [_norm(a.astype(np.float64) - b) / _norm(b) for a, b in pairs]
    return max(*gradients, abs(found[0] - expected[0]) / abs(expected[0]))


def _norm(x: np.ndarray) -> float:
    return float(np.linalg.norm(x.astype(np.float64)))
