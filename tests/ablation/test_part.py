import doctest

import pytest

from opengrok_jax.ablation import part
from opengrok_jax.errors import ConfigError

WHOLE = {
    "seeds": (0, 1),
    "sets": {"emotion": {}, "irony": {"training": {}}},
    "questions": {
        "data": {"baseline": "gold", "cells": {"gold": {}, "none": {"data": "none"}}},
        "rule": {"baseline": "no mask", "cells": {"no mask": {}, "exclude": {}, "multiply": {}}},
    },
}


def test_a_part_keeps_the_baselines_and_everything_else():
    found = part.part(WHOLE, sets=["irony"], cells=["exclude"])
    assert found["seeds"] == (0, 1)
    assert found["sets"] == {"irony": {"training": {}}}
    assert list(found["questions"]) == ["rule"]
    assert list(found["questions"]["rule"]["cells"]) == ["no mask", "exclude"]
    assert part.part(WHOLE) == WHOLE
    assert list(part.part(WHOLE, questions=["data"])["questions"]) == ["data"]
    assert doctest.testmod(part).failed == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sets": ["hate"]}, "--sets: the grid has no 'hate'; it has emotion, irony"),
        ({"questions": ["x"]}, "--questions: the grid has no 'x'"),
        ({"cells": ["x"]}, "--cells: the grid has no 'x'"),
        ({"questions": ["data"], "cells": ["exclude"]}, "no question is left"),
    ],
)
def test_a_name_that_is_not_there_is_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        part.part(WHOLE, **given)
