import json

import pytest

from opengrok_jax import tokenizer, train_tokenizer
from opengrok_jax.errors import ConfigError


def test_the_shipped_file_is_what_the_script_makes(tmp_path):
    train_tokenizer.run(out=tmp_path / "tokenizer.json", vocab_size=4096)
    assert (tmp_path / "tokenizer.json").read_bytes() == tokenizer.EMBEDDED.read_bytes()


def test_the_layout_is_phi3s(shared_data):
    ours = json.loads(tokenizer.EMBEDDED.read_text())
    phi3 = json.loads((shared_data / "phi3-tokenizer" / "tokenizer.json").read_text())
    assert ours["pre_tokenizer"] == phi3["pre_tokenizer"]
    assert ours["normalizer"] == phi3["normalizer"]
    assert ours["decoder"] == phi3["decoder"]
    for key in ("type", "unk_token", "fuse_unk", "byte_fallback"):
        assert ours["model"][key] == phi3["model"][key]
    first = list(ours["model"]["vocab"])[:259]
    assert first == list(phi3["model"]["vocab"])[:259]

    def added(file):
        return [(t["content"], t["rstrip"]) for t in file["added_tokens"] if t["id"] > 2]

    assert added(ours) == added(phi3)


def test_the_evaluation_sets_are_not_learned_from(repository):
    tasks = repository / "opengrok_jax" / "assets" / "tasks"
    posts = {
        json.loads(x)["text"] for f in tasks.glob("*.jsonl") for x in f.read_text().splitlines()
    }
    assert posts
    assert not posts & set(train_tokenizer.texts())


def test_a_vocabulary_without_room_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a vocabulary of 3; control, byte and template tokens"):
        train_tokenizer.run(out=tmp_path / "tokenizer.json", vocab_size=3)
    assert not [*tmp_path.iterdir()]
