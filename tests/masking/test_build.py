import dataclasses
import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opengrok_jax import chance, masked_file, storage, tokenizer
from opengrok_jax.errors import ConfigError, DataError, StorageError
from opengrok_jax.masking import build, encode, keep, syntax
from opengrok_jax.masking.factors import UPOS_NAMES
from opengrok_jax.records import Cell, Example, Message, prompt_id
from tests.masking.annotated import annotate
from tests.masking.test_tfidf import scores as tfidf_scores

CHATS = [
    (["Is this post happy? my cat sat on the new keyboard 😹"], "It is amused: the cat won."),
    (["Be brief.", "Summarise: @ada the train is late again #monday"], "Trains late, users cross."),
    (["Topic of: gr8 match!! 👨‍👩‍👧 watched together 🇺🇸"], "Sports. A family enjoys the match."),
    (["Half an emoji \ud83d and\r\n\r\ntwo lines\n"], "The post breaks off."),
    (["Say nothing"], ""),
    (["  <|end|> is only text here"], " <|assistant|> too"),
]
LONG = (["word " * 300], "The long one.")


def make_examples(chats=CHATS) -> list[Example]:
    examples = []
    for texts, response in chats:
        roles = ["system", "user"] if len(texts) == 2 else ["user"]
        messages = tuple(
            Message(role=role, content=text)  # type: ignore[arg-type]
            for role, text in zip(roles, texts, strict=True)
        )
        plain = [dataclasses.replace(m, content=syntax.well_formed(m.content)) for m in messages]
        examples.append(
            Example(
                id=prompt_id(tuple(plain)),
                messages=messages,
                response=response,
                split="valid" if len(examples) == 2 else "train",
                cell=Cell(intent="test"),
                source="labelled",
                model_served="hand",
                rights="own",
            )
        )
    return examples


def write(path: Path, examples: list[Example]) -> Path:
    # Half an emoji has no UTF-8; JSON escapes carry it, as some servers' answers do.
    rows = [json.dumps(dataclasses.asdict(e)) for e in examples]
    path.write_text("".join(row + "\n" for row in rows), encoding="ascii")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write(folder / "examples.jsonl", [*make_examples(), *make_examples([LONG])])
    return folder


@pytest.fixture(scope="module")
def counts(folder) -> dict:
    return build.run(examples_file=folder / "examples.jsonl", out=folder / "out", max_tokens=200)


@pytest.fixture(scope="module")
def rows(folder, counts):
    return masked_file.read_masked(folder / "out" / "masked.parquet")[0]


# ---- what is written ----------------------------------------------------------------------------


def test_rows_are_the_encoded_examples_in_order(rows):
    examples = make_examples()
    chat = tokenizer.load()
    assert [r.id for r in rows] == [e.id for e in examples]
    assert [r.split for r in rows] == [e.split for e in examples]
    for row, example in zip(rows, examples, strict=True):
        messages = tuple(
            dataclasses.replace(m, content=syntax.well_formed(m.content)) for m in example.messages
        )
        encoded = chat.encode_chat(messages, example.response)
        np.testing.assert_array_equal(row.tokens, encoded.tokens)
        np.testing.assert_array_equal(row.roles, encoded.roles)


def test_factors_are_those_of_the_words_under_each_token(rows):
    """The oracle reads every document by itself and looks at every code point."""
    nlp, chat = syntax.load_pipeline(), tokenizer.load()
    documents = [
        [syntax.well_formed(t) for t in (*(m.content for m in e.messages), e.response)]
        for e in make_examples()
    ]
    words = annotate(nlp, [text for texts in documents for text in texts])
    telling = tfidf_scores([words[text].lower for texts in documents for text in texts])
    at_word = iter(telling)
    for row, example, texts in zip(rows, make_examples(), documents, strict=True):
        messages = tuple(
            Message(role=m.role, content=t) for m, t in zip(example.messages, texts, strict=False)
        )
        encoded = chat.encode_chat(messages, texts[-1])
        by_character = np.zeros((3, len(encoded.text) + 1), np.float32)
        begin = 0
        for text in texts:
            begin = encoded.text.index(">\n" + text + "<|end|>", begin) + 2
            mine = words[text]
            scores = zip(next(at_word), mine.pos, mine.dep, strict=True)
            for a, b, three in zip(mine.starts, mine.ends, scores, strict=True):
                by_character[:, begin + a : begin + b] = np.array(three)[:, None]
            begin += len(text)
        for t, (a, b) in enumerate(encoded.spans.tolist()):
            expected = by_character[:, a : max(b, a + 1)].max(axis=1)
            if encoded.special[t] or encoded.roles[t] == tokenizer.TEMPLATE:
                expected = np.zeros(3)
            assert [row.tfidf[t], row.pos[t], row.dep[t]] == pytest.approx(expected.tolist())


def test_the_mask_is_the_formula_and_the_draw(rows, counts):
    assert {"alpha": 2.0, "beta": 1.0, "gamma": 1.0, "delta": 1.0}.items() <= counts.items()
    for row in rows:
        count = len(row.tokens)
        length = np.array([count])
        random = chance.of_tokens(0, [row.id], "random", length)
        np.testing.assert_array_equal(row.random, random)
        free = keep.maskable(row.roles, "prompt+response")
        total = 2.0 * row.tfidf + row.pos + row.dep + row.random + counts["bias"]
        expected = np.where(free, 1 / (1 + np.exp(-total.astype(np.float64))), 1.0)
        np.testing.assert_allclose(row.keep_prob, expected, rtol=1e-5)
        u = chance.of_tokens(0, [row.id], "draw", length)
        np.testing.assert_array_equal(row.key_mask, u < row.keep_prob)
        assert row.key_mask[row.roles == tokenizer.TEMPLATE].all()


def test_content_words_are_kept_more_often_than_the_rest(rows):
    chance = np.concatenate([r.keep_prob[r.roles > 0] for r in rows])
    content = np.concatenate([r.pos[r.roles > 0] for r in rows]) > 0
    assert chance[content].mean() > chance[~content & (chance < 1)].mean() + 0.1


def test_corpus_json_counts_what_was_written(folder, rows, counts):
    assert storage.read_json(folder / "out" / "corpus.json") == counts
    free = [keep.maskable(r.roles, "prompt+response") for r in rows]
    hidable = sum(int(f.sum()) for f in free)
    assert counts["examples"] == len(CHATS)
    assert counts["tokens"] == sum(len(r.tokens) for r in rows)
    assert counts["mean_tokens"] == pytest.approx(counts["tokens"] / len(CHATS))
    assert counts["maskable_tokens"] == hidable
    assert counts["keep_prob"] == pytest.approx(0.85, abs=1e-6)
    shown = sum(int(r.key_mask[f].sum()) for r, f in zip(rows, free, strict=True))
    assert counts["keep_rate"] == shown / hidable
    assert counts["keep_rate_of_all"] == sum(r.key_mask.sum() for r in rows) / counts["tokens"]
    assert counts["by_role"]["template"]["keep_rate"] == 1.0
    assert sum(c["tokens"] for c in counts["by_role"].values()) == counts["tokens"]
    assert sum(c["tokens"] for c in counts["by_upos"].values()) == hidable
    assert math.isclose(
        sum(c["tokens"] * c["keep_rate"] for c in counts["by_upos"].values()), shown
    )
    assert {"NOUN", "VERB", UPOS_NAMES[-1]} <= set(counts["by_upos"])


def test_the_long_example_is_skipped_by_name(counts):
    (long,) = make_examples([LONG])
    (skipped,) = counts["skipped"]
    assert skipped["id"] == long.id
    assert skipped["tokens"] > 200


def test_provenance_says_how_it_was_made(folder, counts):
    _, provenance = masked_file.read_masked(folder / "out" / "masked.parquet")
    assert provenance["vocab_size"] == tokenizer.load().vocab_size
    beside = folder / "out" / "tokenizer" / "tokenizer.json"
    assert beside.read_bytes() == tokenizer.EMBEDDED.read_bytes()
    assert provenance["tokenizer_sha256"] == hashlib.sha256(beside.read_bytes()).hexdigest()
    assert provenance["pipeline"].startswith("en_sns ")
    assert provenance["scope"] == "prompt+response"
    assert provenance["target_keep_rate"] == 0.85
    assert provenance["bias"] == counts["bias"] != 0.0
    assert provenance["seed"] == 0
    assert provenance.items() <= counts.items()


def test_the_same_arguments_give_the_same_bytes(folder, counts):
    again = build.run(examples_file=folder / "examples.jsonl", out=folder / "again", max_tokens=200)
    assert again == counts
    for name in (
        "masked.parquet/part-00000.parquet",
        "masked.parquet/manifest.json",
        "corpus.json",
    ):
        assert (folder / "again" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_the_order_of_the_examples_changes_no_mask(folder, tmp_path):
    backward = write(tmp_path / "backward.jsonl", make_examples()[::-1])
    forward = write(tmp_path / "forward.jsonl", make_examples())
    for file in (forward, backward):
        build.run(examples_file=file, out=tmp_path / file.stem, preset="paper")
    one, _ = masked_file.read_masked(tmp_path / "forward" / "masked.parquet")
    other, _ = masked_file.read_masked(tmp_path / "backward" / "masked.parquet")
    for a, b in zip(one, other[::-1], strict=True):
        assert a.id == b.id
        np.testing.assert_array_equal(a.keep_prob, b.keep_prob)
        np.testing.assert_array_equal(a.key_mask, b.key_mask)


def test_phi3s_tokenizer(folder, tmp_path, shared_data):
    name = str(shared_data / "phi3-tokenizer")
    counts = build.run(
        examples_file=folder / "examples.jsonl", out=tmp_path, tokenizer=name, max_tokens=200
    )
    rows, provenance = masked_file.read_masked(tmp_path / "masked.parquet")
    assert provenance["tokenizer"] == name
    assert provenance["vocab_size"] == 32011
    assert counts["keep_prob"] == pytest.approx(0.85, abs=1e-6)
    family = rows[2]
    assert family.tokens.tolist().count(243) >= 4  # <0xF0>, the first byte of an emoji
    assert (family.tfidf[family.tokens == 243] > 0).all()


# ---- settings -----------------------------------------------------------------------------------

CHANGES = {
    "preset": "paper",
    "alpha": 0.0,
    "beta": 0.0,
    "gamma": 0.0,
    "delta": 0.0,
    "target_keep_rate": 0.5,
    "scope": "prompt",
    "pos_tags": ("PRON",),
    "relations": ("det",),
    "max_tokens": 30,
    "seed": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_masks(folder, rows, tmp_path, name):
    settings: dict[str, Any] = {"max_tokens": 200, name: CHANGES[name]}
    build.run(examples_file=folder / "examples.jsonl", out=tmp_path, **settings)
    after, provenance = masked_file.read_masked(tmp_path / "masked.parquet")
    changed = [
        len(after) != len(rows)
        or not np.array_equal(a.keep_prob, b.keep_prob)
        or not np.array_equal(a.key_mask, b.key_mask)
        for a, b in zip(after, rows, strict=False)
    ]
    assert any(changed)
    value = CHANGES[name]
    assert provenance[name] == (list(value) if isinstance(value, tuple) else value)


def test_a_fixed_bias(folder, tmp_path):
    settings: dict[str, Any] = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "delta": 0.0, "bias": -1.0}
    counts = build.run(
        examples_file=folder / "examples.jsonl",
        out=tmp_path,
        target_keep_rate=None,
        max_tokens=200,
        **settings,
    )
    assert counts["bias"] == -1.0
    assert counts["keep_prob"] == pytest.approx(1 / (1 + math.e), rel=1e-6)


def test_a_preset_sets_all_numbers_and_says_so(folder, tmp_path, capsys):
    counts = build.run(
        examples_file=folder / "examples.jsonl", out=tmp_path, preset="paper", alpha=9.0
    )
    assert counts["alpha"] == 1.0
    assert counts["bias"] == 0.0
    assert counts["target_keep_rate"] is None
    assert "preset 'paper' sets alpha=1.0, beta=1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"max_tokens": -5}, "got -5"),
        ({"shard_examples": 0}, "shard_examples must be at least 1, got 0"),
        ({"workers": -1}, "workers is -1"),
        ({"runner": "slurm"}, "choose one of local, ray"),
        ({"ray_address": "auto"}, "only runner 'ray' reads"),
        ({"preset": "papers"}, "choose one of paper, balanced"),
        ({"scope": "response"}, "choose one of prompt"),
        ({"target_keep_rate": 1.0}, "between 0 and 1"),
        ({"target_keep_rate": 0.0}, "between 0 and 1"),
        ({"bias": 1.0}, "set target_keep_rate to None"),
        ({"alpha": math.nan}, "alpha must be a finite number"),
        ({"pos_tags": ("NN",)}, "pos_tags holds 'NN'"),
        ({"pipeline": "no_such_pipeline"}, "python -m spacy download no_such_pipeline"),
        ({"relations": ("subj",)}, "relations holds subj"),
    ],
)
def test_wrong_values_are_told_before_any_work(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        build.run(examples_file=tmp_path / "not there", out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_no_example_at_all(tmp_path):
    with pytest.raises(DataError, match="holds no example"):
        build.run(examples_file=write(tmp_path / "none.jsonl", []), out=tmp_path / "out")
    assert not (tmp_path / "out" / "masked.parquet").exists()


def test_every_example_too_long(folder, tmp_path):
    with pytest.raises(DataError, match="all 7 examples are longer than max_tokens = 3; the short"):
        build.run(examples_file=folder / "examples.jsonl", out=tmp_path / "out", max_tokens=3)
    assert not (tmp_path / "out" / "masked.parquet").exists()
    assert not [*(tmp_path / "out" / "cache" / "factors").iterdir()]


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        build.run(examples_file=tmp_path / "gone.jsonl", out=tmp_path / "out")


# ---- bytes, restarts, rebuilds -------------------------------------------------------------------


def everything(out: Path) -> dict[str, bytes]:
    """What a build leaves, without its cache."""
    paths = [p for p in sorted(out.rglob("*")) if p.is_file() and "cache" not in p.parts]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths}


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
from pathlib import Path
from opengrok_jax.masking import build, encode, words
encode.BLOCK, words.CHUNK = 50, 16
if __name__ == "__main__":
    build.run(examples_file=Path(sys.argv[1]), out=Path(sys.argv[2]), shard_examples=64,
              workers=int(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_time_the_same_command_gives_the_same_bytes(many, tmp_path, repository):
    script = tmp_path / "build.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(repository)}
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    command = [sys.executable, str(script), str(many)]
    subprocess.run([*command, str(clean), "1"], check=True, env=environment)
    chance_of = random.Random(3)
    kills = 0
    while True:
        process = subprocess.Popen(
            [*command, str(killed), str(1 + kills % 2)], env=environment, start_new_session=True
        )
        try:
            assert process.wait(timeout=chance_of.uniform(0.5, 2 + kills / 2)) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()  # the workers notice
            process.wait()
            kills += 1
    assert kills >= 3
    assert everything(killed) == everything(clean)
