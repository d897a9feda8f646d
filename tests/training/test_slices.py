"""Slices by name."""

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.training.slices import parse_slice


@pytest.mark.parametrize(
    ("text", "chip", "shape", "chips", "devices"),
    [
        ("v5e:4x4", "v5e", (4, 4), 16, 16),
        ("v5e:1x1", "v5e", (1, 1), 1, 1),
        ("V6E:16x16", "v6e", (16, 16), 256, 256),
        ("v4:2x2x1", "v4", (2, 2, 1), 4, 4),
        ("v5p:2x2x3", "v5p", (2, 2, 3), 12, 12),
        ("tpu7x:2x2x1", "tpu7x", (2, 2, 1), 4, 8),  # two devices a chip
        ("h200:1", "H200 SXM", (1,), 1, 1),
    ],
)
def test_what_is_rented(text, chip, shape, chips, devices):
    found = parse_slice(text)
    assert (found.name, found.chip.name, found.shape) == (text.lower(), chip, shape)
    assert (found.chips, found.devices) == (chips, devices)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v9:4x4", "'v9' is unknown; choose one of v4, v5e, v5p, v6e, tpu7x, a100, h100, h200"),
        ("", "unknown"),
        ("v5e", "chips along 2 axes, as in v5e:4x4"),
        ("v5e:4x4x4", "chips along 2 axes"),
        ("v4:4x4", "chips along 3 axes, as in v4:2x2x4"),
        ("v5e:0x4", "chips along 2 axes"),
        ("v5e:4xb", "chips along 2 axes"),
        ("h100:2x4", "a number of chips, as in h100:8"),
        ("v5e:3x4", "no such v5e slice"),
        ("v5p:2x1x2", "no such v5p slice"),
        ("v5p:1x1x1", "no such v5p slice"),
        ("v6e:2x64", "no axis is longer than 16"),
        ("v5e:16x32", "512 chips; slices of up to 256"),
    ],
)
def test_what_does_not_exist(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_slice(text)
