import doctest

import numpy as np
import pytest

from opengrok_jax import storage, tokenizer
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation import report
from opengrok_jax.masked_file import write_masked
from opengrok_jax.records import Cell, Example, MaskedExample, Message, Prompt, Score

bs4 = pytest.importorskip("bs4", reason="beautifulsoup4 reads the page; extra 'test'")
HOSTILE = '<script>alert(1)</script> "quoted" & <img src=x onerror=alert(2)> 👨‍👩‍👧'


def example(number: int, intent: str, text: str = HOSTILE) -> Example:
    return Example(
        id=f"{number:016x}",
        messages=(Message(role="user", content=text),),
        response="fine </div> thanks",
        split="train",
        cell=Cell(intent=intent, topic="food", platform="X"),
        source="recorded",
        model_served="m",
        rights="r",
    )


def masked(kept: Example) -> MaskedExample:
    encoded = tokenizer.load().encode_chat(kept.messages, kept.response)
    count = len(encoded.tokens)
    chance = np.random.default_rng(0)
    factors = {
        n: chance.random(count, np.float32) for n in ("tfidf", "pos", "dep", "random", "keep_prob")
    }
    return MaskedExample(
        id=kept.id,
        split="train",
        tokens=encoded.tokens,
        roles=encoded.roles,
        key_mask=factors["keep_prob"] > 0.5,
        **factors,
    )


@pytest.fixture
def inputs(tmp_path):
    kept = [example(n, intent) for n, intent in enumerate(["sentiment", "rewrite", "sentiment"])]
    prompts = [Prompt(id=k.id, messages=k.messages, cell=k.cell, template="t") for k in kept] + [
        Prompt(
            id="f" * 16,
            messages=kept[0].messages,
            cell=Cell(intent="rewrite", topic="music"),
            template="t",
        )
    ]
    storage.write_jsonl(tmp_path / "prompts.jsonl", prompts)
    storage.write_jsonl(tmp_path / "curation" / "kept.jsonl", kept)
    storage.write_jsonl(
        tmp_path / "curation" / "rejected.jsonl",
        [
            {
                "prompt_id": "a",
                "reason": "too_short",
                "detail": "1 word",
                "check": "length",
                "response": HOSTILE,
                "cell": {},
            }
        ]
        * 2
        + [
            {
                "prompt_id": "b",
                "reason": "refusal",
                "detail": "sorry",
                "check": "refusal",
                "response": "",
                "cell": {},
            }
        ],
    )
    write_masked(
        tmp_path / "masking" / "masked.parquet",
        [masked(k) for k in kept],
        {"tokenizer": "", "vocab_size": 4096},
    )
    storage.write_json(
        tmp_path / "masking" / "corpus.json",
        {
            "bias": 0.1,
            "keep_rate": 0.85,
            "by_role": {
                "template": {"tokens": 3, "keep_rate": 1.0},
                "prompt": {"tokens": 2000, "keep_rate": 0.8},
                "response": {"tokens": 0, "keep_rate": None},
            },
            "by_upos": {"NOUN": {"tokens": 7, "keep_rate": 0.912}},
        },
    )
    storage.write_jsonl(
        tmp_path / "training" / "metrics.jsonl",
        [
            {
                "step": s,
                "train_loss": 3.0 / s,
                "learning_rate": 1e-3,
                "grad_norm": 1.0,
                "valid_loss": 3.1 / s if s % 2 == 0 else None,
            }
            for s in range(1, 9)
        ],
    )
    storage.write_json(
        tmp_path / "training" / "summary.json",
        {
            "best_step": 6,
            "best_valid_loss": 0.517,
            "last_step": 8,
            "stopped_early": True,
            "normalize": "example",
            "parameters": 1234567,
            "train_examples": 3,
            "valid_examples": 1,
            "rows": 2,
            "packing_efficiency": 0.9,
            "loss_tokens_per_epoch": 9,
        },
    )
    scores = [
        Score(
            task="sentiment",
            metric="macro_recall",
            predictor=who,
            value=v,
            low=v - 0.05,
            high=v + 0.05,
            rows=66,
        )
        for who, v in (
            ("student (likelihood)", 0.5),
            ("majority", 0.33),
            ("tf-idf + logistic regression", 0.52),
        )
    ]
    storage.write_json(
        tmp_path / "evaluation" / "scores.json",
        {"scores": [storage.records.to_json(s) for s in scores], "notes": ["a note <b>"]},
    )
    return {
        "prompts_file": tmp_path / "prompts.jsonl",
        "curation": tmp_path / "curation",
        "masked_file": tmp_path / "masking" / "masked.parquet",
        "training": tmp_path / "training",
        "evaluation": tmp_path / "evaluation",
        "out": tmp_path / "report",
    }  # fmt: skip


def test_the_page_is_one_file_that_runs_and_fetches_nothing(inputs):
    counts = report.run(**inputs, title="A <title>")
    page = (inputs["out"] / "report.html").read_text()
    assert counts["bytes"] == len(page.encode())
    soup = bs4.BeautifulSoup(page, "html.parser")
    assert not soup.find_all(["script", "link", "iframe", "img", "object", "form"])
    assert not [t for t in soup.find_all() for a in t.attrs if a.startswith("on") or a in ("src",)]
    links = [t["href"] for t in soup.find_all(href=True)]
    assert all(link.startswith("#") for link in links)
    assert "url(http" not in page
    policy = soup.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert policy is not None
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert soup.title is not None
    assert soup.title.text == "A <title>"


def test_what_a_post_wrote_is_shown_as_text(inputs):
    report.run(**inputs)
    page = (inputs["out"] / "report.html").read_text()
    assert "<script>alert(1)" not in page
    soup = bs4.BeautifulSoup(page, "html.parser")
    shown = soup.select(".example .tokens")
    assert len(shown) == 3
    text = "".join(span.text for span in shown[0].find_all("span"))
    rendered = (
        tokenizer.load()
        .encode_chat((Message(role="user", content=HOSTILE),), "fine </div> thanks")
        .text
    )
    assert text == rendered


def test_the_numbers_are_on_the_page(inputs):
    report.run(**inputs)
    soup = bs4.BeautifulSoup((inputs["out"] / "report.html").read_text(), "html.parser")
    text = " ".join(soup.get_text(" ").split())
    for wanted in (
        "1,234,567",
        "4 prompts asked",
        "85.0 %",
        "3 of 6 answers",
        "too short",
        "0.500",
        "0.450 to 0.550",
    ):
        assert wanted in text, wanted
    assert "above majority and within the noise of tf-idf + logistic regression" in text
    hidden = soup.select(".tokens .t.hidden:not(.special)")
    assert hidden
    assert all("hidden" in span["data-tip"] and "tf-idf" in span["data-tip"] for span in hidden)


def test_the_drawing_of_pieces():
    """
    text      H  i     👍          !
    spans   (0,2)    (3,4)x4     (4,5)
    pieces    Hi      👍           !
    """
    encoded = tokenizer.Encoded(
        text="Hi 👍!",
        tokens=np.arange(6, dtype=np.int32),
        spans=np.array([[0, 2], [3, 4], [3, 4], [3, 4], [3, 4], [4, 5]], np.int32),
        roles=np.ones(6, np.int8),
        special=np.zeros(6, bool),
    )
    values = np.linspace(0, 1, 6, dtype=np.float32)
    mask = np.array([1, 0, 0, 1, 0, 0], bool)
    row = MaskedExample(
        id="x", split="train", tokens=encoded.tokens, roles=encoded.roles, tfidf=values, pos=values,
        dep=values, random=values, keep_prob=values, key_mask=mask,
    )  # fmt: skip
    shown = report.pieces(encoded, row)
    assert [p.text for p in shown] == ["Hi ", "👍", "!"]
    assert [p.visible for p in shown] == [True, True, False]
    assert shown[1].keep_prob == pytest.approx(0.8)


def test_coverage_counts_every_cell():
    def prompt(n, intent, topic):
        return Prompt(id=str(n), messages=(), cell=Cell(intent=intent, topic=topic), template="t")

    maps = report.coverage(
        [prompt(1, "a", "x"), prompt(2, "a", "x"), prompt(3, "b", "y"), prompt(4, "b", "")]
    )
    assert len(maps) == 1
    assert maps[0]["columns"] == ["x", "y", "any"]
    assert maps[0]["rows"] == [("a", [2, 0, 0]), ("b", [0, 1, 1])]
    assert (maps[0]["largest"], maps[0]["empty"]) == (2, 2)


def test_bad_input_is_one_line(inputs):
    with pytest.raises(ConfigError, match=r"report\.examples is -1"):
        report.run(**inputs, examples=-1)
    (inputs["evaluation"] / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"scores\.json: not readable as JSON"):
        report.run(**inputs)
    assert not (inputs["out"] / "report.html").exists()


def test_doctests():
    assert doctest.testmod(report).failed == 0
