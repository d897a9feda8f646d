"""A base config of forty posts and a student of a few thousand weights."""

import json

import pytest
from ml_collections import ConfigDict

INSTRUCTION = "How is it? {post}"


@pytest.fixture(scope="session")
def posts():
    glad = ("good day for the whole team", "what a lovely train ride", "best coffee in town today")
    sad = ("my phone broke again today", "the rain ruins every match", "worst queue at the station")
    rows = []
    for number in range(40):
        label = ("glad", "sad")[number % 2]
        text = f"{(glad, sad)[number % 2][number // 2 % 3]} number {number}"
        rows.append({"text": text, "label": label})
    return rows


@pytest.fixture(scope="session")
def base(posts, tmp_path_factory):
    """Sections that bind, without sets or tasks of their own on disk beyond one file."""
    folder = tmp_path_factory.mktemp("base")
    lines = [json.dumps(row) + "\n" for row in posts]
    (folder / "train.jsonl").write_text("".join(lines[:28]))
    (folder / "test.jsonl").write_text("".join(lines[28:]))
    config = ConfigDict()
    config.run_dir = str(folder / "run")
    config.prompts = ConfigDict(
        {
            "source": "posts",
            "posts_file": str(folder / "train.jsonl"),
            "task": "mood",
            "instruction": INSTRUCTION,
            "count": 0,
        }
    )
    config.teacher = ConfigDict({"kind": "labelled", "concurrency": 4})
    config.refinement = ConfigDict({"rounds": 0})
    config.curation = ConfigDict({"valid_share": 0.1, "seed": 0})
    config.masking = ConfigDict({"preset": "balanced", "max_tokens": 64, "workers": 1, "seed": 0})
    config.training = ConfigDict(
        {
            "init": "scratch",
            "model": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
            },
            "row_tokens": 64,
            "rows_per_batch": 2,
            "epochs": 2.0,
            "learning_rate": 1e-2,
            "eval_every": 0,
            "patience": 0,
            "save_every": 0,
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
        }
    )
    config.evaluation = ConfigDict(
        {
            "tasks": {
                "mood": {
                    "file": str(folder / "test.jsonl"),
                    "instruction": INSTRUCTION,
                    "labels": ("glad", "sad"),
                    "metric": "macro_f1",
                }
            },
            "batch_size": 8,
        }
    )
    config.report = ConfigDict({"title": "mood", "examples": 1})
    return config


@pytest.fixture(scope="session")
def sections(base):
    from opengrok_jax import pipeline

    return pipeline.parts(base)[1]


@pytest.fixture(scope="session")
def grid_config():
    questions = {
        "rule": {
            "ask": "Does the mask help?",
            "baseline": "no mask",
            "cells": {"no mask": {"rule": "none"}, "exclude": {}},
        },
        "inference": {
            "ask": "Masked at inference?",
            "baseline": "whole",
            "cells": {"whole": {}, "masked": {"inference_mask": True}},
        },
    }
    return ConfigDict(
        {
            "seeds": (0, 1),
            "engine": "resident",
            "bootstrap": 50,
            "price_per_hour": 3.6,
            "questions": questions,
        }
    )


@pytest.fixture(scope="session")
def finished(base, grid_config, tmp_path_factory):
    """The folder of an ablation that went through, and what it answered."""
    from opengrok_jax.ablation import ablate

    workdir = tmp_path_factory.mktemp("ablation") / "work"
    given = {"config": base, "grid_config": grid_config, "called": ("base.py", "grid.py")}
    return workdir, ablate.run(**given, workdir=workdir)
