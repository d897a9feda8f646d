"""The whole pipeline on what ships with the package: no key, no network, no GPU.

Command:   opengrok run --config configs/demo.py
Hardware:  two CPU cores, 2 GB of memory
Time:      see README.md
Expected:  414 prompts, 373 answers kept, a report. The student has 1.5 million parameters,
           starts from random weights and sees a few hundred answers: it learns which words can
           answer which question, not what a post means, and scores what a constant answer scores.
           The demo shows the machinery, not the method's worth.

The OpenGrok report leaves learning rate, batch size, epochs and alpha..delta blank. The values
here are ours, chosen for this tiny student; see configs/phi3_mini.py for a real one.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `:smoke` is the same code on a few dozen prompts."""
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; there is 'smoke'")
    config = ConfigDict()
    config.run_dir = "runs/demo"

    # What is asked. The recorded teacher knows the answers to exactly this plan.
    config.prompts = ConfigDict({"source": "axes", "count": 414, "seed": 0})

    # Who is asked: answers written for this project, replayed through the real client.
    config.teacher = ConfigDict({"kind": "recorded", "concurrency": 16})

    # Recorded answers are to the planned prompts only: nothing to go on asking.
    config.refinement = ConfigDict({"rounds": 0})

    config.curation = ConfigDict({"valid_share": 0.15, "seed": 0})

    # Equal say for the three kinds of evidence: over posts, TF-IDF varies half as much as the
    # other two. The bias is calibrated so that 85 % of the tokens stay visible (the report:
    # 10-20 % are masked).
    config.masking = ConfigDict(
        {
            "preset": "",  # "paper", "balanced", "tfidf", "pos", "dep" or "random" sets the numbers
            "alpha": 2.0,
            "beta": 1.0,
            "gamma": 1.0,
            "delta": 1.0,
            "target_keep_rate": 0.85,
            "scope": "prompt+response",
            "max_tokens": 512,
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
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 512,
                "initializer_range": 0.06,  # 0.02 is for models thirty times as wide
            },
            "rule": "exclude",
            "draw": "fixed",
            "row_tokens": 512,
            "rows_per_batch": 1,  # few examples: many small updates learn more than few large
            "epochs": 20.0,
            "learning_rate": 2e-3,  # a hundred times that of a 4B fine-tune: from scratch, and tiny
            "warmup_share": 0.05,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "normalize": "token",
            "eval_every": 60,
            "save_every": 180,
            "patience": 6,
            "min_improvement": 0.0,
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "seed": 0,
        }
    )

    config.evaluation = ConfigDict(
        {
            "tasks": {"sentiment": {}, "emotion": {}, "topic": {}, "entities": {}},
            "predictors": ("likelihood", "generation"),
            "limit": 0,
            "seed": 0,
        }
    )
    config.report = ConfigDict({"title": "OpenGrok-JAX demo", "examples": 8, "ablation": ""})

    if variant == "smoke":
        config.update_from_flattened_dict(
            {
                "run_dir": "runs/demo-smoke",
                "prompts.count": 63,
                "training.epochs": 2.0,
                "training.eval_every": 8,
                "training.model.hidden_size": 64,
                "evaluation.limit": 12,
            }
        )
    return config
