import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.evaluation.spans import Span, spans_of, tag_names


def test_the_drawing_of_spans() -> None:
    """
    tags    O I-per I-per B-per I-loc O B-loc I-loc
    spans      per........ per   loc     loc........
    """
    tags = ["O", "I-per", "I-per", "B-per", "I-loc", "O", "B-loc", "I-loc"]
    assert spans_of(tags) == (
        Span(1, 3, "per"), Span(3, 4, "per"), Span(4, 5, "loc"), Span(6, 8, "loc"),
    )  # fmt: skip


tag_lists = st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b-c"]), max_size=12)


@given(tag_lists)
def test_spans_are_those_of_seqeval(tags: list[str]) -> None:
    entities = pytest.importorskip("seqeval.metrics.sequence_labeling")
    theirs = entities.get_entities(tags)
    assert [(s.kind, s.start, s.stop - 1) for s in spans_of(tags)] == theirs


@given(tag_lists)
def test_spans_are_those_of_conlleval(tags: list[str]) -> None:
    """Its rule, written the other way: where does a chunk start, and where does it end?"""
    open_, found = None, []
    for at, (before, tag) in enumerate(zip(["O", *tags], [*tags, "O"], strict=True)):
        ends = before != "O" and (tag == "O" or tag[0] == "B" or before[2:] != tag[2:])
        if ends and open_ is not None:
            found.append(Span(open_, at, before[2:]))
            open_ = None
        if tag != "O" and open_ is None:
            open_ = at
    assert spans_of(tags) == tuple(found)


def test_the_drawing_of_names() -> None:
    """
    tokens    Ada  met  Ada  Lovelace  's  cat        (person, Ada) (person, Ada Lovelace)
    tags       B    O    B      I       O    O
    """
    tokens = ["Ada", "met", "Ada", "Lovelace", "'s", "cat"]
    tags, missing = tag_names(tokens, [("per", "Ada"), ("per", "Ada Lovelace")])
    assert tags == ("B-per", "O", "B-per", "I-per", "O", "O")
    assert missing == ()


def test_names_across_tokens_and_names_that_are_not_there() -> None:
    tokens = ["@", "BBC", "News", "in", "N.Y", ".", "bbc"]
    names = [
        ("org", "@BBC News"),
        ("loc", "N.Y."),
        ("per", "Ada"),
        ("", "who knows"),
        ("org", "BB"),
    ]
    tags, missing = tag_names(tokens, names)
    assert tags == ("B-org", "I-org", "I-org", "O", "B-loc", "I-loc", "O")
    assert missing == (("", "who knows"), ("per", "Ada"), ("org", "BB"))


def test_what_is_tagged_stays() -> None:
    assert tag_names(["New", "York"], [("loc", "York"), ("org", "New York")])[0] == (
        "B-org",
        "I-org",
    )
    assert tag_names([], [("per", "x")]) == ((), (("per", "x"),))


@given(tag_lists)
def test_the_names_of_distinct_tokens_give_their_tags_back(tags: list[str]) -> None:
    tokens = [f"w{chr(97 + at)}" for at in range(len(tags))]
    spans = spans_of(tags)
    names = [(s.kind, " ".join(tokens[s.start : s.stop])) for s in spans]
    again, missing = tag_names(tokens, names)
    assert spans_of(again) == spans
    assert missing == ()
