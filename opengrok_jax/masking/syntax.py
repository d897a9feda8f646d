"""Part of speech and dependency relation of every word, by a spaCy pipeline, as scores 0 or 1.

`pos` is 1 for the chosen parts of speech, `dep` is 1 for both ends of the chosen relations:

    word      the   cat   eats    old     fish     !
    UPOS      DET   NOUN  VERB    ADJ     NOUN   PUNCT
    relation  det  nsubj  ROOT   amod     obj    punct
    head        1      2     2      4        2       2
    pos         0      1     1      1        1       0
    dep         0      1     1      0        1       0

The relations are named as in Universal Dependencies; a pipeline that speaks ClearNLP
(en_core_web_*: dobj, dative, nsubjpass ...) is translated, subtypes (nsubj:pass) are cut off. A
pipeline that tags as the Penn Treebank does and gives no universal parts of speech has its tags
translated too.
Trailing hashtags, addresses and retweet marks are X or SYM with relations such as discourse, list
or parataxis: they score 0 on both, and only TF-IDF can speak for them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opengrok_jax.errors import ConfigError, DataError, needs_extra

if TYPE_CHECKING:
    import spacy.language

EMBEDDED = Path(__file__).parent.parent / "assets" / "en_sns"

OPEN_CLASSES = ("ADJ", "ADV", "INTJ", "NOUN", "PROPN", "VERB")
CLOSED_CLASSES = ("ADP", "AUX", "CCONJ", "DET", "NUM", "PART", "PRON", "SCONJ")
UPOS = (*OPEN_CLASSES, *CLOSED_CLASSES, "PUNCT", "SYM", "X")

POS_TAGS = ("NOUN", "PROPN", "VERB", "ADJ")
RELATIONS = ("root", "nsubj", "csubj", "obj", "iobj")
# Penn Treebank tags. IN is a preposition or a conjunction; a verb that serves another is told by
# its relation, see `part_of_speech`.
PENN = {
    tag: upos
    for upos, tags in {
        "ADJ": "JJ JJR JJS AFX",
        "ADV": "RB RBR RBS WRB",
        "ADP": "IN RP",
        "AUX": "MD",
        "CCONJ": "CC",
        "DET": "DT PDT WDT",
        "INTJ": "UH",
        "NOUN": "NN NNS",
        "NUM": "CD",
        "PART": "TO POS",
        "PRON": "PRP PRP$ WP WP$ EX",
        "PROPN": "NNP NNPS",
        "PUNCT": ". , : `` '' \" -LRB- -RRB- HYPH NFP",
        "SYM": "SYM $ #",
        "VERB": "VB VBD VBG VBN VBP VBZ",
        "X": "FW LS ADD GW XX",
    }.items()
    for tag in tags.split()
}
CLEARNLP = {"dobj": "obj", "dative": "iobj", "nsubjpass": "nsubj", "csubjpass": "csubj"}

# No text longer than this, in code points, is handed to spaCy whole.
LONGEST_PIECE = 2000
# Its tokenizer takes time in the square of a stretch without white space (1,000 times `.,`: 2 s),
# so no such stretch is longer than this either: 10,000 absurd characters cost 3 s at most.
LONGEST_CHUNK = 500
BATCH = 256
# Chunks of white space whose words a tokenizer remembers; spaCy's own number is 10,000.
REMEMBERED = 50_000

_SURROGATE = re.compile("[\ud800-\udfff]")
_CHUNK = re.compile(rf"\S{{{LONGEST_CHUNK}}}(?=\S)")


def load_pipeline(name: str = "") -> spacy.language.Language:
    """The spaCy pipeline of a name or folder; "" is the small one that ships with us.

    Raises:
      ConfigError: no such pipeline is installed, or it gives no parts of speech or no relations.
      DataError: the pipeline that ships with the package is missing or broken.
    """
    with needs_extra("mask"):
        import spacy
    try:
        nlp = spacy.load(name or EMBEDDED, exclude=["ner", "lemmatizer"])
    except (OSError, ValueError, ImportError) as error:
        cause = str(error).partition("\n")[0]
        if not name:
            raise DataError(
                f"{EMBEDDED}: our own pipeline cannot be loaded ({cause}); install opengrok-jax "
                "again"
            ) from None
        raise ConfigError(f"pipeline {name!r} cannot be loaded: {_remedy(name, cause)}") from None
    tokenizer: Any = nlp.tokenizer
    if hasattr(tokenizer, "max_cache_size"):  # spaCy's own, and not a publisher's
        tokenizer.max_cache_size = REMEMBERED
    probe = nlp("People like good cats .")
    has = {
        "dependency parser": probe.has_annotation("DEP"),
        "universal parts of speech": any(part_of_speech(t.pos_, t.tag_, t.dep_) for t in probe),
    }
    for what, there in has.items():
        if not there:
            raise ConfigError(
                f"pipeline {name!r} has no {what} (its parts: {', '.join(nlp.pipe_names) or 'none'}"
                "); choose one with both, such as en_core_web_sm, or '' for the one we ship"
            )
    return nlp


def _remedy(name: str, cause: str) -> str:
    """What is wrong with a pipeline and the command that mends it, in one line."""
    from importlib.util import find_spec

    ours = "or take '' for the one we ship"
    if Path(name).exists() or (name.isidentifier() and find_spec(name)):
        return f"{cause}; it was made for another spaCy or needs a package beside it, {ours}"
    if not name.isidentifier():  # `python -m spacy download` takes names alone
        return f"there is no such folder; give the folder of a spaCy pipeline, {ours}"
    return (
        f"it is not installed; install it with `python -m spacy download {name}` (one of spaCy's "
        f"own) or `pip install {name}` (another publisher's), give the folder of one, {ours}"
    )


def pipeline_label(nlp: spacy.language.Language) -> str:
    """Language, name and version of a pipeline, for the record: "en_core_web_sm 3.8.0"."""
    return f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}"


def check_pos_tags(tags: Iterable[str]) -> None:
    """Raises ConfigError for a tag that is no universal part of speech."""
    if unknown := [tag for tag in tags if tag not in UPOS]:
        raise ConfigError(
            f"pos_tags holds {', '.join(map(repr, unknown))}; the universal parts of speech are "
            f"{', '.join(UPOS)}"
        )


def check_relations(nlp: spacy.language.Language, relations: Iterable[str]) -> None:
    """Makes sure that a chosen relation can occur at all.

    The default ones need not all be known to a pipeline, but one beside the root has to.

    Raises:
      ConfigError: the pipeline's parser has no such relation.
    """
    chosen = {relation_name(name) for name in relations}
    known = {"root"}
    for name in nlp.pipe_names:
        known |= {relation_name(label) for label in nlp.pipe_labels.get(name, ())}
    missing = chosen - known
    if chosen - {"root"} and not chosen & known - {"root"}:
        lacking = missing
    else:
        lacking = missing - set(RELATIONS)
    if lacking:
        raise ConfigError(
            f"relations holds {', '.join(sorted(lacking))}, which {pipeline_label(nlp)} never "
            f"gives; its labels are {', '.join(sorted(known))}"
        )


def relation_name(label: str) -> str:
    """A relation as we compare it: small letters, no subtype, Universal Dependencies.

    >>> [relation_name(label) for label in ("ROOT", "nsubj:pass", "dobj", "obl")]
    ['root', 'nsubj', 'obj', 'obl']
    """
    plain = label.lower().split("||")[0].split(":")[0]  # "obj||xcomp" is a parser's own note
    return CLEARNLP.get(plain, plain)


def part_of_speech(pos: str, tag: str, relation: str) -> str:
    """The universal part of speech: the pipeline's own, else from its Penn tag, else "".

    >>> [part_of_speech(*row) for row in (("NOUN", "NN", ""), ("", "VBZ", "aux"), ("", "VBZ", ""))]
    ['NOUN', 'AUX', 'VERB']
    """
    upos = pos or PENN.get(tag, "")
    serves = relation.startswith("aux") or relation == "cop"
    return "AUX" if not pos and upos == "VERB" and serves else upos


def relation_scores(
    relations: Sequence[str], heads: Sequence[int], chosen: Iterable[str]
) -> np.ndarray:
    """1 for both ends of a chosen relation, else 0; the head of a root is the root itself.

        word      she  gave   him    two    books  yesterday
        relation nsubj root  iobj nummod      obj        obl
        head         1    1     1      4        1          1
        root         0    1     0      0        0          0
        obj          0    1     0      0        1          0
        nummod       0    0     0      1        1          0

    Args:
      relations: W names as `relation_name` gives them.
      heads: W indices of each word's head.
      chosen: the relations that count.

    Returns:
      float32 [W].
    """
    chosen = set(chosen)
    scores = np.zeros(len(relations), np.float32)
    for word, (relation, head) in enumerate(zip(relations, heads, strict=True)):
        if relation in chosen:
            scores[[word, head]] = 1.0
    return scores


def well_formed(text: str) -> str:
    """The text with each lone surrogate replaced by U+FFFD; no other code point moves.

    JSON can carry half an emoji; neither spaCy nor the tokenizer takes such a string.
    """
    return _SURROGATE.sub("\ufffd", text)


def pieces(text: str, longest: int = LONGEST_PIECE) -> list[tuple[int, str]]:
    """Cuts a text into pieces of at most `longest` code points, with the offset of each.

    The cut falls behind a line break, else a full stop, else a space, as late as possible in the
    second half of the piece; where there is none, right at the limit. Stretches without white space
    are cut after `LONGEST_CHUNK` code points as well.

    >>> pieces("aa bb cc dd", 6)
    [(0, 'aa bb '), (6, 'cc dd')]
    """
    result, start = [], 0
    while len(text) - start > longest:
        end = start + longest
        for mark in ("\n", ". ", " "):
            at = text.rfind(mark, start + longest // 2, end)
            if at >= 0:
                end = at + len(mark)
                break
        result += _chunks(start, text[start:end])
        start = end
    return [*result, *_chunks(start, text[start:])]


def _chunks(offset: int, text: str) -> list[tuple[int, str]]:
    ends = [match.end() for match in _CHUNK.finditer(text)]
    return [(offset + a, text[a:b]) for a, b in itertools.pairwise([0, *ends, len(text)])]
