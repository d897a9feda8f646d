import copy
from typing import Any

import pytest

from opengrok_jax.ablation import grid
from opengrok_jax.errors import ConfigError


def one(sections, **cell):
    return grid.cell(sections, "here", cell)


def asked(**changes):
    question = {"ask": "?", "baseline": "a", "cells": {"a": {"rule": "none"}, "b": {}}}
    return {"questions": {"q": question | changes}}


def test_a_cell_is_completed_from_the_config(sections):
    found = one(sections)
    assert (found.rule, found.factors, found.draw) == ("exclude", "config", "fixed")
    assert (found.keep_rate, found.scope) == (0.85, "prompt+response")
    other = one({**sections, "training": {**sections["training"], "rule": "multiply"}})
    assert other.rule == "multiply"
    assert other.id != found.id


def test_what_makes_no_difference_makes_no_other_cell(sections):
    plain = one(sections, rule="none")
    assert plain.id == one(sections, rule="none", factors="random", keep_rate=0.4).id
    assert plain.id == one(sections, rule="none", draw="per_epoch", scope="prompt").id
    assert plain.id != one(sections, rule="none", loss_weight="keep_prob").id
    weighed = {"rule": "none", "loss_weight": "keep_prob"}
    assert one(sections, **weighed).id != one(sections, **weighed, factors="random").id
    untrained = one(sections, data="none", rule="exclude", inference_mask=True)
    assert untrained.id == one(sections, data="none", loss_weight="keep_prob").id
    assert one(sections).id == one(sections, factors="config", keep_rate=0.85).id


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ({"rules": "none"}, "has no rules; a cell has data, rule"),
        ({"rule": "some"}, "here.rule is 'some'; expected one of none, multiply, exclude"),
        ({"factors": "length"}, "expected one of config, tfidf"),
        ({"rule": "none", "inference_mask": True}, "inference_mask needs a rule"),
        ({"keep_rate": 1.0}, "keep_rate is 1.0; expected a number between 0 and 1"),
    ],
)
def test_a_wrong_cell_is_refused(sections, cell, said):
    with pytest.raises(ConfigError, match=said):
        one(sections, **cell)


def test_factors_without_a_rate_to_match_are_refused(sections):
    loose = copy.deepcopy(sections)
    loose["masking"]["preset"] = "paper"
    assert one(loose).keep_rate is None
    with pytest.raises(ConfigError, match="would hide another share"):
        one(loose, factors="random")
    assert one(loose, factors="random", keep_rate=0.7).keep_rate == 0.7


def test_factors_are_numbers_of_the_formula(sections):
    def numbers(**cell):
        section = grid.masking_of(one(sections, **cell), sections["masking"])
        assert section["preset"] == ""
        names = ("alpha", "beta", "gamma", "delta", "target_keep_rate", "scope")
        return [section[n] for n in names]

    assert numbers() == [2.0, 1.0, 1.0, 1.0, 0.85, "prompt+response"]
    assert numbers(factors="tfidf") == [4.0, 0.0, 0.0, 0.0, 0.85, "prompt+response"]
    assert numbers(factors="random", keep_rate=0.5) == [0, 0, 0, 4.0, 0.5, "prompt+response"]
    assert numbers(factors="without pos", scope="prompt") == [2.0, 0.0, 1.0, 1.0, 0.85, "prompt"]
    # It reads no mask, and so shares the one of the config.
    assert numbers(rule="none", factors="random") == numbers()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"questions": {}}, "no questions"),
        (asked(baseline="c"), "baseline is 'c'; expected one of its cells: a, b"),
        (asked(title="x"), "has no title"),
        (asked(cells={"a": {}, "b": {}}), "two of its cells come to the same"),
        (asked() | {"seeds": ()}, "different whole numbers"),
        (asked() | {"seeds": (1, 1)}, "different whole numbers"),
        (asked() | {"engine": "fast"}, "engine is 'fast'"),
        (asked() | {"bootstrap": 0}, "bootstrap is 0"),
        (asked() | {"price_per_hour": -1.0}, "price_per_hour is -1"),
    ],
)
def test_a_wrong_grid_is_refused(sections, given, said):
    with pytest.raises(ConfigError, match=said):
        grid.read(sections, **given)


def test_common_holds_for_every_cell_and_the_baseline_comes_first(sections):
    given: dict[str, Any] = {**asked(baseline="b"), "common": {"rule": "multiply"}}
    (question,) = grid.read(sections, **given).questions
    assert list(question.cells) == ["b", "a"]
    assert [c.rule for c in question.cells.values()] == ["multiply", "none"]


def test_an_unknown_key_of_a_grid_is_named():
    with pytest.raises(ConfigError, match="the grid has no seed; it has questions, common"):
        grid.check_keys({"questions": {}, "seed": 1})
    with pytest.raises(ConfigError, match="no questions"):
        grid.check_keys({"seeds": (1,)})
