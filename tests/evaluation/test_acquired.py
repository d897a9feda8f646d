from opengrok_jax.evaluation import acquired
from opengrok_jax.records import Cell, Example, Prompt, Provenance


def test_coverage_counts_every_cell():
    def prompt(n, intent, topic):
        return Prompt(id=str(n), messages=(), cell=Cell(intent=intent, topic=topic), template="t")

    maps = acquired.coverage(
        [prompt(1, "a", "x"), prompt(2, "a", "x"), prompt(3, "b", "y"), prompt(4, "b", "")]
    )
    assert len(maps) == 1
    assert maps[0]["columns"] == ["x", "y", "any"]
    assert maps[0]["rows"] == [("a", [2, 0, 0]), ("b", [0, 1, 1])]
    assert (maps[0]["largest"], maps[0]["empty"]) == (2, 2)


def test_reasons_are_counted_and_the_first_is_quoted():
    def row(reason, response):
        return {"reason": reason, "detail": f"of {response}", "response": response}

    found = acquired.reasons([row("too_short", "a"), row("echo", "b"), row("too_short", "c")])
    assert [(r["reason"], r["count"], r["response"]) for r in found] == [
        ("too short", 2, "a"),
        ("echo", 1, "b"),
    ]


def test_rates_leave_out_what_holds_no_token():
    corpus = {
        "by_role": {
            "prompt": {"tokens": 2000, "keep_rate": 0.8},
            "response": {"tokens": 0, "keep_rate": None},
        },
        "by_upos": {
            "NOUN": {"tokens": 7, "keep_rate": 0.9},
            "X": {"tokens": 0, "keep_rate": None},
            "VERB": {"tokens": 9, "keep_rate": 0.7},
        },
    }
    assert [name for name, _ in acquired.rates(corpus)] == ["prompt", "VERB", "NOUN"]


def test_it_is_said_who_wrote_the_answers():
    def example(synthetic):
        return Example(
            id="1", messages=(), response="joy", split="train", cell=Cell(intent="a"),
            source="s", model_served="m", rights="r", provenance=Provenance(synthetic=synthetic),
        )  # fmt: skip

    machine, person = example(True), example(False)
    assert acquired.authors([machine] * 2).startswith("A machine wrote all 2 answers")
    assert acquired.authors([person]).startswith("All 1 answers are labels that came with")
    assert acquired.authors([machine, person, person]) == (
        "A machine wrote 1 answers; 2 are labels that came with the posts."
    )
