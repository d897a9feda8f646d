import json
import re
import shutil

import pytest

spacy = pytest.importorskip("spacy")
from spacy.tokens import Doc  # noqa: E402

from opengrok_jax.errors import ConfigError  # noqa: E402
from opengrok_jax.masking.annotator_notice import published  # noqa: E402
from opengrok_jax.masking.score_annotator import run, score, table  # noqa: E402
from opengrok_jax.masking.syntax import EMBEDDED  # noqa: E402
from opengrok_jax.masking.treebank import Sentence, read_conllu  # noqa: E402


def annotator(words, spaces, tags, heads, deps):
    """A pipeline that gives every text this one annotation."""
    nlp = spacy.blank("en")
    nlp.tokenizer = lambda text: Doc(
        nlp.vocab, words=words, spaces=spaces, pos=tags, heads=heads, deps=deps
    )
    return nlp


DONT_GO = Sentence(
    words=("do", "nt", "go"),
    spaces=(False, True, False),
    upos=("AUX", "PART", "VERB"),
    heads=(2, 2, 2),
    deps=("aux", "advmod", "ROOT"),
)
READS = Sentence(
    words=("She", "reads", "big", "books"),
    spaces=(True, True, True, False),
    upos=("PRON", "VERB", "ADJ", "NOUN"),
    heads=(1, 1, 3, 1),
    deps=("nsubj", "ROOT", "amod", "obj"),
)


def test_other_words_count_half_and_half():
    """The drawing of the module: one common word of 3 gold and 2 predicted ones."""
    nlp = annotator(["dont", "go"], [True, False], ["VERB", "VERB"], [1, 1], ["aux", "ROOT"])
    got = score(nlp, [DONT_GO])
    assert got == {
        "words": 3.0, "tokens": 40.0, "upos": 40.0, "uas": 40.0, "las": 40.0,
        "pos_score": 33.33,  # gold 0 0 1, predicted 1 1 1
        "dep_score": 100.0,  # the root alone on both sides
    }  # fmt: skip


def test_perfect_annotation_scores_all():
    nlp = annotator(list(READS.words), list(READS.spaces), list(READS.upos), [1, 1, 3, 1],
                    ["nsubj", "ROOT", "amod", "obj"])  # fmt: skip
    assert set(score(nlp, [READS]).values()) == {4.0, 100.0}


def test_each_figure_sees_its_own_error():
    nlp = annotator(
        list(READS.words),
        list(READS.spaces),
        ["PRON", "VERB", "ADV", "NOUN"],  # one tag wrong, and no content word by it
        [1, 1, 1, 1],  # one head wrong
        ["nsubj:outer", "ROOT", "advmod", "obl"],  # that relation and one more wrong
    )
    got = score(nlp, [READS])
    assert (got["tokens"], got["upos"], got["uas"], got["las"]) == (100.0, 75.0, 75.0, 50.0)
    assert got["pos_score"] == 75.0  # big: 1 in gold, 0 here
    assert got["dep_score"] == 75.0  # books: an end of obj in gold, obl is no key relation


def test_space_tokens_do_not_count():
    nlp = annotator(
        ["She", "reads", "\n", "big", "books"],
        [True, False, False, True, False],
        ["PRON", "VERB", "SPACE", "ADJ", "NOUN"],
        [1, 1, 1, 4, 2],  # books hangs on the line break, which hangs on reads
        ["nsubj", "ROOT", "dep", "amod", "obj"],
    )
    assert set(score(nlp, [READS]).values()) == {4.0, 100.0}


def test_run_prints_json_and_a_table(tmp_path, capsys):
    path = tmp_path / "one.conllu"
    path.write_text("1\tGo\t_\tVERB\t_\t_\t0\troot\t_\t_\n\n")
    scores = run(pipeline=str(EMBEDDED), treebanks=(path,))
    out, err = capsys.readouterr()
    assert json.loads(out) == scores
    assert "| one.conllu | 1 | 100.00 |" in err
    assert published() in err


def test_the_card_is_written_by_the_same_command(tmp_path):
    copy = shutil.copytree(EMBEDDED, tmp_path / "copy")
    path = tmp_path / "one.conllu"
    path.write_text("1\tGo\t_\tVERB\t_\t_\t0\troot\t_\t_\n\n")
    run(pipeline=str(copy), treebanks=(path,), card=True)
    now, before = ((folder / "CARD.md").read_text() for folder in (copy, EMBEDDED))
    rows = re.compile(r"^\| \S+\.conllu.*\n", re.M)
    assert rows.findall(now)[0].startswith("| one.conllu | 1 |")
    assert rows.sub("", now) == rows.sub("", before)


def test_no_card_for_a_pipeline_that_is_not_ours(tmp_path):
    copy = shutil.copytree(EMBEDDED, tmp_path / "copy")
    meta = json.loads((copy / "meta.json").read_text())
    del meta["training"]
    (copy / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ConfigError, match="does not say how it was trained"):
        run(pipeline=str(copy), treebanks=(), card=True)


def test_a_missing_pipeline_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no_such_pipeline"):
        run(pipeline="no_such_pipeline", treebanks=(tmp_path / "x",))


def test_the_card_says_what_the_command_measures(shared_data):
    """Every row of the shipped CARD.md, measured again."""
    claimed = re.findall(r"^\| \S+\.conllu\.gz \|.*$", (EMBEDDED / "CARD.md").read_text(), re.M)
    assert len(claimed) == 2
    nlp = spacy.load(EMBEDDED)
    names = [row.split()[1] for row in claimed]
    scores = {name: score(nlp, read_conllu(shared_data / "ud" / name)) for name in names}
    measured = [row for row in table(scores).splitlines() if ".conllu.gz" in row]
    for claim, row in zip(claimed, measured, strict=True):
        was, now = (
            [float(cell.replace(",", "")) for cell in text.split("|")[2:-1]]
            for text in (claim, row)
        )
        assert was == pytest.approx(now, abs=0.05)  # another BLAS may turn a close call
