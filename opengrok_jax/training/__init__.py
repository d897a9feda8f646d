"""Room 6, how the student learns: masked examples in, a student and its metrics out.

  the data
    splits.py       the examples of a masked file -> two packed splits
    packing.py      which example goes into which row, which row into which step
    batches.py      rows as arrays; which token bears loss
    feed.py         the next batches, made and uploaded in the background
    passes.py       one pass of a model over a masked file, for
    soft_targets.py   `opengrok soft-targets`: a local teacher's top-k, stored once
    example_losses.py `opengrok losses`: what a student finds hard
  the update
    losses.py       cross-entropy; weighted sums over the positions that bear loss, in chunks
    divergences.py  how far the student is from a teacher: top-k, full logits, states, relations
    objective.py    which of them are minimised, with what weights
    optimizer.py    AdamW, warm-up and cosine decay, clipping, no decay on norms
    step.py         one jitted update over a mesh, microbatches accumulated, divided once
    assembly.py     model, optimizer and update put together from shapes alone
  the run
    settings.py     what may be asked of a fine-tuning, checked before any work
    sources.py      what it is made from, read and held against each other
    checkpoints.py  Orbax: the newest states and the best parameters, checked when read back
    sigterm.py      a SIGTERM, noted
    loop.py         update, evaluate, note, keep, stop early or on SIGTERM
    flops.py        model FLOPs of an update: segments, loss-bearing positions
    chips.py        accelerators and their published figures
    meters.py       tokens/s, utilisation, where the wall time went; .jsonl and TensorBoard
    finetune.py     `run`: all of it; the same call resumes exactly
  before the run
    plan.py         `opengrok plan`: does it fit, how long, how much money; beside it
                    slices.py (what is rented), plan_data.py (how much there is to learn),
                    plan_compile.py and hlo.py (the compiler's word), plan_analytic.py (by hand),
                    plan_search.py (the largest microbatch), plan_table.py (what is shown)

Letters as in `model/__init__.py`, and besides

    M  microbatches of a step
    G  groups: the parts of a microbatch that lie on different devices (data x fsdp)
    C  capacity: loss-bearing positions that the head multiplies, per group and microbatch
"""
