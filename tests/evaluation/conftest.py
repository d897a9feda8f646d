"""A random student small enough to check one row at a time, and two little tasks."""

import json
from pathlib import Path

import pytest
from flax import nnx

from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.evaluation.tasks import Task
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.tokenizer import ChatTokenizer


@pytest.fixture(scope="session")
def tokenizer() -> ChatTokenizer:
    return tokenizers.load()


@pytest.fixture(scope="session")
def student(tokenizer: ChatTokenizer) -> Phi3:
    config = Phi3Config.tiny(
        vocab_size=tokenizer.vocab_size + 3,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=160,
        initializer_range=0.3,  # wide, so that the answers differ from post to post
    )
    return Phi3(config, rngs=nnx.Rngs(7))


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def mood(tmp_path: Path) -> Task:
    rows = [
        {"id": "a", "text": "best day ever", "label": "good"},
        {
            "id": "b",
            "text": "my bus is late again and it rains and nobody says a word",
            "label": "bad",
        },
        {"id": "c", "text": "meh", "label": "so so"},
        {"id": "d", "text": "worst phone I have owned", "label": "bad"},
        {"id": "e", "text": "", "label": "so so"},
    ]
    return Task(
        name="mood",
        instruction="How is it? {post}",
        labels=("good", "so so", "bad"),
        metric="macro_f1",
        file=write_rows(tmp_path / "mood.jsonl", rows),
    )


@pytest.fixture
def names(tmp_path: Path) -> Task:
    rows = [
        {"text": "Ada in Rome", "entities": [{"text": "Ada", "type": "person"}]},
        {"text": "nothing here", "entities": []},
    ]
    return Task(
        name="names",
        instruction="Who? {post}",
        kind="entities",
        types=("person", "location"),
        metric="entity_f1",
        file=write_rows(tmp_path / "names.jsonl", rows),
    )
