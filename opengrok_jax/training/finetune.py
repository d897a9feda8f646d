"""Fine-tuning: masked examples in, a student out; the same command takes an interrupted run up.

out/
  metrics.jsonl     one row per update: step, train_loss, learning_rate, grad_norm, valid_loss
  checkpoints/      see checkpoints.py
  student/          the parameters of the best evaluation; see model/student.py
  summary.json      what `run` returns; written last
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from opengrok_jax import hub, storage, tokenizer_files
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masked_file import read_masked
from opengrok_jax.model.opening import open_model
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import create_sharded, make_mesh
from opengrok_jax.model.student import save_student
from opengrok_jax.progress import say
from opengrok_jax.training import batches, loop, optimizer, settings, step
from opengrok_jax.training.batches import Packed
from opengrok_jax.training.checkpoints import Checkpoints, bytes_on_disk


def run(
    *,
    masked_file: Path,
    out: Path,
    model: dict[str, Any],
    init: str = settings.SCRATCH,
    rule: str = "exclude",
    row_tokens: int = 512,
    rows_per_batch: int = 8,
    microbatches: int = 1,
    epochs: float = 3.0,
    max_steps: int = 0,
    learning_rate: float,
    warmup_share: float = 0.05,
    weight_decay: float = 0.1,
    clip_norm: float = 1.0,
    normalize: str = "token",
    eval_every: int,
    patience: int,
    min_improvement: float = 0.0,
    save_every: int,
    mesh: dict[str, int],
    remat: str = "none",
    attention: str = "auto",
    dtype: str = "float32",
    param_dtype: str = "float32",
    seed: int = 0,
) -> dict[str, Any]:
    """Fine-tunes a student on a masked file.

    Killed at any moment, the same call goes on from the newest checkpoint and ends with the same
    student and the same metrics, bit by bit (on a CPU; elsewhere as far as the device repeats
    itself). On SIGTERM it keeps the state and leaves with status 143.

    Args:
      masked_file: what `opengrok mask` wrote; split "train" is learnt, "valid" steers the stopping.
      out: folder of the results.
      model: sizes of `Phi3Config` for init "scratch"; vocab_size 0 or absent = the tokenizer's,
        rounded up to a multiple of 64. Not used with another `init`, and said so.
      init: "scratch", or what gives sizes and weights: a Hugging Face Phi-3 folder, its name on
        the hub (`owner/model` or `owner/model@revision`), or a student's folder.
      rule: "none", "multiply" or "exclude", see `model.attention`.
      row_tokens: T, tokens of a packed row; no example may be longer.
      rows_per_batch: B, rows of an update.
      microbatches: parts in which an update's rows go through the model, to save memory.
      epochs: how often each row is seen.
      max_steps: ends the run earlier; 0 = no limit. The schedule runs over the steps that result.
      learning_rate: the peak.
      warmup_share: part of the steps over which the rate climbs.
      weight_decay: per unit of rate, not on norms.
      clip_norm: largest global norm of a gradient.
      normalize: "token" = mean over response tokens; "example" = mean over examples of the summed
        response loss, as in the paper.
      eval_every: updates between evaluations (and one at the end); 0 = never, and the student is
        the last state.
      patience: evaluations without improvement after which the run stops; 0 = never.
      min_improvement: nats below the best that count as an improvement.
      save_every: updates between checkpoints (and one at the end); 0 = only at the end.
      mesh: devices along `data`, `fsdp`, `tensor`; -1 takes what is left.
      remat: "none", "dots" or "full", see `Phi3`.
      attention: "auto", "dense", "blockwise", "splash" or "cudnn", see `model.attention`.
      dtype: of the matrix products.
      param_dtype: of the stored parameters. In bfloat16 an update below 1/256 of a weight is lost.
      seed: of the initial weights and of the data order.

    Returns:
      The summary: best_step, best_valid_loss, last_step, stopped_early, normalize, parameters,
      train_examples, valid_examples, rows, packing_efficiency (share of non-padding tokens),
      loss_tokens_per_epoch.

    Raises:
      ConfigError: a wrong value or combination, before any work.
      DataError: examples that are missing or cannot be learnt from.
      CheckpointError: weights or checkpoints that cannot be read.
      RunFolderError: `out` holds a run of other settings.
      TrainingError: the loss or gradient is not finite; the last checkpoint stays.
      StorageError: the disk refused.
    """
    given: Any = dict(locals())  # first statement: the arguments and nothing else
    settings.check(given)
    if jax.process_count() > 1:
        raise ConfigError(
            f"{jax.process_count()} processes were started; a fine-tuning runs in one process, on "
            "all of its devices"
        )
    devices = make_mesh(**cast(Any, mesh))
    groups = step.row_groups(devices)
    settings.check_rows(rows_per_batch, microbatches, groups)

    # ---- data -----------------------------------------------------------------------------
    masked_file, out = Path(masked_file), Path(out)
    examples, provenance = read_masked(masked_file)
    source = None if init == settings.SCRATCH else hub.folder_of(init)
    tokenizer = tokenizer_files.handed_over(masked_file, provenance)
    config = settings.model_config(
        init=source,
        model=model,
        row_tokens=row_tokens,
        tokenizer_vocab=settings.tokenizer_vocab(provenance, masked_file),
        ids=tokenizer_files.ids(tokenizer) if tokenizer else None,
    )
    if source and model:
        say(f"sizes come from {source}/config.json; `model` is for init 'scratch' and not used")
    beside: dict[str, bytes] = {}
    if tokenizer:
        beside = tokenizer_files.of_student(tokenizer, source, config.max_position_embeddings)
    else:
        say(f"{masked_file} does not say which tokenizer made it: the student goes without one")
    batches.check_examples(
        examples, row_tokens=row_tokens, vocab_size=config.vocab_size, where=str(masked_file)
    )
    of_split = {name: [e for e in examples if e.split == name] for name in ("train", "valid")}
    for name in ("train", "valid") if eval_every else ("train",):
        if not of_split[name]:
            raise DataError(
                f"{masked_file} has no {name} examples; raise the share of the split when the "
                "answers are curated" + (", or set eval_every to 0" if name == "valid" else "")
            )
    form: Any = {"row_tokens": row_tokens, "normalize": normalize}
    train = batches.packed(
        of_split["train"],
        lambda rows: batches.data_order(
            rows, rows_per_batch=rows_per_batch, epochs=epochs, max_steps=max_steps, seed=seed
        ),
        **form,
    )

    # ---- model and update -----------------------------------------------------------------
    options: Any = {"dtype": dtype, "remat": remat, "attention": attention}
    create = partial(Phi3, config, param_dtype=param_dtype, **options)
    abstract = nnx.eval_shape(lambda: create(rngs=nnx.Rngs(seed)))
    graph = nnx.graphdef(abstract)
    rate = optimizer.schedule(
        learning_rate=learning_rate, steps=len(train.order), warmup_share=warmup_share
    )
    adamw = optimizer.make_optimizer(rate=rate, weight_decay=weight_decay, clip_norm=clip_norm)
    like = step.abstract_state(abstract, adamw, devices)
    masked: Any = {"rule": rule, "groups": groups}
    update = step.make_train_step(
        graph, adamw, rate, like, capacity=train.capacity(microbatches * groups), **masked
    )
    storage.check_room(out, bytes_on_disk(like))
    evaluate = None
    if eval_every:
        rows = rows_per_batch // microbatches
        valid = batches.packed(
            of_split["valid"], partial(batches.in_order, rows_per_batch=rows), **form
        )
        one = step.make_eval_step(graph, capacity=valid.capacity(groups), **masked)
        evaluate = partial(_mean_loss, one, valid, devices)
    figures = {
        "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(like.params)),
        "train_examples": len(of_split["train"]),
        "valid_examples": len(of_split["valid"]),
        "rows": len(train.rows),
        "packing_efficiency": train.efficiency(),
        "loss_tokens_per_epoch": int(train.bearing().sum()),
    }
    say(
        f"{figures['train_examples']} examples in {len(train.rows)} rows, "
        f"{train.efficiency():.1%} full; {figures['parameters']:,} parameters, "
        f"{len(train.order)} steps"
    )

    # ---- the run --------------------------------------------------------------------------
    identity = {k: v for k, v in given.items() if k not in ("masked_file", "out")}
    identity = json.loads(json.dumps(identity)) | {"data": storage.file_sha256(masked_file)}
    with (
        jax.set_mesh(devices),
        contextlib.closing(Checkpoints(out / "checkpoints")) as checkpoints,
        _termination() as asked_to_end,
    ):
        restored = checkpoints.restore(
            like, lambda host: settings.check_same(host["settings"], identity, out)
        )
        if restored:
            state, host = restored
            standing = loop.Standing(**{k: v for k, v in host.items() if k != "settings"})
            say(f"going on from step {standing.step}")
        else:
            student = (
                create_sharded(lambda: create(rngs=nnx.Rngs(seed)), devices)
                if source is None
                else open_model(source, param_dtype, dtype=dtype, mesh=devices)
            )
            state, standing = step.new_state(student, adamw, like), loop.Standing()
        standing = loop.train(
            state,
            standing,
            data=train,
            place=lambda batch: step.place(batch, devices, microbatches=microbatches),
            update=update,
            evaluate=evaluate,
            checkpoints=checkpoints,
            metrics=out / "metrics.jsonl",
            settings=identity,
            eval_every=eval_every,
            patience=patience,
            min_improvement=min_improvement,
            save_every=save_every,
            asked_to_end=asked_to_end,
        )
        best = checkpoints.best(standing.best_step, like.params)
        save_student(out / "student", nnx.merge(graph, best), config, beside)
    summary = {
        "best_step": standing.best_step,
        "best_valid_loss": standing.best_valid_loss,
        "last_step": standing.step,
        "stopped_early": standing.step < len(train.order),
        "normalize": normalize,
        **figures,
    }
    storage.write_json(out / "summary.json", summary)
    return summary


def _mean_loss(
    one: Callable[[Any, batches.Batch], tuple[jax.Array, jax.Array]],
    data: Packed,
    devices: Mesh,
    params: Any,
) -> float:
    """Loss over a whole split: all sums over all weights, divided once, added up in float64."""
    parts = [one(params, step.place(data.batch(i), devices)) for i in range(len(data.order))]
    total, weight = np.sum(np.array(jax.device_get(parts), np.float64), axis=0)
    return float(total / weight)


@contextlib.contextmanager
def _termination() -> Iterator[Callable[[], bool]]:
    """Notes a SIGTERM instead of dying on it; yields whether one came.

    Signals are the main thread's: elsewhere nothing is changed and none is ever seen.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
