"""Scores an annotator against treebanks, from raw text, as the CoNLL 2018 shared task did.

Words are matched by their characters, blanks left out, so that a pipeline with another idea of
words is scored fairly:

    text        dont go
    gold        do    nt    go       characters [0,2) [2,4) [4,6)
    predicted   dont        go       characters [0,4)       [4,6)

One of two predicted words is a gold word: precision 1/2, recall 1/3, F1 = 2*1 / (2+3) = 40 %.
A UPOS, UAS or LAS hit is a matched word whose tag, head, or head and relation are right too.

Beside these stands what the mask is made from: for each gold word the agreement of the two scores
of `masking.syntax` (1 for content words; 1 for the ends of subject, object and root relations).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opengrok_jax import progress, storage
from opengrok_jax.errors import ConfigError, in_one_line
from opengrok_jax.masking import annotator_notice
from opengrok_jax.masking.syntax import (
    POS_TAGS,
    RELATIONS,
    load_pipeline,
    part_of_speech,
    relation_name,
    relation_scores,
)
from opengrok_jax.masking.treebank import Sentence, read_conllu

if TYPE_CHECKING:
    import spacy.language
    import spacy.tokens

COLUMNS = ("words", "tokens", "upos", "uas", "las", "pos_score", "dep_score")


def run(
    *, pipeline: str | Path, treebanks: Sequence[Path], card: bool = False
) -> dict[str, dict[str, float]]:
    """Prints two tables (standard error) and the first as JSON (standard output); returns that.

    The second table is what others report, see `annotator_notice.PUBLISHED`.

    Args:
        pipeline: folder of a spaCy pipeline, or the name of an installed one.
        treebanks: CoNLL-U files, `.gz` or not.
        card: also write the folder's CARD.md anew; the pipeline must be one that
            `train_annotator` made.

    Returns:
        For each file name the figures of `score`.

    Raises:
        ConfigError: there is no such pipeline, it has no tagger or parser, or no card is to be had
            for it.
        DataError: a treebank is missing or malformed.
        MissingExtra: spaCy is not installed.
    """
    nlp = load_pipeline(str(pipeline))
    if card and "training" not in nlp.meta:
        raise ConfigError(
            f"{pipeline} does not say how it was trained, so no card can be written; "
            "scripts/train_annotator.py makes pipelines that do"
        )
    scores = {path.name: score(nlp, read_conllu(path)) for path in treebanks}
    progress.say(f"{table(scores)}\n\npublished:\n\n{annotator_notice.published()}")
    if card:
        write_card(Path(pipeline), scores)
    print(json.dumps(scores))
    return scores


def write_card(folder: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Writes CARD.md of a pipeline that `train_annotator` made, with these figures in it."""
    training = storage.read_json(folder / "meta.json")["training"]
    text = annotator_notice.card(
        table(scores), rough_copies=training["rough_copies"], megabytes=megabytes(folder)
    )
    storage.write_text(folder / "CARD.md", text)


def megabytes(folder: Path) -> float:
    """What the files of a folder hold together, in 10^6 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def score(nlp: spacy.language.Language, sentences: Sequence[Sentence]) -> dict[str, float]:
    """Annotates the raw text of each sentence and compares.

    Returns:
        `words`: number of gold words. `tokens`, `upos`, `uas`, `las`: F1 in percent. `pos_score`,
        `dep_score`: percent of gold words that get the score (0 or 1) the gold tree gives them,
        where a gold word takes the maximum over the predicted words it overlaps.
    """
    hits, predicted_words, gold_words = dict.fromkeys(COLUMNS[1:], 0), 0, 0
    texts = [sentence.text for sentence in sentences]
    for sentence, doc in zip(sentences, nlp.pipe(texts), strict=True):
        predicted = _from_doc(doc)
        ours, gold = list(_spans(predicted.words)), list(_spans(sentence.words))
        gold_words, predicted_words = gold_words + len(gold), predicted_words + len(ours)
        index = {span: i for i, span in enumerate(ours)}
        for i, span in enumerate(gold):
            j = index.get(span)
            if j is None:
                continue
            head, our_head = sentence.heads[i], predicted.heads[j]
            # A root is its own head, so that two roots agree wherever their words do.
            same_head = gold[head] == ours[our_head]
            hits["tokens"] += 1
            hits["upos"] += predicted.upos[j] == sentence.upos[i]
            hits["uas"] += same_head
            hits["las"] += same_head and predicted.deps[j] == relation_name(sentence.deps[i])
        for name, wanted, got in zip(
            ("pos_score", "dep_score"), importance(sentence), importance(predicted), strict=True
        ):
            painted = [value for value, (a, b) in zip(got, ours, strict=True) for _ in range(a, b)]
            agree = (any(painted[a:b]) == w for w, (a, b) in zip(wanted, gold, strict=True))
            hits[name] += sum(agree)
    figures = {"words": float(gold_words)}
    for name in ("tokens", "upos", "uas", "las"):
        figures[name] = round(200 * hits[name] / (gold_words + predicted_words), 2)
    for name in ("pos_score", "dep_score"):
        figures[name] = round(100 * hits[name] / gold_words, 2)
    return figures


def importance(sentence: Sentence) -> tuple[list[bool], list[bool]]:
    """The two scores of `masking.syntax` that a sentence's own tags and trees give its words.

    >>> importance(Sentence(
    ...     words=("She", "often", "reads", "books"), spaces=(True,) * 4,
    ...     upos=("PRON", "ADV", "VERB", "NOUN"), heads=(2, 2, 2, 2),
    ...     deps=("nsubj", "advmod", "ROOT", "obj"),
    ... ))
    ([False, False, True, True], [True, False, True, True])
    """
    relations = [relation_name(dep) for dep in sentence.deps]
    dep = relation_scores(relations, sentence.heads, RELATIONS)
    return [tag in POS_TAGS for tag in sentence.upos], [bool(value) for value in dep]


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The scores as a Markdown table, one row for each treebank."""
    lines = [
        "| treebank | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for name, figures in scores.items():
        cells = [f"{figures['words']:,.0f}", *(f"{figures[key]:.2f}" for key in COLUMNS[1:])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spans(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Character spans of words in the text without blanks."""
    end = 0
    for word in words:
        start, end = end, end + len("".join(word.split()))
        yield start, end


def _from_doc(doc: spacy.tokens.Doc) -> Sentence:
    """The words of a Doc without spaCy's space tokens; what hung on one hangs on its head."""
    kept = [token for token in doc if not token.is_space]
    place = {token.i: i for i, token in enumerate(kept)}
    heads = []
    for i, token in enumerate(kept):
        head = token.head
        while head.is_space and head.head.i != head.i:
            head = head.head
        heads.append(place.get(head.i, i))
    deps = [relation_name(token.dep_) for token in kept]
    return Sentence(
        words=tuple(token.text for token in kept),
        spaces=tuple(bool(token.whitespace_) for token in kept),
        upos=tuple(part_of_speech(t.pos_, t.tag_, t.dep_) for t in kept),
        heads=tuple(heads),
        deps=tuple("root" if heads[i] == i else dep for i, dep in enumerate(deps)),
    )


def main() -> None:
    """`python -m opengrok_jax.masking.score_annotator PIPELINE TREEBANK... [--card]`."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("pipeline")
    parser.add_argument("treebanks", type=Path, nargs="+")
    parser.add_argument("--card", action="store_true", help="write PIPELINE/CARD.md anew")
    flags = vars(parser.parse_args())
    with in_one_line():
        run(**flags)


if __name__ == "__main__":
    main()
