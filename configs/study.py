"""The base of the study: small students from scratch on real tweets, one for each task.

Command:   opengrok ablate --config configs/study.py --grid configs/study_grid.py --workdir runs/s
           (:short of both is for two cores and an evening: fewer posts and questions, half the
           layers, and posts without the sentence that asks, which tells a student of one task
           nothing; :tiny of both takes minutes)
Data:      TweetEval's emotion, offensive and sentiment, in the layout of README, by default under
           ../shared/data; Phi-3's own tokenizer. The answers that are distilled are those of
           TF-IDF + logistic regression, each post answered by one that has not seen it; they and
           the posts are made first, by the three commands that scripts/out_of_fold_teacher.py
           opens with
Hardware:  one GPU, or two CPU cores and patience; preparing needs no GPU (see docs/ablation.md)
Expected:  above the majority answer and below TF-IDF + logistic regression: a student from random
           weights has never read English, and a few thousand tweets do not teach it. The study
           compares such students with each other, nothing more. With --config.training.init the
           same grid runs on real Phi-3 weights, with --grid.engine=finetune.
"""

from ml_collections import ConfigDict

DATA = "../shared/data"
INSTRUCTION = (
    "Which emotion does this post express: anger, joy, optimism or sadness? "
    "Answer with one word.\n\nPost: {post}"
)


def get_config(variant: str = "") -> ConfigDict:
    """The base: emotion; the grid lays the other tasks over it. Two variants are for two cores."""
    if variant not in ("", "short", "tiny"):
        raise ValueError(f"unknown variant {variant!r}; there are 'short' and 'tiny'")
    config = ConfigDict()
    config.run_dir = "runs/study-base"
    config.prompts = ConfigDict(
        {
            "source": "posts",
            "posts_file": "runs/oof/emotion.posts.jsonl",
            "task": "tweeteval-emotion",
            "instruction": INSTRUCTION,
            "count": 0,
        }
    )
    config.teacher = ConfigDict(
        {"kind": "recorded", "recorded_file": "runs/oof/emotion.jsonl", "concurrency": 16}
    )
    config.refinement = ConfigDict({"rounds": 0})
    config.curation = ConfigDict({"mask_handles": False, "valid_share": 0.05, "seed": 0})
    config.masking = ConfigDict(
        {
            "tokenizer": f"{DATA}/phi3-tokenizer",
            "preset": "balanced",
            "scope": "prompt+response",
            "max_tokens": 256,
            "workers": 0,
            "seed": 0,
        }
    )
    # Few epochs: beyond them the training loss goes to nothing and the validation loss climbs.
    config.training = ConfigDict(
        {
            "init": "scratch",
            "model": {
                "vocab_size": 32064,
                "hidden_size": 160,
                "intermediate_size": 448,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 256,
                "tie_word_embeddings": True,
                "initializer_range": 0.06,
            },
            "rule": "exclude",
            "draw": "fixed",
            "row_tokens": 256,
            "rows_per_batch": 4,
            "epochs": 3.0,
            "learning_rate": 1e-3,
            "warmup_share": 0.1,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "normalize": "example",
            "loss_weight": "uniform",
            "eval_every": 0,
            "patience": 0,
            "save_every": 0,
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "attention": "dense",  # rows of 256 tokens
            "unroll": True,
            "seed": 0,
        }
    )
    config.evaluation = ConfigDict(
        {
            "tasks": {"tweeteval-emotion": {}},
            "data": DATA,
            "predictors": ("likelihood",),
            "batch_size": 256,
            "limit": 0,
            "seed": 0,
        }
    )
    config.report = ConfigDict(
        {"title": "Students from scratch on tweets", "examples": 8, "ablation": ""}
    )

    if variant == "short":
        config.update_from_flattened_dict(
            {
                "run_dir": "runs/study-short-base",
                "prompts.posts_file": "runs/oof-short/emotion.posts.jsonl",
                "prompts.instruction": "{post}",
                "prompts.count": 2400,
                "teacher.recorded_file": "runs/oof-short/emotion.jsonl",
                "training.model.num_hidden_layers": 2,
                "training.epochs": 2.0,
                "evaluation.batch_size": 64,
                "evaluation.limit": 1000,
            }
        )
        config.evaluation.tasks = ConfigDict({"tweeteval-emotion": {"instruction": "{post}"}})
    if variant == "tiny":
        config.update_from_flattened_dict(
            {
                "run_dir": "runs/study-tiny-base",
                "prompts.count": 600,
                "training.model.hidden_size": 64,
                "training.model.intermediate_size": 176,
                "training.model.num_hidden_layers": 2,
                "training.epochs": 2.0,
                "evaluation.batch_size": 64,
                "evaluation.limit": 200,
            }
        )
    return config
