"""Retrains the annotator that ships with the package; about 15 minutes of one core.

python scripts/train_annotator.py --treebank UD_English-EWT --out opengrok_jax/assets/en_sns \
    --score-on UD_English-EWT/en_ewt-ud-test.conllu
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    """Parses the flags and calls `masking.train_annotator.run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--treebank", type=Path, required=True, help="folder with UD_English-EWT's train and dev"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the pipeline to write")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--width", type=int, default=64, help="floats a word in the encoder")
    parser.add_argument("--depth", type=int, default=3, help="layers of the encoder")
    parser.add_argument("--max-steps", type=int, default=4800, help="updates")
    parser.add_argument(
        "--rough-copies", type=int, default=2, help="copies made to look like posts"
    )
    parser.add_argument(
        "--score-on", type=Path, nargs="*", default=(), help="treebank files for the CARD.md"
    )
    arguments = parser.parse_args()

    # More threads than one are slower at this size; must be set before numpy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from opengrok_jax.errors import in_one_line
    from opengrok_jax.masking.train_annotator import run

    with in_one_line():
        run(**vars(arguments))


if __name__ == "__main__":
    main()
