"""What `inspect` shows, as values and as drawn."""

import dataclasses
import io
import math
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup
from rich.console import Console

from opengrok_jax import chance, pages, tokenizer
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.tools.inspection import page, reading, row, stats, terminal, tokens
from tests.tools.masked import ANSWERS, MADE_WITH, POSTS, example, folder

TRAINING = {
    "row_tokens": 160, "normalize": "token", "rule": "exclude", "rows_per_batch": 2, "epochs": 2.0,
    "max_steps": 0, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def chat():
    return tokenizer.load()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("run"), 11)


def drawn(show, *arguments, tty: bool = False, width: int = 200) -> str:
    text = io.StringIO()
    colors = "256" if tty else None
    out = Console(file=text, force_terminal=tty, width=width, highlight=False, color_system=colors)
    show(out, *arguments)
    return text.getvalue()


# ---- reading ------------------------------------------------------------------------------------


def test_examples_by_number_and_by_id(path):
    assert reading.count(path) == 11
    found = reading.at(path, [9, 0, 4])
    for one, number in zip(found, (9, 0, 4), strict=True):
        wanted = example(number)
        for field in dataclasses.fields(wanted):
            assert np.array_equal(getattr(one, field.name), getattr(wanted, field.name))
    assert reading.number_of(path, example(7).id) == 7
    assert reading.number_of(path, "000a") == 10
    sizes, splits = reading.lengths(path)
    assert sizes.tolist() == [len(example(n).tokens) for n in range(11)]
    assert splits == [example(n).split for n in range(11)]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda path: reading.at(path, [11]), r"no example 11; .* has 0 to 10"),
        (lambda path: reading.at(path, [-1]), "no example -1"),
        (lambda path: reading.number_of(path, "0000ff"), "no example with the id '0000ff'; --number 0"),
        (lambda path: reading.number_of(path, "000"), "11 examples have ids that begin with '000'"),
        (lambda path: reading.at(path / "gone", [0]), "no such file"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(path, ask, message):
    with pytest.raises(DataError, match=message):
        ask(path)


def test_only_the_parts_that_are_shown_are_read(tmp_path, chat):
    """The other parts are rubbish of the right size, and nobody notices."""
    path = folder(tmp_path, 12)
    wanted = example(5)
    for number in (0, 2):
        part = path / f"part-{number:05d}.parquet"
        part.write_bytes(b"\0" * part.stat().st_size)
    assert np.array_equal(reading.at(path, [5])[0].tokens, wanted.tokens)
    with pytest.raises(DataError, match="part-00000"):
        reading.at(path, [0])


# ---- an example ---------------------------------------------------------------------------------


def test_terms_draw_and_reasons_follow_the_formula(path, chat):
    for number in range(5):
        one = reading.at(path, [number])[0]
        shown = tokens.explain(one, number, reading.provenance(path), chat)
        assert (shown.number, shown.id, shown.differing) == (number, one.id, 0)
        kept = []
        for t, token in enumerate(shown.tokens):
            assert token.terms == pytest.approx(
                {
                    "tfidf": 2 * one.tfidf[t], "pos": one.pos[t], "dep": 0.5 * one.dep[t],
                    "random": one.random[t],
                }
            )  # fmt: skip
            assert token.total == pytest.approx(sum(token.terms.values()) - 0.75)
            assert token.visible == one.key_mask[t]
            if not token.free:
                assert token.visible
                assert token.keep_prob == 1
                assert token.why.startswith("always kept: ")
                continue
            kept.append(token.visible)
            assert token.keep_prob == pytest.approx(1 / (1 + math.exp(-token.total)), abs=1e-6)
            sign = "<" if token.u < token.keep_prob else ">="
            assert token.visible == (sign == "<")
            said = f"{'kept' if token.visible else 'hidden'}: u {token.u:.3f} {sign} "
            assert token.why == f"{said}{token.keep_prob:.3f}"
        assert shown.visible_share == pytest.approx(np.mean(kept))
        assert shown.tokens[0].why.endswith("every query has a key")
        assert shown.tokens[-1].why.endswith("must learn to say")
        assert {t.why for t in shown.tokens[1:-1] if t.special} == {"always kept: a control token"}


@pytest.mark.parametrize("scope", ["prompt", "prompt+response"])
def test_what_the_build_wrote_follows_from_it(tmp_path, chat, scope):
    """The formula and the draw, computed again from the stored factors, for every token."""
    pytest.importorskip("spacy")
    from opengrok_jax import storage
    from opengrok_jax.masking import build
    from opengrok_jax.records import Cell, Example, Message

    examples = [
        Example(
            id=f"{n:016x}", messages=(Message(role="user", content=post),), response=answer,
            split="train", cell=Cell(intent="x"), source="recorded", model_served="m", rights="r",
        )
        for n, (post, answer) in enumerate(zip(POSTS, ANSWERS, strict=True))
    ]  # fmt: skip
    storage.write_jsonl(tmp_path / "examples.jsonl", examples)
    build.run(examples_file=tmp_path / "examples.jsonl", out=tmp_path, scope=scope, seed=5)
    path = tmp_path / "masked.parquet"
    made_with = reading.provenance(path)
    assert reading.tokenizer(path).vocab_size == chat.vocab_size
    for number, one in enumerate(reading.at(path, range(len(examples)))):
        shown = tokens.explain(one, number, made_with, chat)
        assert shown.differing == 0
        assert shown.settings["bias"] == made_with["bias"] != 0
        said = "".join(piece.text for piece in pages.pieces(chat, one.tokens.tolist()))
        assert POSTS[number] in said
    found = stats.count(path, made_with, 0)
    assert found.curves[-1].name == "keep_prob"
    drawn_share = np.average(found.curves[-1].keep_prob, weights=found.curves[-1].tokens)
    assert drawn_share == pytest.approx(0.85, abs=1e-4)


def test_outside_the_scope(chat):
    made_with = MADE_WITH | {"scope": "prompt"}
    shown = tokens.explain(example(0, made_with), 0, made_with, chat)
    reasons = {t.why for t in shown.tokens if t.role == "response" and not t.special}
    assert reasons == {"always kept: outside the scope 'prompt'"}
    assert shown.differing == 0


@pytest.mark.parametrize("field", ["keep_prob", "key_mask", "tfidf"])
def test_a_changed_number_is_noticed(chat, field):
    one = example(0)
    values = getattr(one, field).copy()
    values[3] = ~values[3] if field == "key_mask" else values[3] / 2 + 0.1
    shown = tokens.explain(dataclasses.replace(one, **{field: values}), 0, MADE_WITH, chat)
    assert shown.differing == 1
    assert "which the formula and the draw do not give" in shown.tokens[3].why


# ---- a row --------------------------------------------------------------------------------------


def test_a_row_is_what_training_makes(path, chat):
    from opengrok_jax.masked_file import read_masked
    from opengrok_jax.training import packing
    from opengrok_jax.training.batches import packed

    rows, _ = read_masked(path)
    of_train = [one for one in rows if one.split == "train"]
    made = packed(
        of_train,
        lambda n: packing.data_order(n, rows_per_batch=2, epochs=2.0, max_steps=0, seed=0),
        row_tokens=160,
        normalize="token",
    )
    for number in range(len(made.rows)):
        shown = row.packed_row(path, number, TRAINING, chat)
        assert [doc.id for doc in shown.documents] == [of_train[n].id for n in made.rows[number]]
        for step in shown.steps:
            assert number in made.order[step - 1]
        step, place = np.argwhere(made.order == number)[0]
        assert shown.steps[0] == step + 1
        batch = made.batch(int(step))
        for name, field in (
            ("segment_ids", "segment"), ("positions", "position"), ("tokens", "token"),
            ("key_mask", "visible"), ("targets", "target"), ("loss_weight", "loss_weight"),
            ("norm_weight", "norm_weight"),
        ):  # fmt: skip
            wanted = getattr(batch, name)[place].tolist()
            assert [getattr(position, field) for position in shown.positions] == wanted, name
        assert sum(doc.bearing for doc in shown.documents) == batch.loss_weight[place].sum()
        roles = np.concatenate([of_train[n].roles for n in made.rows[number]])
        said = [tokenizer.ROLES[role] for role in roles]
        assert [position.role for position in shown.positions[: len(roles)]] == said
        assert {position.role for position in shown.positions[len(roles) :]} <= {"padding"}


def test_the_mask_of_another_epoch(path, chat):
    redrawn = TRAINING | {"draw": "per_epoch"}
    first, second = (row.packed_row(path, 0, redrawn, chat, epoch) for epoch in (0, 1))
    assert first == row.packed_row(path, 0, TRAINING, chat)
    assert [p.visible for p in first.positions] != [p.visible for p in second.positions]
    for doc in second.documents:
        one = reading.at(path, [doc.number])[0]
        count = len(one.tokens)
        key = np.repeat(chance.keys(3, [one.id], "draw"), count, axis=0)
        u = chance.uniform(key, np.arange(count, dtype=np.uint32), np.ones(count, np.uint32))
        wanted = (u < one.keep_prob).tolist()
        assert [p.visible for p in second.positions[doc.start : doc.stop]] == wanted
    with pytest.raises(ConfigError, match="the mask is the same in every epoch"):
        row.packed_row(path, 0, TRAINING, chat, 1)


def test_rows_that_are_not_there(path, chat):
    with pytest.raises(DataError, match=r"no row 99; the training split fills 0 to \d"):
        row.packed_row(path, 99, TRAINING, chat)
    with pytest.raises(DataError, match=r"a row holds 16; raise training.row_tokens"):
        row.packed_row(path, 0, TRAINING | {"row_tokens": 16}, chat)


# ---- statistics ---------------------------------------------------------------------------------


def test_counts_against_counting_by_hand(path):
    found = stats.count(path, MADE_WITH, 0)
    assert (found.examples, found.of) == (11, 11)
    all_ = [example(number) for number in range(11)]
    free = [
        (one, t)
        for one in all_
        for t in range(1, len(one.tokens) - 1)
        if one.roles[t] > 0
    ]  # fmt: skip
    for curve in found.curves:
        assert sum(curve.tokens) == len(free)
        for low, high, count, visible, mean in zip(
            curve.low, curve.high, curve.tokens, curve.visible, curve.keep_prob, strict=True
        ):
            here = [
                (one, t)
                for one, t in free
                if low <= getattr(one, curve.name)[t] < high
                or (low == high and getattr(one, curve.name)[t] == low)
            ]
            assert count == len(here)
            assert visible == sum(bool(one.key_mask[t]) for one, t in here)
            assert mean == pytest.approx(np.mean([one.keep_prob[t] for one, t in here]))
    assert {curve.name: curve.low for curve in found.curves}["pos"] == (0.0, 1.0)
    for role, name in enumerate(tokenizer.ROLES):
        said = found.roles[role]
        assert said.name == name
        assert said.tokens == sum((one.roles == role).sum() for one in all_)
        assert said.visible == sum(one.key_mask[one.roles == role].sum() for one in all_)
    assert sum(role.free for role in found.roles) == len(free)
    assert sum(found.length_counts) == 11
    assert found.median_tokens == int(np.median([len(one.tokens) for one in all_]))


def test_a_sample_is_spread_evenly(tmp_path):
    path = folder(tmp_path, 150, rows_per_part=20)
    found = stats.count(path, MADE_WITH, 64)
    assert found.of == 150
    assert 60 <= found.examples <= 64
    places = stats._stretches(150, 64)
    assert (places[0], places[-1]) == (0, 149)
    assert np.diff(places).max() <= 4
    assert stats.count(path, MADE_WITH, 1000).examples == 150


def test_the_sentences_say_what_the_counts_say(path):
    found = stats.count(path, MADE_WITH, 0)
    said = stats.sentences(found)
    pos = next(curve for curve in found.curves if curve.name == "pos")
    shown = [float(figure) for figure in re.findall(r"([\d.]+) %", said["pos"])]
    assert shown == [round(100 * pos.rate(-1), 1), round(100 * pos.rate(0), 1)]
    assert ("more often" in said["pos"]) == (pos.rate(-1) > pos.rate(0))
    assert str(found.median_tokens) in said["length"]


# ---- as text ------------------------------------------------------------------------------------


def explained(path, number: int, chat) -> tokens.Explained:
    return tokens.explain(reading.at(path, [number])[0], number, MADE_WITH, chat)


@pytest.mark.parametrize("tty", [False, True])
def test_hostile_text_does_not_steer_a_terminal(path, chat, tty):
    shown = explained(path, 1, chat)
    packed = next(
        one
        for one in (row.packed_row(path, n, TRAINING, chat) for n in range(4))
        if any(doc.number == 1 for doc in one.documents)
    )
    for text in (
        drawn(terminal.show_tokens, shown, chat, tty=tty),
        drawn(terminal.show_row, packed, chat, tty=tty),
    ):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)  # the colours are ours
        assert "\\x1b[31m" in re.sub(r"\[[-~](.*?)[-~]\]", r"\1", plain)
        assert ("\x1b" in text) == tty
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", plain)


def test_plain_text_marks_what_is_hidden(path, chat):
    shown = explained(path, 2, chat)
    text = drawn(terminal.show_tokens, shown, chat)
    flowing = text.split("\n\n")[1]
    hidden = [token for token in shown.tokens if not token.visible]
    assert hidden
    assert len(re.findall(r"\[[-~]", flowing)) <= len(hidden)
    bare = re.sub(r"\[[-~](.*?)[-~]\]", r"\1", flowing)
    assert bare == f"<|user|> {POSTS[2]}<|end|><|assistant|> joy and more of it<|end|>"
    lines = text.rsplit("\n\n", 1)[1].splitlines()[1:]
    assert len(lines) == len(shown.tokens)
    for line, token in zip(lines, shown.tokens, strict=True):
        assert line.endswith(token.why)
        assert f"{token.total:+.2f}" in line


def test_a_narrow_terminal_gets_narrow_lines(path, chat):
    text = drawn(terminal.show_tokens, explained(path, 0, chat), chat, tty=True, width=88)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines()[6:])) <= 88


def test_statistics_as_text(path):
    found = stats.count(path, MADE_WITH, 0)
    text = drawn(terminal.show_stats, found)
    for curve in found.curves:
        assert f"keep rate by {curve.name}" in text
    assert "all 11 examples" in text
    assert "█" in text


# ---- as a page ----------------------------------------------------------------------------------


def made_pages(path, chat) -> dict[str, str]:
    packed = row.packed_row(path, 0, TRAINING, chat)
    found = stats.count(path, MADE_WITH, 0)
    return {
        "tokens": page.tokens_page(explained(path, 1, chat), chat),
        "row": page.row_page(packed, chat),
        "stats": page.stats_page(found, MADE_WITH),
    }


def test_pages_are_self_contained_and_inert(path, chat):
    for name, text in made_pages(path, chat).items():
        soup = BeautifulSoup(text, "html.parser")
        policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})
        assert policy is not None
        assert "default-src 'none'" in str(policy["content"])
        assert not soup.find_all(["script", "img", "iframe", "link", "form", "object", "base"]), (
            name
        )
        for tag in soup.find_all(True):
            assert not [key for key in tag.attrs if key.startswith("on")], (name, tag)
            for key in ("src", "href", "xlink:href"):
                assert str(tag.get(key, "#")).startswith("#"), (name, tag)
        assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
        assert "@media print" in text
        assert "prefers-color-scheme: dark" in text
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_the_page_of_an_example_says_it_all(path, chat):
    shown = explained(path, 1, chat)
    soup = BeautifulSoup(page.tokens_page(shown, chat), "html.parser")
    card = soup.find("div", {"class": "text"})
    assert card is not None
    assert "<script>alert(1)</script> <img src=x onerror=alert(2)>" in card.get_text()
    assert "\\x1b[31mred" in card.get_text()
    lines = soup.find_all("tr", id=re.compile(r"^t\d+$"))
    assert len(lines) == len(shown.tokens)
    for line, token in zip(lines, shown.tokens, strict=True):
        assert token.why in line.get_text()
        assert ("gone" in (line.get("class") or [])) == (not token.visible)
    targets = {str(a["href"])[1:] for a in card.find_all("a")}
    assert targets <= {str(line["id"]) for line in lines}


def test_every_chart_has_its_sentence(path):
    found = stats.count(path, MADE_WITH, 0)
    soup = BeautifulSoup(page.stats_page(found, MADE_WITH), "html.parser")
    figures = soup.find_all("figure")
    assert len(figures) == 6
    said = set(stats.sentences(found).values())
    for figure in figures:
        caption, picture = figure.find("figcaption"), figure.find("svg")
        assert caption is not None
        assert picture is not None
        assert caption.get_text() in said
        assert picture["role"] == "img"
        assert picture["aria-label"] == caption.get_text()
