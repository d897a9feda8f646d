"""Phi-3-mini-4k, fully fine-tuned on your own teacher's answers: the report's setting.

Command:   opengrok run --config configs/phi3_mini.py --config.teacher.base_url=http://host:8000/v1
           --config.teacher.model=NAME --config.teacher.rights=own-model
           --config.masking.tokenizer=/models/Phi-3-mini-4k-instruct
           --config.training.init=/models/Phi-3-mini-4k-instruct
Hardware:  16 TPU v5e chips or one 141 GB GPU: 3.8 billion parameters with float32 AdamW moments
           are 46 GB before activations. The step was measured on one H200 (docs/benchmarks.md) and
           compiled for v5e:4x4; the whole experiment has not been run.
Time:      about 23,000 tokens/s on one H200 with remat "dots" and unroll True: 3,000 answers of
           300 tokens, three epochs, in two minutes; not measured on TPUs
Expected:  not measured

The report leaves these values blank; they are ours:
  learning_rate 1e-5, epochs 3, warm-up 3 %: the usual range of full fine-tunes at 3-8B
                parameters (cf. the SFT recipes of torchtune and of TRL); a higher rate forgets.
  32 rows of 2048 tokens a step: about 65,000 tokens, several hundred short answers.
  alpha..delta  2, 1, 1, 1: over posts TF-IDF varies half as much as the other factors, so they
                have an equal say; the bias is calibrated to the report's 10-20 % masked tokens.
  lora.rank 0 = full fine-tuning, the report's setting. For adapters: rank 16, alpha twice that and
                a learning_rate of 1e-4 to 2e-4, the order of arXiv:2106.09685's.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; it has no variants, `configs/demo.py:smoke` is the same code in small."""
    if variant:
        raise ValueError(f"unknown variant {variant!r}; there is none")
    config = ConfigDict()
    config.run_dir = "runs/phi3-mini"
    config.prompts = ConfigDict(
        {
            "source": "axes",
            "count": 3000,
            "seed": 0,
            "axes_file": "",
            "posts_file": "",
            "techniques": 0,
        }
    )
    config.teacher = ConfigDict(
        {
            "kind": "api",
            "base_url": "",
            "model": "",
            "api": "chat",
            "api_key_env": "",
            "rights": "",
            "temperature": 0.7,
            "max_tokens": 512,
            "retry_max_tokens": 0,  # more: what was cut is asked for once more with this limit
            "top_logprobs": 0,
            "extra_body": "",  # JSON of the endpoint's own fields, see teacher/collect.py
            "concurrency": 32,
            "requests_per_minute": 0,
            "tokens_per_minute": 0,
            "timeout_sec": 900.0,  # shorter ones lose answers that were paid for
            "max_attempts": 5,
            "may_fail": 0.0,  # share of prompts that may be left without an answer
            "max_blocked": 0.1,  # share of the last 200 that a content policy may refuse
            "served_as": (),
            # US dollars as decimals: for a million tokens, and for all of it. A server of your own
            # has no prices and needs no cap.
            "price_input": "",
            "price_cached": "",
            "price_output": "",
            "price_blocked": "",
            "cap": "",
            "cap_tokens": 0,
            "cap_requests": 0,
        }
    )
    # Off. Worth trying with a teacher that costs little: rounds 20 asks on for a fifth of what the
    # plan cost, see docs/refinement.md.
    config.refinement = ConfigDict(
        {"rounds": 0, "batch": 64, "budget_share": 0.2, "losses_file": "", "seed": 0}
    )
    config.curation = ConfigDict({"valid_share": 0.05, "seed": 0})
    config.masking = ConfigDict(
        {
            "tokenizer": "",
            "pipeline": "",
            "preset": "",  # "paper", "balanced", "tfidf", "pos", "dep" or "random" sets the numbers
            "alpha": 2.0,
            "beta": 1.0,
            "gamma": 1.0,
            "delta": 1.0,
            "target_keep_rate": 0.85,
            "scope": "prompt+response",
            "max_tokens": 2048,
            "shard_examples": 10_000,
            "runner": "local",  # "ray" for a cluster that shares the run folder
            "workers": 0,  # 0 = all cores
            "ray_address": "",
            "seed": 0,
        }
    )
    config.training = ConfigDict(
        {
            "init": "",
            "model": {},
            "lora": {
                "rank": 0,
                "alpha": 32.0,
                "targets": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
            },
            # The report's loss. With a teacher that tells more: see objective.py.
            "distill": {
                "loss": "hard",
                "weight": 0.0,
                "temperature": 1.0,
                "feature_weight": 0.0,
                "feature_layers": (),
                "relation_weight": 0.0,
            },
            "teacher": "",
            "soft_targets": "",
            "rule": "exclude",
            "draw": "fixed",
            "attention": "auto",
            "row_tokens": 2048,
            "rows_per_batch": 32,
            "microbatches": 2,
            "epochs": 3.0,
            "learning_rate": 1e-5,
            "warmup_share": 0.03,
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "normalize": "example",
            "eval_every": 20,
            "save_every": 100,
            "patience": 5,
            "min_improvement": 0.0,
            "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
            "remat": "full",
            "unroll": False,  # True: 5 % faster on an H200, and longer to compile
            "dtype": "bfloat16",
            "param_dtype": "float32",
            "tensorboard": False,  # True writes event files beside metrics.jsonl
            "seed": 0,
        }
    )
    config.evaluation = ConfigDict(
        {
            "tokenizer": "",
            "tasks": {"sentiment": {}, "emotion": {}, "topic": {}, "entities": {}},
            "predictors": ("likelihood", "generation"),
            "limit": 0,
            "seed": 0,
        }
    )
    config.report = ConfigDict(
        {"title": "Phi-3-mini on your posts", "examples": 12, "ablation": ""}
    )
    return config
