"""Real tweets with gold labels: distil them into the student and score it as TweetEval does.

Command:   opengrok run --config configs/tweeteval.py --config.run_dir=runs/emotion
           (opengrok run --config configs/tweeteval.py:smoke for five minutes on two cores)
Data:      {"text": ..., "label": ...} lines, plain or gzipped: TweetEval's emotion train and test
           split, by default under ../shared/data/tweeteval; give your own with
           --config.prompts.posts_file=... --config.evaluation.tasks.emotion.file=...
Hardware:  two CPU cores, 3 GB of memory
Expected:  above the majority floor, below TF-IDF + logistic regression: a tiny student from random
           weights has never read English. With --config.training.init=/path/to/Phi-3-mini on an
           accelerator the same config fine-tunes the real one.

The teacher is `labelled`: it answers from the gold labels. Nothing is distilled from a model here.
"""

from typing import Any

from ml_collections import ConfigDict

DATA = "../shared/data/tweeteval"
INSTRUCTION = (
    "Which emotion does this post express: anger, joy, optimism or sadness? "
    "Answer with one word.\n\nPost: {post}"
)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `:smoke` takes fewer posts and epochs, and the whole test split."""
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there is 'smoke'")
    config = ConfigDict()
    config.run_dir = "runs/tweeteval-emotion"
    config.prompts = ConfigDict(
        {
            "source": "posts",
            "posts_file": f"{DATA}/emotion.train.jsonl.gz",
            "task": "emotion",
            "instruction": INSTRUCTION,
            "count": 0,
        }
    )
    config.teacher = ConfigDict({"kind": "labelled", "concurrency": 16})
    # TweetEval's handles are all "@user" already; masked, they would differ from the test posts.
    config.refinement = ConfigDict({"rounds": 0})
    config.curation = ConfigDict({"mask_handles": False, "valid_share": 0.1, "seed": 0})
    config.masking = ConfigDict(
        {
            "preset": "",  # "paper", "balanced", "tfidf", "pos", "dep" or "random" sets the numbers
            "alpha": 2.0,
            "beta": 1.0,
            "gamma": 1.0,
            "delta": 1.0,
            "target_keep_rate": 0.85,
            "scope": "prompt+response",
            "max_tokens": 256,
            "workers": 0,  # 0 = all cores
            "seed": 0,
        }
    )
    config.training = ConfigDict(
        {
            "init": "scratch",
            "model": {
                "hidden_size": 128,
                "intermediate_size": 352,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 256,
            },
            "rule": "exclude",
            "draw": "fixed",
            "row_tokens": 256,
            "rows_per_batch": 16,
            "epochs": 12.0,
            "learning_rate": 1e-3,
            "warmup_share": 0.1,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "normalize": "example",
            "eval_every": 50,
            "save_every": 100,
            "patience": 6,
            "min_improvement": 0.0,
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "seed": 0,
        }
    )
    config.evaluation = ConfigDict(
        {
            "tasks": {
                "emotion": {
                    "file": f"{DATA}/emotion.test.jsonl.gz",
                    "instruction": INSTRUCTION,
                    "labels": ("anger", "joy", "optimism", "sadness"),
                    "metric": "macro_f1",
                }
            },
            "predictors": ("likelihood",),
            "limit": 0,
            "seed": 0,
        }
    )
    # Whatever file is scored, none of its posts may teach.
    tasks: Any = config.evaluation.tasks
    config.curation.evaluation_files = tasks.emotion.get_oneway_ref("file")
    config.report = ConfigDict({"title": "TweetEval emotion", "examples": 8, "ablation": ""})

    if variant == "smoke":
        config.update_from_flattened_dict(
            {
                "run_dir": "runs/tweeteval-smoke",
                "prompts.count": 1600,
                "training.epochs": 6.0,
                "training.eval_every": 20,
                "training.save_every": 40,
            }
        )
    return config
