"""So many chips of one kind, as one asks a cloud for them: "v5e:4x4", "v5p:2x2x4", "h100:8"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from opengrok_jax.errors import ConfigError
from opengrok_jax.training.chips import CHIPS, Chip

MOST_CHIPS = 256

# The first word of a chip's name, in small letters.
_BY_NAME = {chip.name.split()[0].lower(): chip for chip in CHIPS}


@dataclass(frozen=True)
class Slice:
    """What is rented.

    Attributes:
      name: as it was asked for.
      chip: what each of the chips is.
      shape: chips along each axis of a TPU slice; (number,) of GPUs.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """How many are paid."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """How many JAX sees."""
        return self.chips * self.chip.devices


def parse_slice(text: str) -> Slice:
    """The slice that a text such as "v5e:4x4" names.

    Raises:
      ConfigError: an unknown chip, another number of axes than its slices have, sizes that no
        slice has, or more than 256 chips.
    """
    name, _, shape = text.strip().lower().partition(":")
    chip = _BY_NAME.get(name)
    if chip is None:
        raise ConfigError(
            f"{text!r}: chip {name!r} is unknown; choose one of {', '.join(_BY_NAME)}"
        )
    axes = chip.dimensions or 1
    example = f"{name}:{('8', '4x4', '2x2x4')[axes - 1]}"
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or shape.count("x") + 1 != axes:
        wants = f"chips along {axes} axes" if chip.dimensions else "a number of chips"
        raise ConfigError(f"{text!r}: {name} wants {wants}, as in {example}")
    found = Slice(f"{name}:{shape}", chip, tuple(map(int, shape.split("x"))))
    if found.chips > MOST_CHIPS:
        raise ConfigError(
            f"{text!r} has {found.chips} chips; slices of up to {MOST_CHIPS} can be planned"
        )
    # Chips come in boards of 2x2; a single one is sold of the kinds whose slices have two axes.
    single = axes == 2 and found.chips == 1
    even = all(size % 2 == 0 for size in found.shape[:2])
    if chip.dimensions and not single and (not even or (axes == 2 and max(found.shape) > 16)):
        longest = ", and no axis is longer than 16" if axes == 2 else ""
        raise ConfigError(
            f"{text!r}: there is no such {name} slice; its first two axes are even{longest}, as in "
            f"{example}"
        )
    return found
