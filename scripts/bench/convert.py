"""Converts a random checkpoint of Phi-3-mini's shape; memory and time beside transformers'.

python scripts/bench/convert.py --folder FOLDER [--layers 32] [--vocab 32064] [--keep]

Needs Linux and twice the checkpoint on the disk (2 x 7.6 GB). Prints one line of JSON. Each
measurement is a process of its own: "convert" makes a student's folder, "back" makes safetensors
of it again, and "transformers" is `from_pretrained` in bfloat16 on the same files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

CONVERT = """
from pathlib import Path
from opengrok_jax.model.convert import run
run(source=Path(sys.argv[1]), out=Path(sys.argv[2]), to=sys.argv[3])
"""
TRANSFORMERS = """
import torch, transformers
model = transformers.Phi3ForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
sum(int(p.view(torch.uint8).max()) for p in model.parameters())  # pages that are mapped come in
"""
MEASURED = """
import json, sys, time
begun = time.monotonic()
{body}
# Not ru_maxrss: that of a child begins with what its parent held when it was started.
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps(dict(seconds=round(time.monotonic() - begun, 1), peak_rss_bytes=peak)))
"""


def main() -> None:
    """Parses the flags, makes the checkpoint, measures, clears up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the files may lie")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=32064)
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint there")
    flags = parser.parse_args()
    source, student, back = (flags.folder / name for name in ("source", "student", "back"))
    done = {"layers": flags.layers, "largest_tensor_bytes": make(source, flags.layers, flags.vocab)}
    files = sorted(source.glob("*.safetensors"))
    done["checkpoint_bytes"] = sum(file.stat().st_size for file in files)
    try:
        done["transformers"] = measure(TRANSFORMERS, source)
        done["convert"] = measure(CONVERT, source, student, "orbax")
        before = [digest(file) for file in files]
        if not flags.keep:
            shutil.rmtree(source)  # "back" needs its place on the disk
        done["back"] = measure(CONVERT, student, back, "hf")
        done["byte_identical"] = before == [digest(f) for f in sorted(back.glob("*.safetensors"))]
        bound = int(1.5 * done["largest_tensor_bytes"]) + 2**30
        done["bound_bytes"] = bound
        done["within_bound"] = all(
            done[name]["peak_rss_bytes"] <= bound for name in ("convert", "back")
        )
    finally:
        for folder in (student, back, *([] if flags.keep else [source])):
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(done))


def make(folder: Path, layers: int, vocab: int) -> int:
    """Writes a bfloat16 checkpoint, a tensor at a time; returns the bytes of the largest one."""
    import ml_dtypes
    import numpy as np

    from opengrok_jax.model import hf_config
    from opengrok_jax.model.config import Phi3Config
    from opengrok_jax.model.convert import SHARD_BYTES
    from opengrok_jax.model.tensorfile import INDEX_FILE, index_text, plan_shards, write_file
    from opengrok_jax.model.weights import hf_shapes

    config = Phi3Config(num_hidden_layers=layers, vocab_size=vocab)
    shapes, kind = hf_shapes(config), np.dtype(ml_dtypes.bfloat16)
    kinds, rng = dict.fromkeys(shapes, kind), np.random.default_rng(0)

    def draw(name: str) -> np.ndarray:
        size = int(np.prod(shapes[name]))
        # 16 random bits with the exponent of numbers below 1: as hard to compress as weights
        bits = np.frombuffer(rng.bytes(2 * size), np.uint16) & 0xBFFF
        return bits.view(kind).reshape(shapes[name])

    folder.mkdir(parents=True)
    shards = plan_shards(shapes, kinds, SHARD_BYTES)
    for file, names in shards.items():
        write_file(folder / file, [(name, shapes[name], kind) for name in names], draw)
    if len(shards) > 1:
        (folder / INDEX_FILE).write_text(index_text(shards, shapes, kinds))
    (folder / "config.json").write_text(hf_config.write(config, "bfloat16"))
    return max(int(np.prod(shape)) * kind.itemsize for shape in shapes.values())


def measure(body: str, *arguments: object) -> dict[str, float]:
    """Seconds from the first import on, and peak memory, of a process that runs `body`."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(body=body), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
