"""The labels of a task as one tree of tokens behind each prompt, which is read only once.

Every label of a question follows the same prompt; only a few tokens at its end differ. So a row is
the prompt and behind it, once, every distinct beginning of a label:

    labels     "so so <end>"   "so good <end>"          nodes   so  so  good
    prompt     p0 p1 p2                                 place    3   4   4
    row        p0 p1 p2 | so so good                    sees     prompt and the nodes above it

    log P("so good <end>") = log P(so | p2) + log P(good | so) + log P(<end> | good)

The last token of a label is never read, only predicted. This gives what one row a label gives (the
oracle of the tests, `predict.response_log_probs`), for 1 / labels of the tokens where prompts are
long.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from opengrok_jax.model.attention import Rule, attend, attention
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.rope import rope_angles
from opengrok_jax.model.rows import row_segments

_HEAD_ROWS = 256  # rows of logits at once; more takes memory and no longer time


class LabelTree(NamedTuple):
    """The labels as a tree: N nodes that are read, E edges that are predicted.

    Attributes:
      tokens: of each node.
      depth: 1 for the first token of a label.
      above: [i, j] is node j the node i, or on its way to the prompt?
      edge_from: 0 for the prompt's last token, else 1 + the node.
      edge_token: which token is predicted there.
      on_path: [label, edge] does the label take this edge?
    """

    tokens: Int32[np.ndarray, " N"] | Int[Array, " N"]
    depth: Int32[np.ndarray, " N"] | Int[Array, " N"]
    above: Bool[np.ndarray, "N N"] | Bool[Array, "N N"]
    edge_from: Int32[np.ndarray, " E"] | Int[Array, " E"]
    edge_token: Int32[np.ndarray, " E"] | Int[Array, " E"]
    on_path: Bool[np.ndarray, "labels E"] | Bool[Array, "labels E"]


def label_tree(labels: Sequence[Sequence[int]]) -> LabelTree:
    """The tree of some labels' token ids, the token that ends the answer included."""
    nodes: dict[tuple[int, ...], int] = {}
    edges: dict[tuple[int, ...], int] = {}
    for label in labels:
        for length in range(1, len(label) + 1):
            beginning = tuple(map(int, label[:length]))
            edges.setdefault(beginning, len(edges))
            if length < len(label):
                nodes.setdefault(beginning, len(nodes))
    above = [[a[: len(b)] == b for b in nodes] for a in nodes]
    paths = np.zeros((len(labels), len(edges)), bool)
    for row, label in enumerate(labels):
        for length in range(1, len(label) + 1):
            paths[row, edges[tuple(map(int, label[:length]))]] = True
    return LabelTree(
        tokens=np.array([node[-1] for node in nodes], np.int32),
        depth=np.array([len(node) for node in nodes], np.int32),
        above=np.array(above, bool).reshape(len(nodes), len(nodes)),
        edge_from=np.array([1 + nodes[e[:-1]] if e[:-1] else 0 for e in edges], np.int32),
        edge_token=np.array([e[-1] for e in edges], np.int32),
        on_path=paths,
    )


@functools.partial(jax.jit, static_argnames=("graph", "rule"))
def label_log_probs(
    graph: Any,
    state: Any,
    tree: LabelTree,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    key_mask: Bool[Array, "B T"] | None,
    rule: Rule,
) -> Float32[Array, "B labels"]:
    """log P(label | prompt) of every label, in nats, its last token included.

    Args:
      prompts: flush left, padded; lengths are their tokens, 0 for an empty row.
      key_mask: which tokens of the prompts may be attended to, for the rules that read one; those
        of the labels always may.
    """
    model = nnx.merge(graph, state)
    hidden = _hidden(model, tree, prompts, lengths, key_mask, rule)
    last = jnp.maximum(lengths - 1, 0)[:, None, None]
    ends = jnp.take_along_axis(hidden, last, axis=1)
    states = jnp.concatenate([ends, hidden[:, prompts.shape[1] :]], axis=1)

    def edges(states: Float[Array, "nodes D"]) -> Float32[Array, " E"]:
        logits = model.logits(states)
        totals = jax.nn.logsumexp(logits, axis=-1)
        return logits[tree.edge_from, tree.edge_token] - totals[tree.edge_from]

    together = max(1, min(states.shape[0], _HEAD_ROWS // states.shape[1]))
    logs = jax.lax.map(edges, states, batch_size=together)
    return jnp.sum(jnp.where(tree.on_path[None], logs[:, None, :], 0.0), axis=-1)


def _hidden(
    model: Phi3,
    tree: LabelTree,
    prompts: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    key_mask: Bool[Array, "B T"] | None,
    rule: Rule,
) -> Float[Array, "B S D"]:
    """The decoder's output for the prompts and, behind them, the nodes: S = T + N."""
    batch, width = prompts.shape
    segments = row_segments(lengths, width)
    place = jnp.broadcast_to(jnp.arange(width)[None], prompts.shape)
    node_place = lengths[:, None] + tree.depth[None] - 1
    positions = jnp.concatenate([place, node_place], axis=1)
    nodes = jnp.broadcast_to(jnp.asarray(tree.tokens)[None], node_place.shape)
    tokens = jnp.concatenate([prompts, nodes], axis=1)
    # With LongRoPE a row turns by its length; the caller keeps rows away from the threshold.
    cos, sin = rope_angles(
        model.config, positions, jnp.broadcast_to(lengths[:, None] + 1, positions.shape)
    )
    of_prompt = jnp.broadcast_to((segments > 0)[:, None, :], (*node_place.shape, width))
    if rule == "exclude" and key_mask is not None:
        of_prompt &= key_mask[:, None, :]
    of_nodes = jnp.broadcast_to(tree.above[None], (batch, *tree.above.shape))
    visible = jnp.concatenate([of_prompt, of_nodes], axis=2)
    window = model.config.sliding_window
    if window is not None:
        visible &= positions[:, None, :] > node_place[:, :, None] - window
    multiplier = None
    if rule == "multiply" and key_mask is not None:
        multiplier = jnp.concatenate([key_mask, jnp.ones(node_place.shape, bool)], axis=1)

    def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        before = attention(
            q[:, :width], k[:, :width], v[:, :width],
            key_mask, segments, rule, window, model.attention,
        )  # fmt: skip
        behind = attend(q[:, width:], k, v, visible, multiplier)
        return jnp.concatenate([before, behind], axis=1), None

    x = model.embed_tokens(tokens).astype(model.dtype)
    graph, stacked = nnx.split(model.layers)

    def step(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        return nnx.merge(graph, layer)(x, cos, sin, mix)

    x, _ = jax.lax.scan(step, x, stacked)
    return model.norm(x)
