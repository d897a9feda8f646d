import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opengrok_jax import masked_file, storage
from opengrok_jax.errors import DataError, StorageError
from opengrok_jax.masking import build, encode, keep
from tests.masking.built import everything, make_examples, write

POSTS = ["The cat of {} won!", "{} is late again @ada #monday", "Why, {}? 👨‍👩‍👧", "{0} " * 9]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Two hundred examples, every fourth a text that was there before."""
    chats = [
        (
            [POSTS[n % 4].format(f"word{n if n % 4 else n % 12}")],
            ["Yes.", "No, they do not."][n % 2],
        )
        for n in range(200)
    ]
    examples = [
        dataclasses.replace(e, id=f"id{n}", label=["joy", "anger", ""][n % 3])
        for n, e in enumerate(make_examples(chats))
    ]
    return write(tmp_path_factory.mktemp("many") / "examples.jsonl", examples)


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    build.run(examples_file=many, out=out, shard_examples=64, workers=1)
    return out


@pytest.mark.parametrize(("block", "workers"), [(64, 1), (50, 2)])
def test_workers_and_blocks_do_not_change_a_byte(
    many, whole, tmp_path, monkeypatch, block, workers
):
    monkeypatch.setattr(encode, "BLOCK", block)
    build.run(examples_file=many, out=tmp_path, shard_examples=64, workers=workers)
    assert everything(tmp_path) == everything(whole)
    assert len(masked_file.manifest(tmp_path / "masked.parquet")["parts"]) == 4


def test_the_size_of_a_part_moves_rows_and_nothing_else(many, whole, tmp_path):
    build.run(examples_file=many, out=tmp_path, shard_examples=150, workers=1)
    one, _ = masked_file.read_masked(whole / "masked.parquet")
    other, _ = masked_file.read_masked(tmp_path / "masked.parquet")
    for a, b in zip(one, other, strict=True):
        for name in masked_file.COLUMNS:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (tmp_path / "corpus.json").read_bytes() == (whole / "corpus.json").read_bytes()


def test_a_text_is_annotated_once_wherever_it_stands(many, whole):
    texts = set()
    for row in storage.read_jsonl(many):
        texts |= {row["messages"][0]["content"], row["response"]}
    assert storage.read_json(whole / "corpus.json")["texts"] == len(texts)


def test_labels_are_reported(many, whole):
    corpus = storage.read_json(whole / "corpus.json")
    rows, _ = masked_file.read_masked(whole / "masked.parquet")
    labels = {row["id"]: row["label"] for row in storage.read_jsonl(many)}
    assert corpus["by_label"].keys() == {"joy", "anger"}
    for label, told in corpus["by_label"].items():
        here = [r for r in rows if labels[r.id] == label]
        free = [keep.maskable(r.roles, "prompt+response") for r in here]
        shown = np.concatenate([r.key_mask[f] for r, f in zip(here, free, strict=True)])
        chances = np.concatenate([r.keep_prob[f] for r, f in zip(here, free, strict=True)])
        assert told["tokens"] == len(shown)
        assert told["keep_rate"] == shown.mean()
        assert told["keep_prob"] == pytest.approx(chances.mean(dtype=np.float64), abs=1e-9)


FORBIDDEN = """
import sys
import time
from pathlib import Path
class NoSpacy:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "spacy":
            raise AssertionError("spaCy was asked for")
sys.meta_path.insert(0, NoSpacy())
from opengrok_jax.masking import build
build.run(examples_file=Path(sys.argv[1]), out=Path(sys.argv[2]), shard_examples=64, workers=1,
          alpha=0.5, seed=3, scope="prompt")
"""


def test_new_numbers_need_no_annotator_and_give_the_bytes_of_a_fresh_build(many, whole, tmp_path):
    changed, fresh = tmp_path / "changed", tmp_path / "fresh"
    shutil.copytree(whole, changed)
    subprocess.run([sys.executable, "-c", FORBIDDEN, many, changed], check=True, timeout=100)
    new: Any = {"alpha": 0.5, "seed": 3, "scope": "prompt"}
    build.run(examples_file=many, out=fresh, shard_examples=64, workers=1, **new)
    assert everything(changed) == everything(fresh)
    assert everything(changed) != everything(whole)


def test_other_tags_need_the_annotators_words_only(many, whole, tmp_path, monkeypatch):
    changed, fresh = tmp_path / "changed", tmp_path / "fresh"
    shutil.copytree(whole, changed)
    new: Any = {"pos_tags": ("PRON",), "relations": ("det",), "shard_examples": 64, "workers": 1}
    build.run(examples_file=many, out=fresh, **new)
    before = {p: p.stat().st_mtime_ns for p in (changed / "cache" / "words").rglob("*.npz")}
    build.run(examples_file=many, out=changed, **new)
    after = {p: p.stat().st_mtime_ns for p in (changed / "cache" / "words").rglob("*.npz")}
    assert after == before
    assert everything(changed) == everything(fresh)
    assert len([*(changed / "cache" / "factors").iterdir()]) == 1, "the old ones are gone"


def test_a_malformed_line_is_named_by_its_number(many, tmp_path):
    lines = many.read_text().splitlines()
    bad = tmp_path / "bad.jsonl"
    for spoilt, said in (("{", "not JSON"), ("[]", "expected a JSON object"), ("{}", "lacks id")):
        bad.write_text("\n".join(["", *lines[:40], spoilt, *lines[40:]]))
        with pytest.raises(DataError, match=rf"bad\.jsonl, line 42: .*{said}"):
            build.run(examples_file=bad, out=tmp_path / "out", workers=1)


def test_a_full_disk_is_one_line_and_the_same_call_goes_on(many, whole, small_disk):
    out = small_disk / "out"
    (small_disk / "ballast").write_bytes(b"0" * 8_250_000)
    given: Any = {"examples_file": many, "out": out, "shard_examples": 64, "workers": 1}
    with pytest.raises(StorageError, match=r"cannot write .* No space left on device; free some"):
        build.run(**given)
    (small_disk / "ballast").unlink()
    build.run(**given)
    assert everything(out) == everything(whole)


KILLED = """
import sys
import time
from pathlib import Path
from opengrok_jax.masking import build, encode, words
encode.BLOCK, words.CHUNK = 50, 16
if __name__ == "__main__":
    build.run(examples_file=Path(sys.argv[1]), out=Path(sys.argv[2]), shard_examples=64,
              workers=int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [3, 4])
def test_killed_at_any_time_the_same_command_gives_the_same_bytes(many, tmp_path, repository, seed):
    script = tmp_path / "build.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(repository)}
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    command = [sys.executable, str(script), str(many)]
    begun = time.monotonic()
    subprocess.run([*command, str(clean), "1"], check=True, env=environment)
    took = time.monotonic() - begun
    chance_of = random.Random(seed)
    kills = 0
    for attempt in range(6):
        process = subprocess.Popen(
            [*command, str(killed), str(1 + attempt % 2)], env=environment, start_new_session=True
        )
        try:
            assert process.wait(timeout=took * chance_of.uniform(0.2, 0.9)) == 0
        except subprocess.TimeoutExpired:
            process.kill()  # the workers notice
            process.wait()
            kills += 1
    subprocess.run([*command, str(killed), "2"], check=True, env=environment)
    assert kills
    assert everything(killed) == everything(clean)
