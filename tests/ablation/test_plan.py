import pytest

from opengrok_jax.ablation import grid, plan
from opengrok_jax.errors import ConfigError


def read(sections, cells, **more):
    question = {"ask": "?", "baseline": next(iter(cells)), "cells": cells}
    return grid.read(sections, questions={"q": question}, **more)


def test_what_can_be_shared_is_shared(sections):
    cells = {
        "none": {"rule": "none"},
        "multiply": {"rule": "multiply"},
        "exclude": {},
        "masked": {"inference_mask": True},
        "random": {"factors": "random"},
        "floor": {"data": "none"},
    }
    planned = plan.trainings(sections, read(sections, cells, seeds=(0, 1, 2)))
    assert len(planned) == 18
    assert len({t.mask.data.id for t in planned}) == 1
    masks = plan.masks(planned)
    assert len(masks) == 2  # the config's and the random one
    assert [mask.asked for mask in masks].count(True) == 1
    assert not any(mask.probabilities for mask in masks)
    more = {**cells, "weighed": {"rule": "none", "loss_weight": "keep_prob"}}
    again = plan.masks(plan.trainings(sections, read(sections, more)))
    assert [mask.probabilities for mask in again].count(True) == 1
    assert {mask.id for mask in again} == {mask.id for mask in masks}
    # The student that is asked in two ways is one.
    assert len({t.student for t in planned}) == 15
    together = [t.student for t in planned]
    assert all(together.index(s) + together.count(s) > i for i, s in enumerate(together))


def test_gold_labels_are_other_data_than_a_teachers_answers(sections):
    recorded = {**sections, "teacher": {"kind": "recorded", "recorded_file": "x", "cap": "1"}}
    cells = {"distilled": {"rule": "none"}, "gold": {"rule": "none", "data": "gold"}}
    planned = plan.trainings(recorded, read(recorded, cells, seeds=(0,)))
    kinds = {t.mask.data.kind: t.mask.data for t in planned}
    assert set(kinds) == {"distilled", "gold"}
    assert kinds["gold"].sections["teacher"] == {"kind": "labelled"}
    faster = {**recorded, "teacher": {**recorded["teacher"], "cap": "2"}}
    again = plan.trainings(faster, read(faster, cells, seeds=(0,)))
    assert {t.mask.data.id for t in again} == {t.mask.data.id for t in planned}


def test_sets_and_cells_lie_over_the_config(sections):
    cells = {"a": {"rule": "none"}, "b": {"config": {"training": {"epochs": 5.0}}}}
    sets = {"short": {"training": {"model": {"hidden_size": 8}}}, "long": {}}
    planned = plan.trainings(sections, read(sections, cells, sets=sets, seeds=(4,)))
    rows = {(t.set, t.cell.rule): t.row() for t in planned}
    assert rows["short", "none"]["training"]["model"]["hidden_size"] == 8
    assert rows["short", "none"]["training"]["model"]["intermediate_size"] == 24
    assert rows["long", "none"]["training"]["model"]["hidden_size"] == 16
    assert rows["long", "exclude"]["training"]["epochs"] == 5.0
    assert rows["long", "exclude"]["training"]["seed"] == 4
    assert [t.set for t in planned] == ["short", "short", "long", "long"]
    with pytest.raises(ConfigError, match="no section 'trainings'"):
        plan.trainings(sections, read(sections, cells, sets={"x": {"trainings": {}}}))


def test_a_sets_tasks_take_the_place_of_the_bases():
    base = {"evaluation": {"tasks": {"a": {}}, "limit": 3}}
    found = plan.overlaid(base, {"evaluation": {"tasks": {"b": {}}}}, "here")
    assert found == {"evaluation": {"tasks": {"b": {}}, "limit": 3}}
    assert base["evaluation"]["tasks"] == {"a": {}}
