"""The texts that travel with the annotator: licence, attribution, and the card with its figures."""

from __future__ import annotations

from collections.abc import Mapping

LICENCE_URL = "https://creativecommons.org/licenses/by-sa/4.0/"
TREEBANK_URL = "https://github.com/UniversalDependencies/UD_English-EWT"

LICENSE = f"""\
SPDX-License-Identifier: CC-BY-SA-4.0

The files of this folder are licensed under the Creative Commons Attribution-ShareAlike 4.0
International Public License (CC BY-SA 4.0). The licence text is at

    summary      {LICENCE_URL}
    legal code   {LICENCE_URL}legalcode

You may share and adapt them, also commercially, if you give appropriate credit (see NOTICE), link
to the licence, say what you changed, and pass on adapted material under the same licence. They
come as they are, without warranties of any kind.

This licence covers this folder alone. The code of OpenGrok-JAX has its own licence.
"""

NOTICE = f"""\
en_sns: a small spaCy pipeline for English posts, made by the OpenGrok-JAX authors.

It is trained on, and adapted from, one work:

    Universal Dependencies English Web Treebank (UD_English-EWT)
    release 2.16 for the pipeline that ships with OpenGrok-JAX; meta.json holds the files' hashes
    {TREEBANK_URL}
    Annotations (c) 2013-2021 by The Board of Trustees of The Leland Stanford Junior University.
    Licensed under CC BY-SA 4.0, {LICENCE_URL}

Annotation of the treebank, as its own project names the people: Natalia Silveira, Timothy Dozat,
Sebastian Schuster, Miriam Connor, Marie-Catherine de Marneffe, Nathan Schneider, Ethan Chi,
Samuel Bowman, Christopher Manning, Hanzhi Zhu, Daniel Galbraith and John Bauer.

To be cited as: Natalia Silveira, Timothy Dozat, Marie-Catherine de Marneffe, Samuel Bowman, Miriam
Connor, John Bauer and Christopher D. Manning. 2014. A Gold Standard Dependency Corpus for English.
Proceedings of the Ninth International Conference on Language Resources and Evaluation (LREC 2014).

The treebank's underlying texts come from the LDC English Web Treebank (LDC2012T13); by the
treebank's own notice some are in the public domain, and portions may be (c) 2012 Google Inc.,
(c) 2011 Yahoo! Inc., (c) 2012 Trustees of the University of Pennsylvania or (c) other original
authors. This folder holds statistical weights and word lists, none of those texts.

What was changed: sentences were grouped into texts the size of a post; copies were roughened by
program (spelling, case, stops, made-up handles, links, tags and emoji); subtypes of relations were
cut off; lemmas, features and enhanced dependencies were left out; and a tagger and a parser were
trained on the outcome. Neither the treebank's authors nor Stanford University endorse the result.
"""


# (system, tested on, tokens F1, UPOS, UAS, LAS; None = not told), each from the place named.
PUBLISHED: tuple[tuple[str, str, float | None, float | None, float | None, float | None], ...] = (
    ("spaCy trained on Tweebank [1]", "Tweebank v2 test", 98.57, 86.72, 66.93, 58.79),
    ("spaCy trained on Tweebank + EWT [1]", "Tweebank v2 test", 95.57, 88.84, 72.06, 63.84),
    ("Twitter-Stanza, Tweebank + EWT, GloVe [1]", "Tweebank v2 test", 98.59, 93.53, 82.13, 77.82),
    ("twpipe, ensemble of 20 [2]", "Tweebank v2 test", 98.3, 93.3, 83.4, 79.4),
    ("BERTweet, Tweebank + EWT [3]", "Tweebank v2 test", None, 95.38, None, None),
    ("en_core_web_sm 3.7 [4]", "OntoNotes (PTB tags)", None, 97.2, 91.8, 89.9),
)
PUBLISHED_FROM = """\
[1] README of TweebankNLP (Jiang et al., LREC 2022). [2] Liu et al., NAACL 2018, as listed by an
index of results. [3] Model card of TweebankNLP's BERTweet tagger. [4] spaCy's model card; other
texts, tags and relations."""


def published() -> str:
    """`PUBLISHED` as a Markdown table with its sources below."""
    rows = ["| system | tested on | tokens | upos | uas | las |", "| --- | --- |" + " ---: |" * 4]
    for system, tested, *figures in PUBLISHED:
        cells = ("" if figure is None else f"{figure:g}" for figure in figures)
        rows.append(f"| {system} | {tested} | " + " | ".join(cells) + " |")
    return "\n".join([*rows, "", PUBLISHED_FROM])


def sources(sha256: Mapping[str, str]) -> list[dict[str, object]]:
    """The `sources` entry of the pipeline's meta.json; `sha256` gives each file's hash by name."""
    return [
        {
            "name": "UD_English-EWT",
            "url": TREEBANK_URL,
            "license": "CC BY-SA 4.0",
            "author": "Universal Dependencies English Web Treebank; Silveira et al. 2014",
            "sha256": dict(sha256),
        }
    ]


def card(scores: str, *, rough_copies: int, megabytes: float) -> str:
    """The model card.

    Args:
        scores: a Markdown table, as `score_annotator.table` makes it.
        rough_copies: number of roughened copies of the treebank in the training text.
        megabytes: size of the pipeline's files on disk, in 10^6 bytes.
    """
    return f"""\
# en_sns

A small spaCy pipeline for English social-media posts: a tokenizer that keeps @mentions, #hashtags,
$cashtags, links, emoticons, emoji sequences and runs of punctuation whole; universal parts of
speech; universal dependencies without subtypes. {megabytes:.1f} MB, no word vectors, one CPU core.
It loads with plain spaCy 3.8: `spacy.load("opengrok_jax/assets/en_sns")`.

## Measured

From raw text, as the CoNLL 2018 shared task scores, in percent: `tokens`, `upos`, `uas` and `las`
are F1 over words matched by their characters. `pos_score` and `dep_score` are the shares of words
that get the importance score their gold tree gives them (content word; end of a subject, object or
root relation). One training run, one seed.

{scores}

The figures come from `python -m opengrok_jax.masking.score_annotator PIPELINE TREEBANK... --card`,
whose first argument is this folder. None of these texts was trained on or used to pick a training
step; token scores, but for those of Tweebank's test part, were looked at while the tokenizer's
rules were written. Tweebank v2 is licensed for non-commercial use and served for scoring alone.

What others report. None of it is strictly comparable: all but the last were trained on Tweebank's
own training part (non-commercial, so never used here), some with word vectors or a pretrained model
of hundreds of megabytes, and tested on its test part.

{published()}

## Made from

UD_English-EWT's training part and roughened copies of it ({rough_copies}), made by program to look
like posts; the development part, clean and roughened, picked the training step. No other text was
used for training: tweets tagged under a free licence exist (ark-tweet-nlp, CC BY 3.0), but Tweebank
was drawn from them in part, and to train on them would be to train on its test.
The roughened copies hold the placeholders of anonymised corpora (`@user`, `@USER12`, `http`,
`URL12`, `HTTPURL`) beside made-up handles and links. `scripts/train_annotator.py` redoes it.
Licence: CC BY-SA 4.0, see LICENSE and NOTICE.

## Know before use

- English only, and trained on edited web text of 2012 and before: names, slang and memes after that
  are guesses from the shape of the word.
- Trailing hashtags and links come out as X with the relation `discourse` or `list`, an `RT` and its
  handle as X with `discourse`: content-word and relation scores are 0 for them.
- Relations in posts are far less certain than parts of speech: compare `las` with `upos`.
- A chunk without blanks costs time in the square of its length: cut posts beyond 2,000 characters.
- A lone surrogate in a text makes spaCy raise UnicodeEncodeError: replace it first.
"""
