"""Room 6, how the student learns: masked examples in, a student and its metrics out.

    batches.py      examples -> packed rows -> batches; which token bears loss; data order
    losses.py       cross-entropy over the loss-bearing positions only: (weighted sum, total weight)
    optimizer.py    AdamW, warm-up and cosine decay, clipping, no decay on norms
    step.py         one jitted update over a mesh, microbatches accumulated, divided once
    checkpoints.py  Orbax: the newest states and the best parameters, checked when read back
    settings.py     what may be asked of a fine-tuning, checked before any work
    feed.py         the next batches, made and uploaded in the background
    flops.py        model FLOPs of an update: segments, loss-bearing positions
    chips.py        accelerators and their published figures
    meters.py       tokens/s, utilisation, where the wall time went; .jsonl and TensorBoard
    loop.py         update, evaluate, note, keep, stop early or on SIGTERM
    finetune.py     `run`: data, model and loop put together; the same call resumes exactly

Letters as in `model/__init__.py`, and besides

    M  microbatches of a step
    G  groups: the parts of a microbatch that lie on different devices (data x fsdp)
    C  capacity: loss-bearing positions that the head multiplies, per group and microbatch
"""
