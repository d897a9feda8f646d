"""The systems that training.py compares, each in its own words; every one runs in its own process.

A system gets the examples, the flags and the turns, and updates until it is told to stop.
Peers need what this package does not: TRL 1.16, transformers 5.23 with torch, google-tunix 0.1.7.
"""

# pyright: reportMissingImports=false
# The peers are installed by whoever measures.
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from _work import SIZES, VOCAB, Turns, labels

K = 32  # stored log-probabilities of a position
RATE, DECAY, CLIP, BETAS = 1e-4, 0.1, 1.0, (0.9, 0.95)
System = Callable[[list[Any], argparse.Namespace, Turns], None]


# ---- this package -----------------------------------------------------------------------------
def ours(
    examples: list[Any], flags: argparse.Namespace, turns: Turns, *, rule: Any, loss: str = "hard"
) -> None:
    """The update of `finetune.run` over packed rows."""
    import jax

    from opengrok_jax.model.config import Phi3Config
    from opengrok_jax.model.sharding import create_sharded, make_mesh
    from opengrok_jax.soft_file import SoftFile
    from opengrok_jax.training import batches, objective, packing, step
    from opengrok_jax.training.assembly import assemble

    soft, aim = None, objective.HARD
    if loss == "topk":
        folder = Path(tempfile.mkdtemp())
        store(folder, examples)
        soft, aim = SoftFile(folder), objective.read({"loss": "topk", "weight": 0.5})
    data = batches.packed(
        examples,
        lambda rows: packing.in_order(rows, rows_per_batch=flags.rows)[: rows // flags.rows],
        row_tokens=flags.row_tokens,
        normalize="token",
        soft_file=soft,
    )
    mesh = make_mesh(data=-1, fsdp=1)
    made = assemble(
        Phi3Config(**SIZES), mesh, steps=10**6, capacity=data.capacity(1), rule=rule,
        learning_rate=RATE, warmup_share=0.0, weight_decay=DECAY, clip_norm=CLIP, remat="none",
        dtype="float32", param_dtype="float32", seed=0, objective=aim,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        model = create_sharded(made.create, mesh, made.trainable)
        state = step.new_state(model, made.optimizer, made.like, made.trainable)
        del model
        for number in count():
            if turns.due():
                jax.block_until_ready(state)
            batch = data.batch(number % len(data.order))
            turns.next(int((batch.loss_weight > 0).sum()))
            state, _ = made.update(state, step.place(batch, mesh, microbatches=1))


def store(folder: Path, examples: list[Any]) -> None:
    """Soft targets of no particular teacher: k distinct ids, nine tenths of the mass."""
    import numpy as np

    from opengrok_jax import soft_file

    rng = np.random.default_rng(1)
    rows = []
    for example in examples:
        shape = (len(soft_file.response_positions(example)), K)
        ids = (rng.integers(0, VOCAB, shape[:1])[:, None] + np.arange(K) * (VOCAB // K)) % VOCAB
        logprobs = np.log(0.9 * rng.dirichlet(np.full(K, 0.3), shape[:1]) + 1e-9)
        rows.append(
            soft_file.SoftRows(
                id=example.id,
                fits=soft_file.checksum(example),
                ids=ids.astype(np.int32),
                logprobs=logprobs.astype(np.float32),
            )
        )
    soft_file.write_part(folder, 0, rows, k=K)
    soft_file.finish(folder, parts=1, k=K, facts={})


# ---- torch ------------------------------------------------------------------------------------
def _phi3() -> Any:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.Phi3Config(pad_token_id=0, bos_token_id=1, eos_token_id=2, **SIZES)
    config._attn_implementation = "sdpa"
    return transformers.Phi3ForCausalLM(config).float()


def bare(
    examples: list[Any], flags: argparse.Namespace, turns: Turns, *, packed: bool = False
) -> None:
    """transformers in a plain loop, padded to the longest of a batch or packed by position ids."""
    import torch

    model = _phi3().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, weight_decay=DECAY, betas=BETAS, fused=True
    )
    batches = _packed_rows(examples, flags) if packed else _padded(examples, flags)
    while True:
        for batch in batches:
            turns.next(int((batch["labels"][:, 1:] >= 0).sum()))
            model(**batch, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _pad(rows: list[Any], value: int) -> Any:
    import torch

    tensors = [torch.as_tensor(row, dtype=torch.long) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def _padded(examples: list[Any], flags: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        {
            "input_ids": _pad([e.tokens for e in some], 0),
            "attention_mask": _pad([[1] * len(e.tokens) for e in some], 0),
            "labels": _pad([labels(e) for e in some], -100),
        }
        for some in groups(examples, flags)
    ]


def _packed_rows(examples: list[Any], flags: argparse.Namespace) -> list[dict[str, Any]]:
    """The same rows as ours; positions begin anew with each example, and with the padding."""
    import numpy as np
    import torch

    from opengrok_jax.training.packing import pack

    rows = []
    for indices in pack([len(e.tokens) for e in examples], flags.row_tokens):
        row: tuple[list[int], ...] = ([], [], [])
        for example in (examples[i] for i in indices):
            for whole, part in zip(
                row, (example.tokens, range(len(example.tokens)), labels(example)), strict=True
            ):
                whole.extend(map(int, part))
        left = flags.row_tokens - len(row[0])
        rows.append((row[0] + [0] * left, row[1] + [*range(left)], row[2] + [-100] * left))
    names = ("input_ids", "position_ids", "labels")
    return [
        dict(zip(names, map(torch.from_numpy, np.array(rows[at : at + flags.rows]).swapaxes(0, 1)),
                 strict=True))
        for at in range(0, len(rows) - flags.rows + 1, flags.rows)
    ]  # fmt: skip


def groups(examples: list[Any], flags: argparse.Namespace) -> list[list[Any]]:
    """The examples in batches of one size, as many as fill the rows of ours on average."""
    mean = sum(len(e.tokens) for e in examples) / len(examples)
    size = max(1, int(flags.rows * flags.row_tokens / mean))
    return [examples[at : at + size] for at in range(0, len(examples) - size + 1, size)]


def trl(
    examples: list[Any], flags: argparse.Namespace, turns: Turns, *, way: str = "padded"
) -> None:
    """SFTTrainer with padding, without (`padding_free`) or with its packing; or GKDTrainer."""
    import transformers
    import trl
    from datasets import Dataset
    from datasets.table import InMemoryTable

    batch_size = len(groups(examples, flags)[0])
    settings: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(), "max_steps": 10**6, "learning_rate": RATE,
        "weight_decay": DECAY, "adam_beta2": BETAS[1], "max_grad_norm": CLIP, "report_to": [],
        "lr_scheduler_type": "constant", "use_cpu": True, "bf16": False, "save_strategy": "no",
        "gradient_checkpointing": False, "logging_steps": 10**6, "max_length": flags.row_tokens,
        "disable_tqdm": True, "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential", "per_device_train_batch_size": batch_size,
    }  # fmt: skip
    if way == "free":
        settings |= {"padding_free": True, "max_length": None}
    elif way == "packed":
        settings |= {"packing": True, "per_device_train_batch_size": flags.rows}
    bearing: list[int] = []

    class Wait(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.next(bearing.pop(0))

    tokens = [e.tokens.tolist() for e in examples]
    # Not Dataset.from_dict: hashing the table fails with some versions of pyarrow.
    rows = InMemoryTable.from_pydict({"input_ids": tokens, "labels": [labels(e) for e in examples]})
    given: dict[str, Any] = {
        "train_dataset": Dataset(rows, fingerprint="examples"),
        "processing_class": _tokenizer(),
        "callbacks": [Wait()],
    }
    if way == "gkd":
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        def padded(rows: list[Any]) -> dict[str, Any]:
            ids = _pad([row["input_ids"] for row in rows], 0)
            mask = _pad([[1] * len(row["input_ids"]) for row in rows], 0)
            return {
                "input_ids": ids, "attention_mask": mask, "prompts": ids[:, :1],
                "prompt_attention_mask": mask[:, :1],
                "labels": _pad([row["labels"] for row in rows], -100),
            }  # fmt: skip

        args = GKDConfig(lmbda=0.0, beta=0.5, seq_kd=False, **settings)
        trainer = GKDTrainer(_phi3(), _phi3(), args=args, data_collator=padded, **given)
    else:
        trainer = trl.SFTTrainer(_phi3(), args=trl.SFTConfig(**settings), **given)
    collate = trainer.data_collator

    def counted(rows: list[Any]) -> Any:
        batch = collate(rows)
        bearing.append(int((batch["labels"][:, 1:] >= 0).sum()))
        return batch

    trainer.data_collator = counted
    trainer.train()


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t3"))
    special = {"pad_token": "t0", "bos_token": "t1", "eos_token": "t2", "unk_token": "t3"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


# ---- tunix ------------------------------------------------------------------------------------
def tunix(examples: list[Any], flags: argparse.Namespace, turns: Turns) -> None:
    """PeftTrainer, all parameters, on its Llama of the same shape; it refuses packing, so pads."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import nnx
    from tunix.models.llama3 import model as llama
    from tunix.sft import peft_trainer

    config = llama.ModelConfig(
        num_layers=SIZES["num_hidden_layers"], vocab_size=VOCAB, embed_dim=SIZES["hidden_size"],
        hidden_dim=SIZES["intermediate_size"], num_heads=SIZES["num_attention_heads"],
        head_dim=SIZES["hidden_size"] // SIZES["num_attention_heads"],
        num_kv_heads=SIZES["num_key_value_heads"], norm_eps=1e-5, rope_theta=10000,
        remat_config=llama.RematConfig.NONE,
    )  # fmt: skip
    adamw = optax.adamw(RATE, b1=BETAS[0], b2=BETAS[1], weight_decay=DECAY)
    trainer = peft_trainer.PeftTrainer(
        llama.Llama3(config, rngs=nnx.Rngs(0)),
        optax.chain(optax.clip_by_global_norm(CLIP), adamw),
        peft_trainer.TrainingConfig(eval_every_n_steps=10**9, max_steps=10**6),
    )

    def inputs(batch: Any) -> dict[str, Any]:
        rows, tokens = batch.input_tokens.shape
        return {
            "input_tokens": batch.input_tokens,
            "input_mask": batch.input_mask,
            "positions": jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32), (rows, tokens)),
            "attention_mask": jnp.broadcast_to(
                jnp.tril(jnp.ones((tokens, tokens), bool)), (rows, tokens, tokens)
            ),
        }

    longest = max(len(e.tokens) for e in examples)  # one shape: another would compile anew

    def batches() -> Iterator[Any]:
        while True:
            for some in groups(examples, flags):
                tokens, mask = np.zeros((2, len(some), longest), np.int32)
                for at, example in enumerate(some):
                    tokens[at, : len(example.tokens)] = example.tokens
                    mask[at, : len(example.tokens)] = np.array(labels(example)) >= 0
                if turns.due():
                    jax.block_until_ready(nnx.state(trainer.model))
                turns.next(int(mask[:, 1:].sum()))
                yield peft_trainer.TrainingInput(input_tokens=tokens, input_mask=mask)

    trainer.with_gen_model_input_fn(inputs).train(batches())


SYSTEMS: dict[str, System] = {
    "ours": partial(ours, rule="exclude"),
    "ours-multiply": partial(ours, rule="multiply"),
    "ours-none": partial(ours, rule="none"),
    "ours-topk": partial(ours, rule="exclude", loss="topk"),
    "bare": bare,
    "bare-packed": partial(bare, packed=True),
    "trl": trl,
    "trl-free": partial(trl, way="free"),
    "trl-packed": partial(trl, way="packed"),
    "trl-gkd": partial(trl, way="gkd"),
    "tunix": tunix,
}
