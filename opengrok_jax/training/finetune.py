"""Fine-tuning: masked examples in, a student out; the same command takes an interrupted run up.

out/
  metrics.jsonl     one row per update: step, train_loss, learning_rate, grad_norm, valid_loss
  meters.jsonl      one row per update: seconds by purpose, tokens/s, utilisation; see meters.py
  tensorboard/      both as event files, with `tensorboard=True`
  checkpoints/      see checkpoints.py
  student/          the parameters of the best evaluation; see model/student.py
  adapter/          with LoRA: the student's adapters apart, as PEFT writes them
  summary.json      what `run` returns; written last
"""

from __future__ import annotations

import contextlib
import json
import math
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
from flax import nnx

from opengrok_jax import processes, storage
from opengrok_jax.model import lora as adapters
from opengrok_jax.model.opening import open_model
from opengrok_jax.model.sharding import create_sharded, make_mesh
from opengrok_jax.model.student import digests, save_student
from opengrok_jax.progress import say
from opengrok_jax.training import loop, objective, settings, sigterm, step
from opengrok_jax.training.assembly import ASSEMBLED, assemble
from opengrok_jax.training.checkpoints import Checkpoints, bytes_on_disk
from opengrok_jax.training.meters import Clock, Meters, check_tensorboard, goodput
from opengrok_jax.training.sources import read_sources
from opengrok_jax.training.splits import mean_loss


def run(
    *,
    masked_file: Path,
    out: Path,
    model: dict[str, Any],
    init: str = settings.SCRATCH,
    lora: dict[str, Any] | None = None,
    distill: dict[str, Any] | None = None,
    teacher: str = "",
    soft_targets: str = "",
    rule: str = "exclude",
    draw: str = "fixed",
    row_tokens: int = 512,
    rows_per_batch: int = 8,
    microbatches: int = 1,
    epochs: float = 3.0,
    max_steps: int = 0,
    learning_rate: float,
    warmup_share: float = 0.05,
    schedule: str = "cosine",
    final_share: float = 0.0,
    weight_decay: float = 0.1,
    clip_norm: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    normalize: str = "token",
    loss_weight: str = "uniform",
    eval_every: int,
    patience: int,
    min_improvement: float = 0.0,
    save_every: int,
    mesh: dict[str, int],
    remat: str = "none",
    attention: str = "auto",
    unroll: bool = False,
    dtype: str = "float32",
    param_dtype: str = "float32",
    moments_dtype: str = "float32",
    tensorboard: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Fine-tunes a student on a masked file.

    Killed at any moment, the same call goes on from the newest checkpoint and ends with the same
    student and the same metrics, bit by bit (on a CPU; elsewhere as far as the device repeats
    itself). On SIGTERM it keeps the state and leaves with status 143.

    In several processes (see `processes`; each calls this with the same arguments) the mesh spans
    the devices of all of them, and the losses are those of one process. `out` is on a file system
    that all of them see.

    Args:
      masked_file: what `opengrok mask` wrote; split "train" is learnt, "valid" steers the stopping.
      out: folder of the results.
      model: sizes of `Phi3Config` for init "scratch"; vocab_size 0 or absent = the tokenizer's,
        rounded up to a multiple of 64. Not used with another `init`, and said so.
      init: "scratch", or what gives sizes and weights: a Hugging Face Phi-3 folder, its name on
        the hub (`owner/model` or `owner/model@revision`), or a student's folder.
      lora: None, {} or rank 0 = all parameters are learnt. Else {"rank", "alpha", "targets"}: the
        weights of `init` stay as they are, adapters beside the targets are learnt (all four
        projections if none are named; see `model.lora`) and are added up at the end.
      distill: the terms of the loss, see `objective`; None or {} = cross-entropy on the answer.
      teacher: folder or hub name of the model that some terms compare with; it is run beside the
        student, in `dtype`, and its parameters are kept as they are stored.
      soft_targets: folder of stored log-probabilities, for `distill.loss` "topk"; "" = `soft`
        beside the masked file, where `opengrok mask` leaves those that an API told.
      rule: "none", "multiply" or "exclude", see `model.attention`.
      draw: "fixed" = the stored mask in every epoch; "per_epoch" = drawn again from the stored
        keep_prob in each epoch after the first, on the devices, see `redraw`. Evaluations always
        read the stored one.
      row_tokens: T, tokens of a packed row; no example may be longer.
      rows_per_batch: B, rows of an update.
      microbatches: parts in which an update's rows go through the model, to save memory.
      epochs: how often each row is seen.
      max_steps: ends the run earlier; 0 = no limit. The schedule runs over the steps that result.
      learning_rate: the peak.
      warmup_share: part of the steps over which the rate climbs.
      schedule: "cosine", "linear" or "constant": how the rate falls after that.
      final_share: part of the peak that it falls to; 0 with "constant".
      weight_decay: per unit of rate, not on norms.
      clip_norm: largest global norm of a gradient.
      b1, b2: what AdamW's moments keep of themselves in an update.
      eps: added to the root of the second moment.
      normalize: "token" = mean over response tokens; "example" = mean over examples of the summed
        response loss, as in the paper.
      loss_weight: "uniform" = every response token counts alike; "keep_prob" = as much as it is
        likely to stay visible, see `batches.fill`: what the mask can be compared with.
      eval_every: updates between evaluations (and one at the end); 0 = never, and the student is
        the last state.
      patience: evaluations without improvement after which the run stops; 0 = never.
      min_improvement: nats below the best that count as an improvement.
      save_every: updates between checkpoints (and one at the end); 0 = only at the end.
      mesh: devices along `data`, `fsdp`, `tensor`; -1 takes what is left.
      remat: "none", "dots", "full" or "offload", see `Phi3`.
      attention: "auto", "dense", "blockwise", "splash" or "cudnn", see `model.attention`.
      unroll: the blocks one after another instead of a loop, see `Phi3`: faster on a GPU.
      dtype: of the matrix products. "bfloat16" with param_dtype "float32" is what is called mixed
        precision with float32 master weights: there is one copy, rounded where it is multiplied.
      param_dtype: of the stored parameters. In bfloat16 an update below 1/256 of a weight is lost.
      moments_dtype: of AdamW's stored moments; the arithmetic is float32. "bfloat16" saves 4 bytes
        a trained parameter and costs a few percent of accuracy, see `optimizer.stored_in`.
      tensorboard: writes event files beside the two .jsonl files (extra "tensorboard").
      seed: of the initial weights and of the data order.

    Returns:
      The summary: best_step, best_valid_loss, last_step, stopped_early, normalize, parameters,
      trained_parameters, train_examples, valid_examples, rows, packing_efficiency (share of
      non-padding tokens), loss_tokens_per_epoch, and with soft targets soft_share (of the response
      tokens that have one).

    Raises:
      ConfigError: a wrong value or combination, before any work.
      DataError: examples that are missing or cannot be learnt from.
      CheckpointError: weights or checkpoints that cannot be read.
      RunFolderError: `out` holds a run of other settings.
      TrainingError: the loss or gradient is not finite; the last checkpoint stays.
      StorageError: the disk refused.
      MissingExtra: `tensorboard` without its extra.
    """
    given: Any = dict(locals())  # first statement: the arguments and nothing else
    clock = Clock("start")
    settings.check(given)
    options = settings.lora_options(lora, init)
    aim = objective.read(distill or {})
    settings.check_sources(aim, teacher=teacher, soft_targets=soft_targets)
    if tensorboard:
        check_tensorboard()
    devices = make_mesh(**cast(Any, mesh))
    groups = step.row_groups(devices)
    settings.check_rows(rows_per_batch, microbatches, groups)

    # ---- what it is made of -----------------------------------------------------------------
    out = Path(out)
    sources = read_sources(given, aim)
    config, train, valid = sources.config, sources.train, sources.valid
    made = assemble(
        config,
        devices,
        steps=len(train.order),
        capacity=train.capacity(microbatches * groups),
        lora=options,
        objective=aim,
        teacher=sources.teacher_config,
        **{name: given[name] for name in ASSEMBLED},
    )
    like = made.like
    needed = bytes_on_disk(like, made.base if options else ())
    processes.on_first(lambda: (storage.clear_partial(out), storage.check_room(out, needed)))
    evaluate = None
    if valid:
        one = step.make_eval_step(
            made.graph, rule=cast(Any, rule), capacity=valid.capacity(groups), groups=groups
        )
        evaluate = partial(mean_loss, one, valid, devices)
    figures = {
        "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(made.base)),
        "trained_parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(like.params)),
        **sources.figures,
    }
    say(
        f"{figures['train_examples']} examples in {len(train.rows)} rows, "
        f"{train.efficiency():.1%} full; {figures['trained_parameters']:,} parameters to learn, "
        f"{len(train.order)} steps"
    )

    # ---- the run --------------------------------------------------------------------------
    identity = {k: v for k, v in given.items() if k not in ("masked_file", "out", "lora")}
    identity = json.loads(json.dumps(identity)) | sources.digests
    processes.check_same("settings or data", json.dumps(identity))
    with (
        jax.set_mesh(devices),
        contextlib.closing(Checkpoints(out / "checkpoints")) as checkpoints,
        contextlib.closing(
            Meters(
                out / "meters.jsonl" if processes.first() else None,
                clock,
                config=config,
                adapters=figures["trained_parameters"] if options else None,
                device_kind=devices.devices.flat[0].device_kind,
                devices=devices.size,
                tensorboard=out / "tensorboard" if tensorboard else None,
            )
        ) as meters,
        sigterm.noted() as asked_to_end,
    ):
        on_devices: Any = {"dtype": dtype, "mesh": devices}
        load = partial(open_model, cast(Path, sources.init), param_dtype, **on_devices)
        frozen: tuple[Any, ...] = ()
        if options:  # no checkpoint holds the base: it is read again, and must still be the same
            frozen = (nnx.state(load(), nnx.Param),)
            identity |= {"lora": options, "base_digest": storage.fingerprint(digests(frozen), {})}
        of_teacher = None
        if sources.teacher:
            of_teacher = nnx.state(open_model(sources.teacher, **on_devices), nnx.Param)
            identity |= {"teacher_digest": storage.fingerprint(digests(of_teacher), {})}
        restored = checkpoints.restore(
            like, lambda host: settings.check_same(host["settings"], identity, out)
        )
        if restored:
            state, host = restored
            standing = loop.Standing(**{k: v for k, v in host.items() if k != "settings"})
            say(f"going on from step {standing.step}")
        else:
            student = (
                create_sharded(made.create, devices, made.trainable, *frozen)
                if options or sources.init is None
                else load()
            )
            state = step.new_state(student, made.optimizer, like, made.trainable)
            standing = loop.Standing()
        standing = loop.train(
            state,
            standing,
            data=train,
            place=lambda batch: step.place(batch, devices, microbatches=microbatches),
            update=lambda state, batch: made.update(state, batch, *frozen, of_teacher=of_teacher),
            evaluate=partial(evaluate, frozen) if evaluate else None,
            checkpoints=checkpoints,
            metrics=out / "metrics.jsonl",
            meters=meters,
            settings=identity,
            eval_every=eval_every,
            patience=patience,
            min_improvement=min_improvement,
            save_every=save_every,
            asked_to_end=processes.any_asks(asked_to_end),
        )
        best = checkpoints.best(standing.best_step, like.params)
        student = nnx.merge(made.graph, best, *frozen)
        if options:
            adapters.save_adapter(out / "adapter", student, init)
            student = adapters.merged(student)
        save_student(out / "student", student, config, sources.beside)
    summary = {
        "best_step": standing.best_step,
        "best_valid_loss": standing.best_valid_loss,
        "last_step": standing.step,
        "stopped_early": standing.step < len(train.order),
        "normalize": normalize,
        **figures,
    }
    if processes.first():
        shares = goodput(storage.read_jsonl(out / "meters.jsonl"))
        said = ", ".join(f"{share:.1%} {phase}" for phase, share in shares.items())
        say(f"wall time: {said or 'nothing was left to do'}")
        storage.write_json(out / "summary.json", summary)
    # Too late to stop anything here, but not for what would come after.
    if processes.any_asks(asked_to_end)():
        raise SystemExit(sigterm.STATUS)
    return summary
