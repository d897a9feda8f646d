"""The grid that answers the report's claims: does distilling help, does masking, and which part?

Command:   opengrok ablate --config configs/demo.py --grid configs/ablation.py --workdir runs/ab
           (configs/ablation.py:gold adds the posts' own labels, where a config's posts have some;
           configs/ablation.py:smoke is two cells and one seed)
Hardware:  that of the base config, as many times as there are cells and seeds: `--dry-run` counts
Expected:  ablation.json, ablation.md and a picture for each question, each row with its verdict.
           With few test posts or one seed most verdicts will be "inside the noise": that is an
           answer, too.

Every cell says what it changes in the base config; opengrok_jax/ablation/grid.py lists the words.
"""

from typing import Any

from ml_collections import ConfigDict


def ordered(values: dict) -> Any:
    """A section that keeps the order of its keys: tables and pictures show them so."""
    nested = {k: ordered(v) if isinstance(v, dict) else v for k, v in values.items()}
    return ConfigDict(nested, sort_keys=False)


def get_config(variant: str = "") -> ConfigDict:
    """The grid; `:gold` compares with gold labels, `:smoke` is small."""
    if variant not in ("", "gold", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there are 'gold' and 'smoke'")
    grid: Any = ordered({})
    grid.seeds = (0, 1, 2)
    grid.predictor = "likelihood"
    grid.bootstrap = 1000
    grid.engine = "finetune"  # "resident" for many small students from scratch
    grid.price_per_hour = 0.0  # of the machine; 0 = cost is given in seconds alone
    grid.currency = "USD"
    grid.common = ConfigDict({"rule": "exclude", "factors": "config", "draw": "fixed"})
    grid.sets = ConfigDict()  # nothing laid over the base config: one student a cell and seed
    grid.questions = ordered(
        {
            "data": {
                "ask": "Does learning from the teacher's answers help?",
                "baseline": "untrained",
                "cells": {"untrained": {"data": "none"}, "distilled": {}},
            },
            "rule": {
                "ask": "Does masking the attention help, and by which rule?",
                "baseline": "no mask",
                "cells": {
                    "no mask": {"rule": "none"},
                    "multiply": {"rule": "multiply"},
                    "exclude": {},
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
            "left_out": {
                "ask": "Which factor is missed when it is left out?",
                "baseline": "all factors",
                "cells": {
                    "all factors": {},
                    "without tf-idf": {"factors": "without tfidf"},
                    "without part of speech": {"factors": "without pos"},
                    "without dependencies": {"factors": "without dep"},
                    "without chance": {"factors": "without random"},
                },
            },
            "scope": {
                "ask": "May the answer's tokens be hidden, too?",
                "baseline": "prompt and answer",
                "cells": {
                    "prompt and answer": {"scope": "prompt+response"},
                    "prompt alone": {"scope": "prompt"},
                },
            },
            "draw": {
                "ask": "Is a new mask in every epoch better than a fixed one?",
                "baseline": "fixed",
                "cells": {"fixed": {}, "every epoch": {"draw": "per_epoch"}},
            },
            "inference": {
                "ask": "Should the student read test prompts through the mask it was trained with?",
                "baseline": "whole prompts",
                "cells": {"whole prompts": {}, "masked prompts": {"inference_mask": True}},
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
    if variant == "gold":
        grid.questions.data.cells["gold labels"] = ConfigDict({"data": "gold"})
    if variant == "smoke":
        grid.seeds = (0,)
        grid.bootstrap = 100
        grid.questions = ordered({"rule": grid.questions.rule.to_dict()})
        del grid.questions.rule.cells["multiply"]
    return grid
