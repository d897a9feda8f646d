"""Rebuilds the embedded tokenizer from the texts that ship with the package.

python scripts/train_tokenizer.py --out opengrok_jax/assets/tokenizer/tokenizer.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from opengrok_jax.errors import in_one_line
from opengrok_jax.train_tokenizer import run


def main() -> None:
    """Parses the flags and calls `train_tokenizer.run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the tokenizer.json to write")
    parser.add_argument(
        "--vocab-size", type=int, default=4096, help="model rows, specials included"
    )
    arguments = parser.parse_args()
    with in_one_line():
        run(out=arguments.out, vocab_size=arguments.vocab_size)


if __name__ == "__main__":
    main()
