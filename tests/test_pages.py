"""What all pages share: values escaped, and tokens as text."""

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax import pages, tokenizer


@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_pieces_are_the_text_and_cover_all_tokens(text):
    chat = tokenizer.load()
    ids = chat.encode(text)
    cut = pages.pieces(chat, ids)
    assert "".join(piece.text for piece in cut)[bool(ids) :] == text.replace("▁", " ")
    assert [n for piece in cut for n in range(piece.first, piece.stop)] == list(range(len(ids)))


def test_values_are_escaped_and_a_missing_one_is_an_error(tmp_path):
    template = tmp_path / "one.html.j2"
    template.write_text(
        '{% extends "page.html.j2" %}{% block body %}<p>{{ said }}</p>{{ inert(said) }}{% endblock %}'
    )
    page = pages.render(template, title="<t>", said="<script>a\u202e</script>")
    assert "<script>" not in page
    assert "<title>&lt;t&gt;</title>" in page
    assert "a\\u202e&lt;/script&gt;" in page
    with pytest.raises(jinja2.UndefinedError):  # never an empty place
        pages.render(template, title="t")
