from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masking import syntax
from tests.masking.annotated import annotate, stored

TABLE = {
    "she": ("PRON", "nsubj:pass"),
    "cats": ("NOUN", "nsubj"),
    "eat": ("VERB", "ROOT"),
    "like": ("VERB", "ROOT"),
    "fish": ("NOUN", "obj"),
    "old": ("ADJ", "amod"),
    "the": ("DET", "det"),
}


class ByTable:
    """Tags words by `TABLE`; all of them hang on the first root, which is the word 0 if none is."""

    def __init__(self, labels: tuple[str, ...]):
        self.labels = labels
        self.seen: list[str] = []

    def __call__(self, doc: Doc) -> Doc:
        self.seen.append(doc.text)
        rows = [TABLE.get(token.lower_, ("X", "dep")) for token in doc]
        root = next((n for n, (_, name) in enumerate(rows) if name == "ROOT"), 0)
        return Doc(
            doc.vocab,
            words=[token.text for token in doc],
            spaces=[bool(token.whitespace_) for token in doc],
            pos=["SPACE" if t.is_space else pos for t, (pos, _) in zip(doc, rows, strict=True)],
            deps=[name for _, name in rows],
            heads=[root] * len(rows),
        )

    def to_disk(self, path, exclude=()):
        pass

    def from_disk(self, path, exclude=()):
        return self


@Language.factory("by_table", default_config={"labels": ["ROOT", "nsubj", "obj", "det", "amod"]})
def make_by_table(nlp, name, labels):
    return ByTable(tuple(labels))


@pytest.fixture
def nlp() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("by_table")
    return nlp


# ---- scores -------------------------------------------------------------------------------------


def test_the_drawing_of_relation_scores():
    relations = ["nsubj", "root", "iobj", "nummod", "obj", "obl"]
    heads = [1, 1, 1, 4, 1, 1]
    for chosen, row in {
        "root": [0, 1, 0, 0, 0, 0],
        "obj": [0, 1, 0, 0, 1, 0],
        "nummod": [0, 0, 0, 1, 1, 0],
    }.items():
        assert syntax.relation_scores(relations, heads, [chosen]).tolist() == row


def test_the_drawing_at_the_top_of_the_module():
    labels = ["det", "nsubj", "ROOT", "amod", "obj", "punct"]
    relations = [syntax.relation_name(label) for label in labels]
    scores = syntax.relation_scores(relations, [1, 2, 2, 4, 2, 2], syntax.RELATIONS)
    assert scores.tolist() == [0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ROOT", "root"),
        ("nsubj:pass", "nsubj"),
        ("nsubj:outer", "nsubj"),
        ("nsubjpass", "nsubj"),
        ("csubjpass", "csubj"),
        ("dobj", "obj"),
        ("dative", "iobj"),
        ("pobj", "pobj"),
        ("obj||xcomp", "obj"),
        ("", ""),
    ],
)
def test_relation_names(label, name):
    assert syntax.relation_name(label) == name


def test_the_words_of_a_post(nlp):
    text = "Cats  eat\nold fish 😀"
    words = stored(nlp, text)
    spelled = [text[a:b] for a, b in zip(words.starts, words.ends, strict=True)]
    assert spelled == ["Cats", "eat", "old", "fish", "😀"], "white space is no word"
    assert words.lower == ("cats", "eat", "old", "fish", "😀")
    assert words.upos == ("NOUN", "VERB", "ADJ", "NOUN", "X")
    assert words.relations == ("nsubj", "root", "amod", "obj", "dep")
    assert words.pos.tolist() == [1, 1, 1, 1, 0]
    assert words.dep.tolist() == [1, 1, 0, 1, 0]
    oracle = annotate(nlp, [text])[text]
    for name in ("starts", "ends", "pos", "dep"):
        assert getattr(words, name).tolist() == getattr(oracle, name).tolist()


def test_tags_and_relations_are_chosen(nlp):
    words = stored(nlp, "she eat fish", pos_tags=["PRON"], relations=["nsubjpass"])
    assert words.pos.tolist() == [1, 0, 0]
    assert words.dep.tolist() == [1, 1, 0]


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_texts_without_words(nlp, text):
    words = stored(nlp, text)
    assert words.starts.shape == words.pos.shape == words.dep.shape == (0,)
    assert words.lower == ()


# ---- many and long texts ------------------------------------------------------------------------


def test_a_long_text_is_cut_and_its_spans_are_those_of_the_whole(nlp):
    text = "cats eat old fish. " * 300
    words = stored(nlp, text)
    assert max(map(len, nlp.get_pipe("by_table").seen)) <= syntax.LONGEST_PIECE
    spelled = [text[a:b].lower() for a, b in zip(words.starts, words.ends, strict=True)]
    assert spelled == list(words.lower)
    assert spelled == ["cats", "eat", "old", "fish", "."] * 300
    assert words.upos == ("NOUN", "VERB", "ADJ", "NOUN", "X") * 300


@given(st.text(alphabet="ab. \n😀", max_size=60), st.integers(2, 20))
def test_pieces_are_the_text(text, longest):
    cut = syntax.pieces(text, longest)
    assert "".join(piece for _, piece in cut) == text
    for at, piece in cut:
        assert text[at : at + len(piece)] == piece
        assert len(piece) <= longest
        assert piece or not text


def test_stretches_without_white_space_are_cut_too():
    limit = syntax.LONGEST_CHUNK
    for text, lengths in (
        ("x" * limit, [limit]),
        ("x" * (limit + 1), [limit, 1]),
        ("x" * limit + " y", [limit + 2]),
        ("a " + "x" * (2 * limit) + " b", [limit + 2, limit + 2]),
        (("x" * limit + " ") * 3, [3 * limit + 3]),
    ):
        assert [len(piece) for _, piece in syntax.pieces(text)] == lengths
    assert 3 * limit < syntax.LONGEST_PIECE


def test_pieces_prefer_the_better_mark():
    assert syntax.pieces("aaaa b\nc. d e f", 12) == [(0, "aaaa b\n"), (7, "c. d e f")]
    assert syntax.pieces("aaaa bbc. d e f", 12) == [(0, "aaaa bbc. "), (10, "d e f")]
    assert syntax.pieces("a" * 25, 12) == [(0, "a" * 12), (12, "a" * 12), (24, "a")]


def test_half_an_emoji_is_replaced_in_place(nlp):
    text = syntax.well_formed("cats \ud83d eat 😀")
    assert text == "cats \ufffd eat 😀"
    words = stored(nlp, text)
    assert words.starts.tolist() == [0, 5, 7, 11]


# ---- pipelines ----------------------------------------------------------------------------------


def test_a_pipeline_that_is_not_installed_names_the_command():
    with pytest.raises(
        ConfigError,
        match=r"`python -m spacy download no_such_pipeline` .*`pip install no_such_pipeline`",
    ):
        syntax.load_pipeline("no_such_pipeline")


@pytest.mark.parametrize("name", ["models/gone", "en-core-web-sm", "./x"])
def test_a_folder_that_is_not_there_gets_no_command(name):
    with pytest.raises(ConfigError, match=r"there is no such folder; give the folder of a spaCy"):
        syntax.load_pipeline(name)


def test_an_installed_pipeline_that_lacks_a_library(tmp_path, monkeypatch):
    (tmp_path / "xx_needs_more").mkdir()
    (tmp_path / "xx_needs_more" / "__init__.py").write_text("import a_library_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("spacy.util.is_package", lambda name: name == "xx_needs_more")
    with pytest.raises(ConfigError, match=r"a_library_that_is_not_there.*needs a package beside"):
        syntax.load_pipeline("xx_needs_more")


# The same sentence as the two worlds annotate it. PTB and ClearNLP are what en_core_web_* speaks.
SAID = "Children were given the old books by Anna ."
UD = {
    "pos": "NOUN AUX VERB DET ADJ NOUN ADP PROPN PUNCT",
    "dep": "nsubj:pass aux:pass ROOT det amod obj case obl:agent punct",
    "heads": (2, 2, 2, 5, 5, 2, 7, 2, 2),
}
CLEARNLP = {
    "tag": "NNS VBD VBN DT JJ NNS IN NNP .",
    "dep": "nsubjpass auxpass ROOT det amod dobj agent pobj punct",
    "heads": (2, 2, 2, 5, 5, 2, 2, 6, 2),
}


def tiny(layers: dict, parts: list[str]) -> Language:
    """A real spaCy pipeline that has learnt one sentence by heart."""
    from spacy.training import Example
    from thinc.util import fix_random_seed

    fix_random_seed(0)
    nlp, words = spacy.blank("en"), [str(word) for word in SAID.split()]
    tok2vec = {
        "@architectures": "spacy.HashEmbedCNN.v2", "width": 16, "depth": 1, "embed_size": 50,
        "window_size": 1, "maxout_pieces": 2, "subword_features": True, "pretrained_vectors": None,
    }  # fmt: skip
    for part in parts:
        config = {}
        if part in ("tagger", "morphologizer"):
            config = {"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": tok2vec}}
        elif part == "parser":
            config = {
                "model": {
                    "@architectures": "spacy.TransitionBasedParser.v2", "state_type": "parser",
                    "extra_state_tokens": False, "hidden_width": 16, "maxout_pieces": 2,
                    "use_upper": True, "tok2vec": tok2vec,
                },
                "min_action_freq": 1,
            }  # fmt: skip
        nlp.add_pipe(part, config=config)
    gold = Doc(
        nlp.vocab,
        words=words,
        pos=layers["pos"].split() if "pos" in layers else None,
        tags=layers["tag"].split() if "tag" in layers else None,
        deps=layers["dep"].split(),
        heads=list(layers["heads"]),
    )
    example = Example(Doc(nlp.vocab, words=words), gold)
    optimizer = nlp.initialize(lambda: [example])
    optimizer.learn_rate = 0.02
    if "attribute_ruler" in parts:
        rules: Any = nlp.get_pipe("attribute_ruler")
        for tag in CLEARNLP["tag"].split():
            rules.add([[{"TAG": tag}]], {"POS": syntax.PENN[tag]})
        rules.add([[{"LOWER": "were"}]], {"POS": "AUX"})
    for _ in range(60):
        nlp.update([example], sgd=optimizer)
    return nlp


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        (UD, ["morphologizer", "parser"]),
        (CLEARNLP, ["tagger", "parser", "attribute_ruler"]),
        (CLEARNLP, ["tagger", "parser"]),
    ],
    ids=["UD", "PTB with attribute_ruler", "PTB alone"],
)
def test_either_world_of_labels_gives_the_same_scores(tmp_path, layers, parts):
    tiny(layers, parts).to_disk(tmp_path / "tiny")
    nlp = syntax.load_pipeline(str(tmp_path / "tiny"))
    syntax.check_relations(nlp, syntax.RELATIONS)
    syntax.check_relations(nlp, ["nsubj", "obj"])
    words = stored(nlp, SAID)
    assert words.lower == tuple(SAID.lower().split())
    assert words.pos.tolist() == [1, 0, 1, 0, 1, 1, 0, 1, 0]
    assert words.dep.tolist() == [1, 0, 1, 0, 0, 1, 0, 0, 0]
    assert words.upos[:6] == ("NOUN", "AUX", "VERB", "DET", "ADJ", "NOUN")
    assert [words.relations[n] for n in (0, 2, 5)] == ["nsubj", "root", "obj"]
    assert not any(":" in name or name.endswith("pass") for name in words.relations[::5])


def test_a_pipeline_by_its_installed_name(tmp_path, monkeypatch):
    """As `python -m spacy download` leaves it: a package whose name is that of the pipeline."""
    package = tmp_path / "xx_tiny"
    package.mkdir()
    tiny(CLEARNLP, ["tagger", "parser", "attribute_ruler"]).to_disk(package / "xx_tiny-1.0")
    (package / "meta.json").write_text((package / "xx_tiny-1.0" / "meta.json").read_text())
    (package / "__init__.py").write_text(
        "from pathlib import Path\nfrom spacy.util import load_model_from_path\n"
        "def load(**options):\n"
        "    return load_model_from_path(Path(__file__).parent / 'xx_tiny-1.0', **options)\n"
    )
    info = tmp_path / "xx_tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xx_tiny\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = stored(syntax.load_pipeline("xx_tiny"), SAID)
    assert words.dep.tolist() == [1, 0, 1, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("pos", "tag", "relation", "upos"),
    [
        ("ADV", "NN", "", "ADV"),  # the pipeline's own word counts
        ("VERB", "VBZ", "aux", "VERB"),
        ("", "VBZ", "cop", "AUX"),
        ("", "VBP", "auxpass", "AUX"),
        ("", "MD", "aux", "AUX"),
        ("", "PRP$", "poss", "PRON"),
        ("", "NNPS", "", "PROPN"),
        ("", "-LRB-", "punct", "PUNCT"),
        ("", "VVFIN", "", ""),  # a German tag
        ("", "", "", ""),
    ],
)
def test_parts_of_speech(pos, tag, relation, upos):
    assert syntax.part_of_speech(pos, tag, relation) == upos
    assert upos in ("", *syntax.UPOS)


def test_a_pipeline_from_a_folder(nlp, tmp_path):
    nlp.to_disk(tmp_path / "mine")
    loaded = syntax.load_pipeline(str(tmp_path / "mine"))
    assert syntax.pipeline_label(loaded) == "en_pipeline 0.0.0"
    assert stored(loaded, "the fish").upos == ("DET", "NOUN")


def test_a_pipeline_without_a_parser(tmp_path):
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ConfigError, match=r"no dependency parser .its parts: none."):
        syntax.load_pipeline(str(tmp_path / "blank"))


def test_a_pipeline_without_parts_of_speech(tmp_path, monkeypatch):
    monkeypatch.setitem(TABLE, "people", ("", "nsubj"))
    nlp = spacy.blank("en")
    nlp.add_pipe("relations_only")
    nlp.to_disk(tmp_path / "half")
    with pytest.raises(ConfigError, match=r"no universal parts of speech .its parts: relations"):
        syntax.load_pipeline(str(tmp_path / "half"))


@Language.component("relations_only")
def relations_only(doc: Doc) -> Doc:
    words, spaces = [t.text for t in doc], [bool(t.whitespace_) for t in doc]
    return Doc(doc.vocab, words=words, spaces=spaces, heads=[0] * len(doc), deps=["dep"] * len(doc))


def test_our_own_pipeline_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(syntax, "EMBEDDED", tmp_path / "gone")
    with pytest.raises(
        DataError, match=r"gone: our own pipeline cannot be loaded .*install opengrok-jax again"
    ):
        syntax.load_pipeline()


def test_our_own_pipeline_tells_subject_verb_and_object():
    nlp = syntax.load_pipeline()
    syntax.check_relations(nlp, syntax.RELATIONS)
    text = "my sister loves this phone"
    words = stored(nlp, text)
    assert words.upos == ("PRON", "NOUN", "VERB", "DET", "NOUN")
    assert words.relations == ("nmod", "nsubj", "root", "det", "obj")
    assert words.dep.tolist() == [0, 1, 1, 0, 1]
    assert words.pos.tolist() == [0, 1, 1, 0, 1]


def test_unknown_parts_of_speech_are_told_the_others():
    with pytest.raises(ConfigError, match=r"'NN'.*ADJ, ADV"):
        syntax.check_pos_tags(["NOUN", "NN"])
    syntax.check_pos_tags(syntax.POS_TAGS)


def test_relations_that_a_pipeline_never_gives(nlp):
    syntax.check_relations(nlp, syntax.RELATIONS)  # csubj and iobj are not known, but default
    syntax.check_relations(nlp, ["dobj"])
    syntax.check_relations(nlp, ["root"])
    syntax.check_relations(nlp, [])
    with pytest.raises(ConfigError, match=r"relations holds nsubjj, .*labels are amod, det, nsubj"):
        syntax.check_relations(nlp, ["nsubjj", "obj"])


def test_relations_of_another_scheme():
    nlp = spacy.blank("de")
    nlp.add_pipe("by_table", config={"labels": ["ROOT", "sb", "oa"]})
    with pytest.raises(ConfigError, match="relations holds csubj, iobj, nsubj, obj"):
        syntax.check_relations(nlp, syntax.RELATIONS)
    syntax.check_relations(nlp, ["root", "sb", "oa"])
