"""The views as one self-contained page: no script, no outside asset, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.pages import inert, pieces, render
from opengrok_jax.tokenizer import ChatTokenizer
from opengrok_jax.tools.inspection.row import Position, Row
from opengrok_jax.tools.inspection.stats import Stats, sentences
from opengrok_jax.tools.inspection.terminal import formula
from opengrok_jax.tools.inspection.tokens import FACTORS, Explained, Token

TITLES = {
    "tfidf": "By TF-IDF",
    "pos": "By part of speech",
    "dep": "By dependency",
    "random": "By chance",
    "keep_prob": "By the probability itself",
}


def tokens_page(shown: Explained, chat: ChatTokenizer) -> str:
    """The page of an example."""
    cut = pieces(chat, [token.id for token in shown.tokens])
    spans = [
        (inert(p.text, lines=True), shown.tokens[p.first], _fate(shown.tokens[p.first : p.stop]))
        for p in cut
    ]
    names = {"alpha": "TF-IDF", "beta": "POS", "gamma": "depend.", "delta": "chance"}
    return _render(
        "tokens",
        title=f"Example {shown.number}",
        shown=shown,
        spans=spans,
        formula=formula(shown.settings),
        names=[(names[weight], factor) for weight, factor in FACTORS.items()],
    )


def row_page(row: Row, chat: ChatTokenizer) -> str:
    """The page of a training row."""
    documents = []
    for doc in row.documents:
        mine = row.positions[doc.start : doc.stop]
        cut = pieces(chat, [position.token for position in mine])
        spans = [
            (inert(p.text, lines=True), mine[p.first], _fate(mine[p.first : p.stop])) for p in cut
        ]
        documents.append((doc, spans, mine))
    return _render("row", title=f"Training row {row.number}", row=row, documents=documents)


def stats_page(stats: Stats, made_with: dict[str, Any]) -> str:
    """The page of the statistics."""
    from opengrok_jax.tools.inspection import charts

    said = sentences(stats)
    pictures = [
        (TITLES[curve.name], charts.keep_rate(curve, said[curve.name]), said[curve.name])
        for curve in stats.curves
        if curve.tokens
    ]
    return _render(
        "stats",
        title="What the mask keeps",
        stats=stats,
        pictures=pictures,
        lengths=(charts.lengths(stats, said["length"]), said["length"]),
        formula=formula(made_with),
        scope=made_with["scope"],
    )


def write(path: Path, page: str) -> None:
    """Puts the page at `path`, whole or not at all."""
    storage.write_text(path, page)


def _fate(tokens: Sequence[Token] | Sequence[Position]) -> str:
    """The class of a character whose bytes are these tokens."""
    visible = sum(token.visible for token in tokens)
    return "" if visible == len(tokens) else "part" if visible else "gone"


def _render(view: str, **values: Any) -> str:
    return render(Path(__file__).parent / f"{view}.html.j2", **values)
