"""The table of published figures."""

import jax
import pytest

from opengrok_jax.training.chips import CHIPS, of_kind, peak_flops


def test_kinds_and_names_are_unique():
    kinds = [kind for chip in CHIPS for kind in chip.kinds]
    assert len(set(kinds)) == len(kinds)
    assert len({chip.name for chip in CHIPS}) == len(CHIPS)
    assert all(chip.source.startswith("https://") for chip in CHIPS)


@pytest.mark.parametrize(
    ("kind", "name", "tflops"),
    [
        ("TPU v4", "v4", 275),
        ("TPU v5 lite", "v5e", 197),
        ("TPU v5", "v5p", 459),
        ("TPU v6 lite", "v6e", 918),
        ("TPU7x", "tpu7x", 1153.5),  # two devices a chip
        ("NVIDIA A100-SXM4-80GB", "A100", 312),
        ("NVIDIA H100 80GB HBM3", "H100 SXM", 989),
        ("NVIDIA H200", "H200 SXM", 989),
    ],
)
def test_known_kinds(kind, name, tflops):
    chip = of_kind(kind)
    assert chip is not None
    assert chip.name == name
    assert peak_flops(kind) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize("kind", ["cpu", "", "TPU v4 lite", "NVIDIA H100 PCIe", "TPU v9"])
def test_nothing_is_guessed(kind):
    assert of_kind(kind) is None
    assert peak_flops(kind) is None


def test_this_machine_is_a_cpu():
    assert peak_flops(jax.devices("cpu")[0].device_kind) is None
