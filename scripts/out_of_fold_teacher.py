"""A small classical teacher's answers about a task's training posts, for configs/study.py.

for t in emotion offensive; do python scripts/out_of_fold_teacher.py --task tweeteval-$t --name $t \
    --posts-file ../shared/data/tweeteval/$t.train.jsonl.gz --out runs/oof --count 8000; done
python scripts/out_of_fold_teacher.py --task tweeteval-sentiment --name sentiment --count 10000 \
    --posts-file ../shared/data/tweeteval/sentiment.train-rebuilt.jsonl.gz --out runs/oof

For configs/study.py:short say --count 3000, --instruction '{post}' and --out runs/oof-short.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Parses the flags and calls `evaluation.out_of_fold.run`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", required=True, help="tweeteval-emotion, for one")
    parser.add_argument("--posts-file", type=Path, required=True, help="its training posts")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--name", required=True, help="what the files are called")
    parser.add_argument("--count", type=int, default=0, help="at most so many posts; 0 = all")
    parser.add_argument("--folds", type=int, default=5, help="parts that the posts are dealt into")
    parser.add_argument("--instruction", default="", help="in place of the task's, with {post}")
    arguments = parser.parse_args()

    from opengrok_jax.errors import in_one_line
    from opengrok_jax.evaluation.out_of_fold import run

    with in_one_line():
        run(**vars(arguments))


if __name__ == "__main__":
    main()
