"""Accelerators whose figures the makers publish; nothing is guessed about any other.

Interconnect figures in the sources count both directions; here is one.
"""

from __future__ import annotations

from dataclasses import dataclass

_TPU = "https://docs.cloud.google.com/tpu/docs/"
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      name: as its maker's cloud or data sheet calls it.
      kinds: JAX's `device_kind`.
      peak_flops: dense bfloat16 multiply-adds count two, per second and chip.
      hbm_bytes: memory of a chip.
      hbm_bandwidth: bytes a second between a chip and its memory.
      link_bandwidth: bytes a second from a chip to its neighbours, all links together.
      dimensions: axes of a TPU slice; 0 = no TPU.
      devices: JAX devices of a chip.
      source: where the figures stand.
    """

    name: str
    kinds: tuple[str, ...]
    peak_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    dimensions: int = 0
    devices: int = 1
    source: str


CHIPS = (
    Chip(
        name="v4",
        kinds=("TPU v4",),
        peak_flops=275e12,
        hbm_bytes=32 * GIB,
        hbm_bandwidth=1200e9,
        link_bandwidth=300e9,
        dimensions=3,
        source=_TPU + "v4",
    ),
    Chip(
        name="v5e",
        kinds=("TPU v5 lite", "TPU v5e"),
        peak_flops=197e12,
        hbm_bytes=16 * GIB,
        hbm_bandwidth=819e9,
        link_bandwidth=200e9,
        dimensions=2,
        source=_TPU + "v6e",  # their table compares both
    ),
    Chip(
        name="v5p",
        kinds=("TPU v5", "TPU v5p"),
        peak_flops=459e12,
        hbm_bytes=95 * GIB,
        hbm_bandwidth=2765e9,
        link_bandwidth=600e9,
        dimensions=3,
        source=_TPU + "v5p",
    ),
    Chip(
        name="v6e",
        kinds=("TPU v6 lite", "TPU v6e"),
        peak_flops=918e12,
        hbm_bytes=32 * GIB,
        hbm_bandwidth=1640e9,
        link_bandwidth=448e9,
        dimensions=2,
        source=_TPU + "v6e",
    ),
    Chip(
        name="tpu7x",
        kinds=("TPU7x",),
        peak_flops=2307e12,
        hbm_bytes=192 * GIB,
        hbm_bandwidth=7380e9,
        link_bandwidth=600e9,
        dimensions=3,
        devices=2,  # two chiplets, each a device of its own
        source=_TPU + "tpu7x",
    ),
    Chip(
        name="A100",
        kinds=(
            *("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"),
            *("NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"),
        ),
        peak_flops=312e12,
        hbm_bytes=80 * GIB,
        hbm_bandwidth=2039e9,
        link_bandwidth=300e9,
        source=_NVIDIA + "a100/",
    ),
    Chip(
        name="H100 SXM",
        kinds=("NVIDIA H100 80GB HBM3",),
        peak_flops=989e12,
        hbm_bytes=80 * GIB,
        hbm_bandwidth=3350e9,
        link_bandwidth=450e9,
        source=_NVIDIA + "h100/",
    ),
    Chip(
        name="H200 SXM",
        kinds=("NVIDIA H200",),
        peak_flops=989e12,
        hbm_bytes=141 * 10**9,
        hbm_bandwidth=4800e9,
        link_bandwidth=450e9,
        source=_NVIDIA + "h200/",
    ),
)


def of_kind(device_kind: str) -> Chip | None:
    """The chip of a JAX device; None where no published figure is known (a CPU, say).

    >>> of_kind("TPU v5 lite").name, of_kind("cpu")
    ('v5e', None)
    """
    return next((chip for chip in CHIPS if device_kind in chip.kinds), None)


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of one JAX device; None if unknown."""
    chip = of_kind(device_kind)
    return chip.peak_flops / chip.devices if chip else None
