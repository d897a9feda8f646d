"""`opengrok soft-targets`: a local teacher's top-k at every response token, computed once.

The teacher then never sits in memory beside the student: training reads k numbers a token from
disk (soft_file.py). Stopped at any moment, the same call goes on after the last finished part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, Int32

from opengrok_jax import hub, soft_file, storage
from opengrok_jax.errors import ConfigError, DataError, RunFolderError
from opengrok_jax.masked_file import digest, read_masked
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.progress import track
from opengrok_jax.soft_file import SoftRows
from opengrok_jax.training import batches, passes, step
from opengrok_jax.training.losses import CHUNK, gather

K = 32  # log-probabilities of a distribution, unless told otherwise
ROWS_PER_PART = 512
BEGUN = "begun.json"  # what the parts so far were made from


def run(
    *,
    masked_file: Path,
    teacher: str | Path,
    out: Path,
    k: int = K,
    row_tokens: int = 0,
    rows_per_batch: int = 8,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Writes the soft targets of a masked file, both splits.

    Args:
      masked_file: what `opengrok mask` wrote; the teacher reads every token of it.
      teacher: a model's folder or name on the hub, with the tokenizer of the masked file.
      out: folder of the results.
      k: log-probabilities kept of each distribution; the rest is one number, their sum.
      row_tokens: T, tokens of a packed row; 0 = as long as the longest example.
      rows_per_batch: rows that go through the teacher at once.
      dtype: what its matrices are multiplied in.

    Returns:
      response_tokens, aligned_share (1: one vocabulary), mean_stored_mass, k, examples.

    Raises:
      ConfigError: a number out of range, or a teacher of another vocabulary.
      DataError: the masked file cannot be read, or an example does not fit into a row.
      CheckpointError: no teacher in the folder, or a broken one.
      RunFolderError: `out` holds the begun work of other settings.
      StorageError: the disk refused.
    """
    out, masked_file = Path(out), Path(masked_file)
    examples, provenance = read_masked(masked_file, [])
    if not examples:
        raise DataError(f"{masked_file} holds no example")
    longest = max(len(example.tokens) for example in examples)
    row_tokens = row_tokens or longest
    identity = {
        "masked_file": digest(masked_file),
        "teacher": str(teacher),
        "k": k,
        "row_tokens": row_tokens,
        "rows_per_batch": rows_per_batch,  # with it go the borders of the parts
        "dtype": dtype,
    }
    if (out / storage.MANIFEST).exists() and _same(out, identity):
        return soft_file.SoftFile(out).facts
    model, data = passes.prepared(
        examples,
        provenance,
        masked_file=masked_file,
        folder=hub.folder_of(teacher),
        dtype=dtype,
        row_tokens=row_tokens,
        rows_per_batch=rows_per_batch,
    )
    vocab = model.config.vocab_size
    if not 0 < k < vocab:
        raise ConfigError(f"k is {k}; expected 1 to {vocab - 1}, the teacher has {vocab} logits")
    mesh = make_mesh(fsdp=1, devices=jax.local_devices()[:1])
    graph, params = nnx.split(model)
    find = make_topk(graph, k=k, capacity=data.capacity(1))
    per_part = max(1, ROWS_PER_PART // rows_per_batch)
    steps = len(data.order)
    parts = -(-steps // per_part)
    _claim(out, identity)
    done = next((n for n in range(parts) if not soft_file.part(out, n).exists()), parts)
    with (
        jax.set_mesh(mesh),
        track(
            "soft-targets", total=steps, unit="batches", done=min(done * per_part, steps)
        ) as advance,
    ):
        for number in range(done, parts):
            rows: list[SoftRows] = []
            for index in range(number * per_part, min((number + 1) * per_part, steps)):
                batch = step.place(data.batch(index), mesh)
                ids, logprobs = jax.device_get(find(params, batch))
                rows += [
                    SoftRows(
                        id=example.id, fits=soft_file.checksum(example), ids=own, logprobs=likely
                    )
                    for example, (own, likely) in passes.by_example(data, index, ids, logprobs)
                ]
                advance()
            soft_file.write_part(out, number, rows, k=k)
    covered = (row for n in range(parts) for row in soft_file.read_part(out, n, k=k))
    facts = {**soft_file.coverage(covered), "k": k, "examples": len(examples), **identity}
    soft_file.finish(out, parts=parts, k=k, facts=facts)
    return facts


def make_topk(graph: Any, *, k: int, capacity: int) -> Any:
    """(parameters, batch) -> the k most likely tokens of each loss-bearing position, in order.

    Args:
      graph: of the teacher.
      k: how many.
      capacity: C, at least the loss-bearing positions of any batch.

    Returns:
      A function whose results are int32 ids and float32 log-probabilities, (C, k) each; what comes
      after the bearing positions is noise.
    """

    def of_chunk(model: Phi3, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        logprobs, ids = jax.lax.top_k(jax.nn.log_softmax(model.logits(hidden)), k)
        return ids.astype(jnp.int32), logprobs

    def find(
        params: Any, batch: batches.Batch
    ) -> tuple[Int32[Array, "C k"], Float32[Array, "C k"]]:
        model: Any = nnx.merge(graph, params)
        hidden = model.hidden(batch.tokens, batch.segment_ids, batch.positions)
        weight = jnp.asarray(batch.loss_weight)
        (hidden,) = gather((hidden,), weight, capacity, 1)
        return jax.lax.map(
            lambda row: of_chunk(model, row), hidden[0], batch_size=min(CHUNK, hidden.shape[1])
        )

    return jax.jit(find)


def _same(out: Path, identity: dict[str, Any]) -> bool:
    return (out / BEGUN).exists() and storage.read_json(out / BEGUN) == identity


def _claim(out: Path, identity: dict[str, Any]) -> None:
    """Ties the folder to what its parts are made from."""
    if (out / BEGUN).exists() and not _same(out, identity):
        changed = storage.differences(storage.read_json(out / BEGUN), identity)
        raise RunFolderError(
            f"{out} was begun with other settings: {'; '.join(changed)}. Give another folder, or "
            "remove it"
        )
    storage.write_json(out / BEGUN, identity)
