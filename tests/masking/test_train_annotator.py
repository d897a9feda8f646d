import inspect
import json
import subprocess
import sys

import pytest

spacy = pytest.importorskip("spacy")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from opengrok_jax.errors import ConfigError, DataError  # noqa: E402
from opengrok_jax.masking.syntax import EMBEDDED  # noqa: E402
from opengrok_jax.masking.train_annotator import run  # noqa: E402

# form, UPOS, head, relation; written for this test
TREES = (
    "The DET 2 det|cat NOUN 3 nsubj|eats VERB 0 root|old ADJ 5 amod|fish NOUN 3 obj|. PUNCT 3 punct",
    "We PRON 2 nsubj|saw VERB 0 root|Anna PROPN 2 obj|in ADP 5 case|Rome PROPN 2 obl|! PUNCT 2 punct",
    "Nice ADJ 2 amod|song NOUN 0 root",
    "She PRON 2 nsubj|loves VERB 0 root|this DET 4 det|band NOUN 2 obj|. PUNCT 2 punct",
)


def conllu(copies: int) -> str:
    text = ""
    for copy in range(copies):
        text += f"# newdoc id = d{copy}\n"
        for tree in TREES:
            for i, word in enumerate(tree.split("|"), start=1):
                form, tag, head, relation = word.split()
                text += f"{i}\t{form}\t_\t{tag}\t_\t_\t{head}\t{relation}\t_\t_\n"
            text += "\n"
    return text


@pytest.fixture(scope="module")
def treebank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("treebank")
    (folder / "en_ewt-ud-train.conllu").write_text(conllu(10))
    (folder / "en_ewt-ud-dev.conllu").write_text(conllu(2))
    return folder


@pytest.fixture(scope="module")
def trained(treebank, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "deep" / "pipeline"
    run(
        treebank=treebank, out=out, width=32, depth=1, max_steps=60, rough_copies=1,
        score_on=(treebank / "en_ewt-ud-dev.conllu",),
    )  # fmt: skip
    return out


def test_training_learns(trained):
    doc = spacy.load(trained)("The cat eats fish.")
    assert [token.pos_ for token in doc] == ["DET", "NOUN", "VERB", "NOUN", "PUNCT"]
    meta = json.loads((trained / "meta.json").read_text())
    assert meta["performance"]["pos_acc"] > 0.8


def test_the_folder_is_complete_and_clean(trained):
    assert {"LICENSE", "NOTICE", "CARD.md", "config.cfg", "meta.json"} <= {
        path.name for path in trained.iterdir()
    }
    assert [path.name for path in trained.parent.iterdir()] == [trained.name]  # nothing left over
    config = spacy.util.load_config(trained / "config.cfg")
    assert set(config["paths"].values()) == {None}
    assert config["initialize"]["before_init"] is None
    assert config["components"]["tok2vec"]["model"]["encode"]["width"] == "${size.width}"
    assert config["size"] == {"width": 32, "depth": 1}
    strings = json.loads((trained / "vocab" / "strings.json").read_text())
    assert "Anna" not in strings  # a word of the treebank
    assert {"nsubj", "obj", "ROOT"} <= set(spacy.load(trained).get_pipe("parser").labels)
    meta = json.loads((trained / "meta.json").read_text())
    assert meta["training"] == {
        "seed": 11, "width": 32, "depth": 1, "max_steps": 60, "rough_copies": 1
    }  # fmt: skip
    assert meta["license"] == "CC BY-SA 4.0"
    assert set(meta["sources"][0]["sha256"]) == {"en_ewt-ud-train.conllu", "en_ewt-ud-dev.conllu"}
    assert "| en_ewt-ud-dev.conllu | 38 | 100.00 |" in (trained / "CARD.md").read_text()


def test_a_pipeline_is_replaced_and_the_seed_decides(treebank, trained, tmp_path):
    first, other = tmp_path / "first", tmp_path / "other"
    small = {"treebank": treebank, "width": 8, "depth": 1, "max_steps": 2}
    run(out=first, seed=1, **small)
    weights = (first / "tok2vec" / "model").read_bytes()
    (first / "stale").write_text("")
    run(out=first, seed=1, **small)
    assert (first / "tok2vec" / "model").read_bytes() == weights
    assert not (first / "stale").exists()
    run(out=other, seed=2, **small)
    assert (other / "tok2vec" / "model").read_bytes() != weights


def test_other_folders_are_left_alone(treebank, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("x")
    with pytest.raises(ConfigError, match="not a spaCy pipeline"):
        run(treebank=treebank, out=tmp_path / "letters")
    assert (tmp_path / "letters" / "love.txt").read_text() == "x"


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"depth": 0}, {"max_steps": 0}, {"rough_copies": -1}]
)
def test_numbers_are_checked_first(treebank, tmp_path, wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is {next(iter(wrong.values()))}"):
        run(treebank=treebank, out=tmp_path / "out", **wrong)


def test_a_missing_or_doubled_treebank_is_named(treebank, tmp_path):
    with pytest.raises(DataError, match="found none"):
        run(treebank=tmp_path, out=tmp_path / "out")
    for name in ("ewt.train.conllu", "ewt-train.conllu"):
        (tmp_path / name).write_text(conllu(1))
    with pytest.raises(DataError, match=r"found ewt-train\.conllu, ewt\.train\.conllu"):
        run(treebank=tmp_path, out=tmp_path / "out")


# -- the pipeline that ships -----------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return spacy.load(EMBEDDED)


def test_it_loads_without_this_package(tmp_path):
    code = (
        "import spacy, sys; nlp = spacy.load(sys.argv[1]); doc = nlp('good morning #nyc'); "
        "assert not [name for name in sys.modules if name.startswith('opengrok')]; "
        "print(*[token.pos_ for token in doc])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code, str(EMBEDDED)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["ADJ", "NOUN"]), done.stderr


def test_it_was_trained_with_the_defaults():
    training = json.loads((EMBEDDED / "meta.json").read_text())["training"]
    defaults = inspect.signature(run).parameters
    assert training == {name: defaults[name].default for name in training}


def test_it_is_small_and_says_where_it_comes_from():
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    notice = (EMBEDDED / "NOTICE").read_text()
    for words in ("Universal Dependencies English Web Treebank", "Silveira", "CC BY-SA 4.0",
                  "https://creativecommons.org/licenses/by-sa/4.0/", "What was changed"):  # fmt: skip
        assert words in notice
    assert "CC-BY-SA-4.0" in (EMBEDDED / "LICENSE").read_text()
    assert [
        entry["name"] for entry in json.loads((EMBEDDED / "meta.json").read_text())["sources"]
    ] == ["UD_English-EWT"]


SENTENCES = {
    "The cat eats old fish .": "DET NOUN VERB ADJ NOUN PUNCT",
    "I love this song 😍": "PRON VERB DET NOUN SYM",
    "@user thanks for the new phone !!!": "PROPN NOUN ADP DET ADJ NOUN PUNCT",
    "RT @news: police found the car #london https://t.co/a8Kq2xYz": "X X PUNCT NOUN VERB DET NOUN X X",
}


@pytest.mark.parametrize("text", SENTENCES)
def test_it_tags_plain_posts(shipped, text):
    assert [token.pos_ for token in shipped(text)] == SENTENCES[text].split()


def test_it_finds_subject_object_and_root(shipped):
    doc = shipped("my brother bought a red car yesterday")
    found = {token.dep_: token.text for token in doc}
    assert found["nsubj"] == "brother"
    assert found["ROOT"] == "bought"
    assert found["obj"] == "car"


POSTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(
        ["#a", "@b", "😂", "❤️", "!!", " ", "\n", "\x00", "http", ":)", "\u200d", "lol"]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=60)
@given(POSTS)
def test_it_never_fails_and_never_loses_a_character(shipped, text):
    doc = shipped(text)
    assert doc.text == text
    assert all(token.pos_ for token in doc)
    assert all(0 <= token.head.i < len(doc) for token in doc)
