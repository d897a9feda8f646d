"""The systems that gpu.py puts on the card, one in a process: the card's own rates, this package,
transformers in a plain loop, TRL.
"""

# pyright: reportMissingImports=false
# The peers are installed by whoever measures.
from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import _work

RATE, DECAY, CLIP, BETAS = 1e-5, 0.1, 1.0, (0.9, 0.95)
PACKAGES = ("jax", "torch", "transformers")


def examples(flags: argparse.Namespace) -> list[Any]:
    """As many as a few updates read."""
    if flags.rows_of == "dense":
        return _work.full_rows(2 * flags.rows * flags.microbatches, flags.row_tokens)
    return _work.posts(flags.data, 10_000)


def published(flags: argparse.Namespace) -> Any:
    """Phi-3-mini without its window of 2,047 keys, for which transformers' sdpa forms (T, T)."""
    import dataclasses

    from opengrok_jax.model import config

    sizes = config.published("phi-3-mini-4k")
    return dataclasses.replace(sizes, sliding_window=None, num_hidden_layers=flags.layers)


# ---- the card ---------------------------------------------------------------------------------
def ceiling(_: argparse.Namespace) -> dict[str, Any]:
    """Rates of large products, JAX's and torch's, and of a large copy; the best of several."""
    rates = {"torch": torch_products()}  # first: JAX takes the memory that is left
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 2)
    left, right = (jax.random.normal(key, (8192, 8192), jnp.bfloat16) for key in keys)
    right /= 8192**0.5  # so that the products of products stay as large as they are
    many = 60

    @jax.jit
    def products(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, many, lambda _, x: x @ right, left)

    @jax.jit
    def copies(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, many, lambda _, y: y + 1, x)

    big = jnp.zeros(2**30, jnp.float32)
    moved = many * 2 * big.nbytes
    seconds = best(lambda: jax.block_until_ready(products(left, right)))
    rates["jax"] = round(many * 2 * 8192**3 / seconds / 1e12, 1)
    seconds = best(lambda: jax.block_until_ready(copies(big)))
    return {
        "device": jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "matrix_tflops": max(rate for rate in rates.values() if rate),
        "matrix_tflops_by": rates,
        "copy_tb_per_second": round(moved / seconds / 1e12, 2),
    }


def torch_products() -> float | None:
    """TFLOP/s of 8192 x 8192 products in torch; None without it."""
    try:
        import torch
    except ImportError:
        return None
    left, right = (torch.randn(8192, 8192, device=card(), dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(60):
            torch.matmul(left, right)
        synchronize()

    return round(60 * 2 * 8192**3 / best(products) / 1e12, 1)


def best(call: Callable[[], Any]) -> float:
    """Least seconds of a call."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


# ---- this package -----------------------------------------------------------------------------
def ours(flags: argparse.Namespace) -> dict[str, Any]:
    """The update of `finetune.run` over packed rows."""
    import jax

    from opengrok_jax.model.sharding import create_sharded, make_mesh
    from opengrok_jax.training import batches, flops, packing, step
    from opengrok_jax.training.assembly import assemble

    config = published(flags)
    rows = flags.rows * flags.microbatches
    data = batches.packed(
        examples(flags),
        lambda some: packing.in_order(some, rows_per_batch=rows)[: max(1, some // rows)],
        row_tokens=flags.row_tokens,
        normalize="token",
    )
    mesh = make_mesh(data=1, fsdp=1)
    made = assemble(
        config, mesh, steps=10**6, capacity=data.capacity(flags.microbatches), rule=flags.rule,
        learning_rate=RATE, warmup_share=0.0, weight_decay=DECAY, clip_norm=CLIP,
        remat=flags.remat, attention=flags.attention, unroll=bool(flags.unroll), dtype="bfloat16",
        param_dtype=flags.param_dtype, moments_dtype=flags.moments_dtype, seed=0,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        model = create_sharded(made.create, mesh, made.trainable)
        state = step.new_state(model, made.optimizer, made.like, made.trainable)
        del model
        host = [data.batch(number) for number in range(len(data.order))]
        placed = [step.place(batch, mesh, microbatches=flags.microbatches) for batch in host]
        times, losses = [], []
        for number in range(flags.warm_up + flags.updates):
            if flags.trace and number == flags.warm_up:
                jax.profiler.start_trace(flags.trace)
            started = time.perf_counter()
            state, report = made.update(state, placed[number % len(placed)])
            jax.block_until_ready(state)
            times.append(time.perf_counter() - started)
            losses.append(float(report.loss))
        if flags.trace:
            jax.profiler.stop_trace()
        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    loads = [flops.load(host[n % len(host)], None) for n in range(len(times))]
    return figures(flags, loads, times, losses, peak, config)


def figures(
    flags: argparse.Namespace,
    loads: list[Any],
    times: list[float],
    losses: list[float],
    peak: int,
    config: Any,
) -> dict[str, Any]:
    """Rates of the updates after the warm-up."""
    from opengrok_jax.training import flops

    timed = list(zip(loads, times, strict=True))[flags.warm_up :]
    rates = [flops.train_flops(config, load) / wall / 1e12 for load, wall in timed]
    return {
        "tokens_per_second": round(statistics.median(n.tokens / wall for n, wall in timed)),
        "learnt_tokens_per_second": round(
            statistics.median(n.loss_tokens / wall for n, wall in timed)
        ),
        "model_tflops": round(statistics.median(rates), 1),
        "least_and_most": [round(min(rates), 1), round(max(rates), 1)],
        "seconds_an_update": round(statistics.median(wall for _, wall in timed), 3),
        "tokens_an_update": timed[0][0].tokens,
        "first_update_seconds": round(times[0], 1),
        "peak_gib": round(peak / 2**30, 2),
        "losses": [round(loss, 3) for loss in losses[:3]],
    }


# ---- torch ------------------------------------------------------------------------------------
def torch_model(flags: argparse.Namespace) -> Any:
    """transformers' Phi-3 of the same sizes, on the card."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    sizes = published(flags)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = transformers.Phi3Config(
        **{name: getattr(sizes, name) for name in (*names, "num_key_value_heads", "vocab_size")},
        max_position_embeddings=4096, sliding_window=None, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(getattr(torch, flags.weights))
    with torch.device(card()):
        model = transformers.Phi3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.train()


def card() -> str:
    """torch's name of the GPU; without one the code runs on the CPU, to be tried."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize() -> None:
    """Waits for the GPU."""
    import torch

    if card() == "cuda":
        torch.cuda.synchronize()


def batches_of(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Microbatches: full rows, or posts padded to the longest of as many as fill the rows."""
    import _peers
    import torch

    some = examples(flags)
    groups = _peers.groups(some, flags)
    while True:
        for group in groups:
            tokens = [torch.as_tensor(e.tokens, dtype=torch.long) for e in group]
            goals = [torch.as_tensor(_work.labels(e), dtype=torch.long) for e in group]
            pad = torch.nn.utils.rnn.pad_sequence
            batch = {
                "input_ids": pad(tokens, batch_first=True),
                "labels": pad(goals, batch_first=True, padding_value=-100),
            }
            if flags.rows_of == "posts":
                batch["attention_mask"] = pad(
                    [torch.ones_like(t) for t in tokens], batch_first=True
                )
            yield batch


def load_of(batch: dict[str, Any]) -> tuple[int, int, int, int]:
    """places, tokens, loss tokens, pairs of `flops.Load`, of a padded batch."""
    places = batch["input_ids"].numel()
    mask = batch.get("attention_mask")
    lengths = [batch["input_ids"].shape[1]] * len(batch["labels"])
    if mask is not None:
        lengths = mask.sum(1).tolist()
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    return places, int(sum(lengths)), int((batch["labels"][:, 1:] >= 0).sum()), int(pairs)


def bare(flags: argparse.Namespace) -> dict[str, Any]:
    """transformers in a plain loop: autocast over float32 weights, or weights in bfloat16."""
    import torch

    from opengrok_jax.training import flops

    model = torch_model(flags)
    if flags.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    called = torch.compile(model) if flags.compile else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, weight_decay=DECAY, betas=BETAS, fused=True
    )
    source = batches_of(flags)
    loads, times, losses = [], [], []
    for _ in range(flags.warm_up + flags.updates):
        some = [next(source) for _ in range(flags.microbatches)]
        synchronize()
        started = time.perf_counter()
        total = 0.0
        for batch in some:
            on_card = {name: x.to(card(), non_blocking=True) for name, x in batch.items()}
            with torch.autocast(card(), torch.bfloat16, enabled=flags.weights == "float32"):
                loss = called(**on_card, use_cache=False).loss / flags.microbatches
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(total))
        synchronize()
        times.append(time.perf_counter() - started)
        loads.append(flops.Load(*map(sum, zip(*map(load_of, some), strict=True))))
    peak = torch.cuda.max_memory_allocated()
    return figures(flags, loads, times, losses, peak, published(flags))


def trl(flags: argparse.Namespace) -> dict[str, Any]:
    """SFTTrainer as it comes: bf16, its own gradient checkpointing, padding."""
    import _peers
    import torch
    import transformers
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from trl import SFTConfig, SFTTrainer

    from opengrok_jax.training import flops

    some = examples(flags)
    times: list[float] = []
    loads: list[Any] = []
    began: list[float] = []
    losses: list[float] = []
    seen: list[tuple[int, ...]] = []
    steps = flags.warm_up + flags.updates

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            synchronize()
            began.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize()
            times.append(time.perf_counter() - began[-1])

    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=steps, learning_rate=RATE, weight_decay=DECAY,
        adam_beta2=BETAS[1], max_grad_norm=CLIP, report_to=[], lr_scheduler_type="constant",
        bf16=True, use_cpu=card() == "cpu", save_strategy="no",
        gradient_checkpointing=bool(flags.checkpointing), logging_steps=1,
        max_length=flags.row_tokens, disable_tqdm=True,
        per_device_train_batch_size=len(_peers.groups(some, flags)[0]),
        gradient_accumulation_steps=flags.microbatches, dataset_num_proc=None,
    )  # fmt: skip
    rows = InMemoryTable.from_pydict(
        {
            "input_ids": [e.tokens.tolist() for e in some],
            "labels": [_work.labels(e) for e in some],
        }
    )
    trainer = SFTTrainer(
        torch_model(flags),
        args=settings,
        train_dataset=Dataset(rows, fingerprint="examples"),
        processing_class=_peers._tokenizer(),
        callbacks=[Clock()],
    )
    collate = trainer.data_collator

    def counted(rows: list[Any]) -> Any:
        batch = collate(rows)
        seen.append(load_of(batch))
        return batch

    trainer.data_collator = counted
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    for number in range(steps):
        part = seen[number * flags.microbatches : (number + 1) * flags.microbatches]
        loads.append(flops.Load(*map(sum, zip(*part, strict=True))))
    peak = torch.cuda.max_memory_allocated()
    return figures(flags, loads, times, losses, peak, published(flags))


SYSTEMS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "ceiling": ceiling,
    "ours": ours,
    "bare": bare,
    "trl": trl,
}
