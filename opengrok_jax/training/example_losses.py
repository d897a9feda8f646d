"""`opengrok losses`: what a student does not know yet, as its mean loss on each answer.

`refinement.losses_file` reads them: answers that the student finds hard count as gain, so that the
next round of questions goes there.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float32

from opengrok_jax import hub, soft_file, storage
from opengrok_jax.cache import AnswerCache, key_of
from opengrok_jax.errors import DataError
from opengrok_jax.masked_file import read_masked
from opengrok_jax.model.attention import Rule
from opengrok_jax.model.opening import weights_made_of
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.progress import track
from opengrok_jax.records import MaskedExample
from opengrok_jax.training import batches, passes, step
from opengrok_jax.training.losses import CHUNK, cross_entropy, gather


def run(
    *,
    masked_file: Path,
    student: str | Path,
    out: Path,
    rule: Rule = "none",
    rows_per_batch: int = 8,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Writes a row {"prompt_id", "loss", "tokens"} for each example of both splits, in their order.

    The loss is the mean over the answer's tokens, in nats. Until all are there, those that are lie
    in OUT.begun, by hashes of what they are made of: the same call goes on.

    Args:
      masked_file: what `opengrok mask` wrote.
      student: its folder, a Hugging Face folder of Phi-3, or a name on the hub.
      out: the file to write.
      rule: how the student reads the prompt; "none" = all of it, as when it is asked.
      rows_per_batch: rows that go through it at once.
      dtype: what its matrices are multiplied in.

    Returns:
      examples, tokens, and the mean loss of a token.

    Raises:
      ConfigError: a student of another vocabulary.
      DataError: the masked file cannot be read, or holds no example.
      CheckpointError: no student in the folder, or a broken one.
      StorageError: the disk refused.
    """
    out, masked_file = Path(out), Path(masked_file)
    examples, provenance = read_masked(masked_file, [])
    if not examples:
        raise DataError(f"{masked_file} holds no example")
    folder = hub.folder_of(student)
    model, data = passes.prepared(
        examples,
        provenance,
        masked_file=masked_file,
        folder=folder,
        dtype=dtype,
        row_tokens=max(len(example.tokens) for example in examples),
        rows_per_batch=rows_per_batch,
    )
    made_of = {"student": weights_made_of(folder), "rule": rule, "dtype": dtype}
    keys = {example.id: key_of(**made_of, example=_print_of(example, rule)) for example in examples}
    begun = AnswerCache(out.with_name(f"{out.name}.begun"))
    graph, params = nnx.split(model)
    find = make_losses(graph, rule=rule, capacity=data.capacity(1))
    mesh, steps = make_mesh(fsdp=1, devices=jax.local_devices()[:1]), len(data.order)
    with jax.set_mesh(mesh), track("losses", total=steps, unit="batches") as advance:
        for index in range(steps):
            if any(keys[e.id] not in begun for e, _ in passes.by_example(data, index)):
                found = jax.device_get(find(params, step.place(data.batch(index), mesh)))
                begun.add(
                    (keys[example.id], float(np.mean(own, dtype=np.float64)))
                    for example, (own,) in passes.by_example(data, index, found)
                )
            advance()
    rows = [
        {
            "prompt_id": example.id,
            "loss": begun[keys[example.id]],
            "tokens": len(soft_file.response_positions(example)),
        }
        for example in examples
    ]
    storage.write_jsonl(out, rows)
    begun.path.unlink(missing_ok=True)
    tokens = sum(row["tokens"] for row in rows)
    mean = sum(row["loss"] * row["tokens"] for row in rows) / tokens
    return {"examples": len(rows), "tokens": tokens, "mean_loss": mean}


def make_losses(graph: Any, *, rule: Rule, capacity: int) -> Any:
    """(parameters, batch) -> the cross-entropy at each loss-bearing position, in order.

    Args:
      graph: of the student.
      rule: of the masked attention.
      capacity: C, at least the loss-bearing positions of any batch.

    Returns:
      A function whose result is float32 nats, (C,); after the bearing positions comes noise.
    """

    def find(params: Any, batch: batches.Batch) -> Float32[Array, " C"]:
        model: Any = nnx.merge(graph, params)
        hidden = model.hidden(
            batch.tokens, batch.segment_ids, batch.positions, batch.key_mask, rule
        )
        arrays = (hidden, jnp.asarray(batch.targets))
        hidden, targets = gather(arrays, jnp.asarray(batch.loss_weight), capacity, 1)
        return jax.lax.map(
            lambda row: cross_entropy(model.logits(row[0]), row[1]),
            (hidden[0], targets[0]),
            batch_size=min(CHUNK, hidden.shape[1]),
        )

    return jax.jit(find)


def _print_of(example: MaskedExample, rule: Rule) -> list[int]:
    """Names the tokens and roles, and the mask where the rule reads one."""
    mask = 0 if rule == "none" else zlib.crc32(example.key_mask.tobytes())
    return [soft_file.checksum(example), mask]
