"""The grid of the study: three tasks, three seeds, what the mask does to students from scratch.

Command:   opengrok ablate --config configs/study.py --grid configs/study_grid.py --workdir runs/s
           --jobs 4
           (first, anywhere, with --prepare: what needs spaCy and scikit-learn)
Hardware:  one GPU; 16 cells x 3 tasks x 3 seeds of 6.4 million parameters
Expected:  docs/study.md
"""

from typing import Any

from ml_collections import ConfigDict

OFFENSIVE = (
    "Is this post offensive or not offensive? Answer with offensive or not offensive."
    "\n\nPost: {post}"
)
SENTIMENT = (
    "Classify the sentiment of this post as negative, neutral or positive. "
    "Answer with one word.\n\nPost: {post}"
)


def ordered(values: dict) -> Any:
    """A section that keeps the order of its keys: tables and pictures show them so."""
    nested = {k: ordered(v) if isinstance(v, dict) else v for k, v in values.items()}
    return ConfigDict(nested, sort_keys=False)


def short(name: str) -> dict:
    """What the short study lays over its base config for another task than emotion."""
    files = f"runs/oof-short/{name}"
    return {
        "prompts": {"posts_file": f"{files}.posts.jsonl", "task": f"tweeteval-{name}"},
        "teacher": {"recorded_file": f"{files}.jsonl"},
        "evaluation": {"tasks": {f"tweeteval-{name}": {"instruction": "{post}"}}},
    }


def get_config(variant: str = "") -> ConfigDict:
    """The grid; `:short` asks fewer questions, `:tiny` is one task, three cells, two seeds."""
    if variant not in ("", "short", "tiny"):
        raise ValueError(f"unknown variant {variant!r}; there are 'short' and 'tiny'")
    grid: Any = ordered({})
    grid.seeds = (0, 1, 2)
    grid.engine = "resident"
    grid.predictor = "likelihood"
    grid.bootstrap = 2000
    grid.common = ConfigDict(
        {"data": "gold", "rule": "exclude", "factors": "config", "draw": "fixed"}
    )
    grid.sets = ordered(
        {
            "emotion": {},
            "offensive": {
                "prompts": {
                    "posts_file": "runs/oof/offensive.posts.jsonl",
                    "task": "tweeteval-offensive",
                    "instruction": OFFENSIVE,
                },
                "teacher": {"recorded_file": "runs/oof/offensive.jsonl"},
                "training": {"rows_per_batch": 8},
                "evaluation": {"tasks": {"tweeteval-offensive": {}}},
            },
            "sentiment": {
                "prompts": {
                    "posts_file": "runs/oof/sentiment.posts.jsonl",
                    "task": "tweeteval-sentiment",
                    "instruction": SENTIMENT,
                },
                "teacher": {"recorded_file": "runs/oof/sentiment.jsonl"},
                "training": {"rows_per_batch": 8},
                "evaluation": {"tasks": {"tweeteval-sentiment": {}}, "limit": 4000},
            },
        }
    )
    grid.questions = ordered(
        {
            "data": {
                "ask": "Does training help, and do a teacher's answers teach as gold labels do?",
                "baseline": "gold labels",
                "cells": {
                    "untrained": {"data": "none"},
                    "gold labels": {"rule": "none"},
                    "distilled": {"data": "distilled", "rule": "none"},
                },
            },
            "claim": {
                "ask": "On distilled answers, does the mask help?",
                "baseline": "distilled, no mask",
                "cells": {
                    "distilled, no mask": {"data": "distilled", "rule": "none"},
                    "distilled, exclude": {"data": "distilled"},
                },
            },
            "rule": {
                "ask": "Does masking the attention help, and by which rule?",
                "baseline": "no mask",
                "cells": {
                    "no mask": {"rule": "none"},
                    "multiply": {"rule": "multiply"},
                    "exclude": {},
                    "exclude, half hidden": {"keep_rate": 0.5},
                },
            },
            "factors": {
                "ask": "Does it matter which tokens are hidden, as many of them as at random?",
                "baseline": "random",
                "cells": {
                    "random": {"factors": "random"},
                    "all factors": {},
                    "tf-idf alone": {"factors": "tfidf"},
                    "part of speech alone": {"factors": "pos"},
                    "dependencies alone": {"factors": "dep"},
                },
            },
            "draw": {
                "ask": "Is a new mask in every epoch better than a fixed one?",
                "baseline": "fixed",
                "cells": {"fixed": {}, "every epoch": {"draw": "per_epoch"}},
            },
            "scope": {
                "ask": "May the answer's tokens be hidden, too?",
                "baseline": "prompt and answer",
                "cells": {"prompt and answer": {}, "prompt alone": {"scope": "prompt"}},
            },
            "inference": {
                "ask": "Should the student read test prompts through the mask it was trained with?",
                "baseline": "whole prompts",
                "cells": {
                    "whole prompts": {},
                    "masked prompts": {"inference_mask": True},
                    "half hidden, masked prompts": {"keep_rate": 0.5, "inference_mask": True},
                },
            },
            "weighting": {
                "ask": "Is weighing the loss by the keep probability as good as masking?",
                "baseline": "neither",
                "cells": {
                    "neither": {"rule": "none"},
                    "weighted loss": {"rule": "none", "loss_weight": "keep_prob"},
                    "masked": {},
                },
            },
        }
    )
    if variant == "short":
        grid.sets = ordered({"emotion": {}, "offensive": short("offensive")})
        grid.sets.sentiment = ordered(short("sentiment"))
        grid.questions = ordered(
            {n: grid.questions[n].to_dict() for n in ("data", "rule", "factors")}
        )
        del grid.questions.rule.cells["exclude, half hidden"]
    if variant == "tiny":
        grid.seeds = (0, 1)
        grid.bootstrap = 200
        grid.sets = ordered({"emotion": {}})
        grid.questions = ordered({n: grid.questions[n].to_dict() for n in ("rule", "inference")})
        del grid.questions.rule.cells["exclude, half hidden"]
        del grid.questions.inference.cells["half hidden, masked prompts"]
    return grid
