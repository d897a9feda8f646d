"""How fast labels are scored: our shared prompts beside a row a label, and beside transformers.

python scripts/bench/evaluate.py [--task tweeteval-emotion] [--posts 256] [--batch-size 32]
    [--rounds 5] [--width 512] [--layers 8] [--data ../shared/data]

The same random weights, float32, the same posts, questions and labels, all in this process, turn by
turn in another order each round. Every system first answers once, to compile and to warm up.

ours          labels share the prompt (`label_tree`), batches by length
ours-rows     a row a label, as most harnesses do it; only the labels' tokens through the head
hf            `hf_model`: transformers, the prompt's cache copied for each label
hf-rows       transformers, a row a label, batches by length, logits of whole rows

`against` is the median of ours' rate over this one's in the same round: above 1, ours is faster.
`processor` is the time of all threads: what to trust on a machine that is shared. `differs` is the
largest difference of a log-probability from ours. Needs the extra `hf`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def main() -> None:
    """Parses the flags, measures, prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="tweeteval-emotion")
    parser.add_argument("--posts", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("OPENGROK_SHARED_DATA", DATA))
    )
    flags = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    print(json.dumps(measure(flags), indent=1))


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Every system's turns, and what became of the padding."""
    import jax
    import numpy as np
    from flax import nnx

    from opengrok_jax import tokenizer as tokenizers
    from opengrok_jax.evaluation.predict import Student
    from opengrok_jax.evaluation.tasks import load_items, make_task
    from opengrok_jax.model.config import Phi3Config
    from opengrok_jax.model.phi3 import Phi3

    task = make_task(flags.task, {}, str(flags.data))
    prompts = [task.ask(item) for item in load_items(task, flags.posts)]
    opened = tokenizers.load()
    config = Phi3Config.tiny(
        opened.vocab_size,
        hidden_size=flags.width,
        intermediate_size=flags.width * 8 // 3,
        num_hidden_layers=flags.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
    )
    student = Student(Phi3(config, rngs=nnx.Rngs(0)), opened, batch_size=flags.batch_size)
    labels = task.spelled
    with tempfile.TemporaryDirectory() as folder:
        systems = _systems(student, Path(folder) / "hf", prompts, labels, flags.batch_size)
        tables = {name: system() for name, system in systems.items()}  # compiles and warms up
        wasted, computed = student.wasted
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
        for number in range(flags.rounds):
            for name in random.Random(number).sample(list(systems), len(systems)):
                wall, processor = time.perf_counter(), time.process_time()
                systems[name]()
                turns[name].append((time.perf_counter() - wall, time.process_time() - processor))
    parameters = sum(x.size for x in jax.tree.leaves(nnx.state(student.model, nnx.Param)))
    return {
        "task": flags.task,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "posts": len(prompts),
        "labels": len(labels),
        "parameters": parameters,
        "cores": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "padding_share": round(wasted / computed, 4),
        "systems": {
            name: {
                **_figures(mine, turns["ours"], len(prompts)),
                "differs": float(np.abs(tables[name] - tables["ours"]).max()),
            }
            for name, mine in turns.items()
        },
    }


def _systems(
    student: Any, folder: Path, prompts: list[str], labels: tuple[str, ...], batch_size: int
) -> dict[str, Callable[[], Any]]:
    """Name -> a call that scores every label of every prompt, [posts, labels]."""
    import numpy as np

    from opengrok_jax import tokenizer as tokenizers
    from opengrok_jax import tokenizer_files
    from opengrok_jax.evaluation.hf_model import HfModel
    from opengrok_jax.evaluation.predict import response_log_probs
    from opengrok_jax.model.weights import save_hf
    from opengrok_jax.records import Message

    logging.getLogger("transformers").setLevel(logging.ERROR)
    save_hf(student.model, student.model.config, folder)
    context = student.model.config.max_position_embeddings
    beside = tokenizer_files.of_student(tokenizers.EMBEDDED.parent, None, context)
    for name, content in beside.items():
        (folder / name).write_bytes(content)
    peer = HfModel(str(folder), batch_size=batch_size, device="cpu")

    def shared(asked: Any) -> Any:
        table = np.zeros((len(prompts), len(labels)))

        def record(rows: Any, values: Any) -> None:
            table[list(rows)] = values

        asked.log_probs(prompts, labels, record)
        return table

    def rows() -> Any:
        encoded = [
            student.tokenizer.encode_chat((Message(role="user", content=p),), label)
            for p in prompts
            for label in labels
        ]
        found = response_log_probs(student.model, encoded, batch_size=batch_size)
        return found.reshape(len(prompts), -1)

    return {
        "ours": lambda: shared(student),
        "ours-rows": rows,
        "hf": lambda: shared(peer),
        "hf-rows": lambda: _hf_rows(peer, student, prompts, labels, batch_size),
    }


def _hf_rows(
    peer: Any, student: Any, prompts: list[str], labels: tuple[str, ...], batch_size: int
) -> Any:
    """transformers as a harness uses it: padded rows, all logits, the labels' gathered."""
    import numpy as np
    import torch

    from opengrok_jax.records import Message
    from opengrok_jax.tokenizer import RESPONSE

    encoded = [
        student.tokenizer.encode_chat((Message(role="user", content=p),), label)
        for p in prompts
        for label in labels
    ]
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].tokens))
    result = np.zeros(len(encoded))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        longest = len(encoded[chosen[0]].tokens)
        tokens = torch.zeros((len(chosen), longest), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for at, i in enumerate(chosen):
            row = torch.tensor(encoded[i].tokens)
            tokens[at, : len(row)], mask[at, : len(row)] = row, 1
        with torch.no_grad():
            logits = peer.model(input_ids=tokens, attention_mask=mask).logits
        for at, i in enumerate(chosen):
            places = torch.tensor(np.flatnonzero(encoded[i].roles == RESPONSE))
            logs = logits[at, places - 1].log_softmax(-1)
            result[i] = float(logs.gather(1, tokens[at, places][:, None]).sum())
    return result.reshape(len(prompts), -1)


def _figures(
    turns: list[tuple[float, float]], first: list[tuple[float, float]], posts: int
) -> dict[str, Any]:
    """Medians of one system's turns, and the first system's rate over its own, round by round."""
    found: dict[str, Any] = {}
    for clock, name in enumerate(("wall", "processor")):
        ratios = sorted(mine[clock] / best[clock] for mine, best in zip(turns, first, strict=True))
        found[name] = {
            "posts_per_second": round(posts / statistics.median(t[clock] for t in turns), 2),
            "against": round(statistics.median(ratios), 3),
            "against_least_and_most": [round(ratios[0], 3), round(ratios[-1], 3)],
        }
    return found


if __name__ == "__main__":
    main()
