"""What a compiled program does, read off its HLO text with every loop counted as often as it runs.

XLA's own `cost_analysis` counts the body of a loop once, so of a model whose layers are scanned it
sees one. The grammar: one computation per block, one instruction per line,

    %name = type opcode(%operand, ..), attribute=value, ..

where TPUs put a collective that runs beside other work into several fusions with one channel, and
spell a reduce-scatter as a fusion of an all-reduce and the slice that a device keeps of it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COLLECTIVES = (
    *("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute"),
    *("ragged-all-to-all", "collective-broadcast"),
)
_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # else the digits: f32, s4, f8e4m3fn

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Array(NamedTuple):
    """One array of a type: its element type and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        digits = re.match(r"[a-z]+(\d+)", self.dtype)
        bits = _BITS.get(self.dtype) or int(digits[1] if digits else 0)
        return math.prod(self.shape) * bits // 8


class Instruction(NamedTuple):
    """One line.

    Attributes:
      root: is it the computation's result?
      name: without the percent sign.
      arrays: of its type, flattened.
      opcode: "fusion", "while", ..
      operands: names.
      rest: everything after the opcode.
    """

    root: bool
    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    rest: str


@dataclass(frozen=True)
class Totals:
    """One run of the program on one device.

    Attributes:
      collectives: kind -> (how often, bytes that a device receives). In a ring of n devices:
        (n-1)/n of the result of an all-gather or all-to-all, (n-1) times that of a reduce-scatter,
        2 (n-1)/n of an all-reduce, all of a permute.
      matmul_flops: of its matrix products; what a Pallas kernel multiplies is not in the text.
      cycles: the compiler's estimates, added up; None where it gives none. Kernels have none.
    """

    collectives: dict[str, tuple[int, int]]
    matmul_flops: int
    cycles: int | None

    @property
    def received(self) -> int:
        """Bytes over the interconnect, all kinds together."""
        return sum(size for _, size in self.collectives.values())


def totals(text: str) -> Totals:
    """Adds a program up, `compiled.as_text()`."""
    computations, entry = _parse(text)
    number, received = Counter[str](), Counter[str]()
    flops = cycles = 0
    timed = False
    for name, times in _flow(computations, entry).items():
        seen: set[str] = set()
        for instruction in computations[name]:
            if found := _CYCLES.search(instruction.rest):
                cycles, timed = cycles + times * int(found[1]), True
        for inner in _with_fused(computations, name):
            table = {i.name: i for i in computations[inner]}
            root = next(i for i in computations[inner] if i.root)
            for instruction in computations[inner]:
                flops += times * _matmul(instruction, table)
                kind = _kind(instruction, root)
                if kind in COLLECTIVES:
                    channel = re.search(r"channel_id=(\d+)", instruction.rest)
                    key = channel[1] if channel else instruction.name
                    if key not in seen:
                        seen.add(key)
                        number[kind] += times
                        received[kind] += times * _received(kind, instruction)
    collectives = {kind: (number[kind], received[kind]) for kind in COLLECTIVES if number[kind]}
    return Totals(collectives, flops, cycles if timed else None)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif current and (found := _LINE.match(line)):
            computations[current].append(_instruction(bool(found[1]), found[2], found[3]))
    return computations, entry


def _instruction(root: bool, name: str, body: str) -> Instruction:
    end = _closing(body) if body.startswith("(") else body.index(" ")
    opcode, _, rest = body[end:].strip().partition("(")
    operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
    arrays = tuple(
        Array(dtype, tuple(map(int, filter(None, shape.split(",")))))
        for dtype, shape in _ARRAY.findall(body[:end])
    )
    return Instruction(root, name, arrays, opcode, tuple(operands), rest)


def _closing(body: str) -> int:
    """Index after the parenthesis that closes the first one."""
    depth = 0
    for index, character in enumerate(body):
        depth += (character == "(") - (character == ")")
        if not depth:
            return index + 1
    return len(body)


def _flow(computations: dict[str, list[Instruction]], entry: str) -> Counter[str]:
    """How often each computation runs that is no part of a fusion."""
    times: Counter[str] = Counter()

    def visit(name: str, often: int) -> None:
        times[name] += often
        for instruction in computations[name]:
            if instruction.opcode == "while":
                body = re.search(r"\bbody=%?([\w.\-]+)", instruction.rest)
                if body:
                    visit(body[1], often * _trips(instruction, computations))
            elif instruction.opcode in ("call", "conditional", "async-start"):
                for called in _called(instruction):
                    visit(called, often)

    visit(entry, 1)
    return times


def _trips(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """How often a loop runs: as XLA notes, or else the limit over the step of its counter.

    Rings of collectives are unrolled: their counters advance by 2.
    """
    if known := _TRIPS.search(loop.rest):
        return int(known[1])
    condition, body = (
        {i.name: i for i in computations[found[1]]} if found else {}
        for found in (
            re.search(rf"\b{part}=%?([\w.\-]+)", loop.rest) for part in ("condition", "body")
        )
    )
    limits = [_constant(i) for i in condition.values() if i.opcode == "constant"]
    counters = [index for i in condition.values() if (index := _tuple_index(i)) is not None]
    if len(limits) != 1 or len(counters) != 1:
        return 1
    result = next(i for i in body.values() if i.root)
    step, at = 0, body.get(result.operands[counters[0]]) if result.opcode == "tuple" else None
    while at is not None and at.opcode in ("add", "copy"):
        added = [body[name] for name in at.operands if body[name].opcode == "constant"]
        step += sum(map(_constant, added))
        others = [body[name] for name in at.operands if body[name] not in added]
        at = others[0] if others else None
    return -(-limits[0] // max(step, 1))


def _constant(instruction: Instruction) -> int:
    found = re.match(r"(\d+)\)", instruction.rest)
    return int(found[1]) if found else 0


def _tuple_index(instruction: Instruction) -> int | None:
    found = re.search(r"index=(\d+)", instruction.rest)
    return int(found[1]) if found and instruction.opcode == "get-tuple-element" else None


def _called(instruction: Instruction) -> list[str]:
    found = _CALLED.search(instruction.rest)
    return re.findall(r"%([\w.\-]+)", found[1]) if found else []


def _with_fused(computations: dict[str, list[Instruction]], name: str) -> Iterator[str]:
    yield name
    for instruction in computations[name]:
        if instruction.opcode == "fusion":
            for called in _called(instruction):
                yield from _with_fused(computations, called)


def _kind(instruction: Instruction, root: Instruction) -> str:
    """What an instruction does among devices, in a computation that ends in `root`."""
    kept = root.opcode == "dynamic-slice" and root.operands[0] == instruction.name
    if instruction.opcode == "all-reduce" and kept:
        return "reduce-scatter"
    return instruction.opcode.removesuffix("-start")


def _received(kind: str, instruction: Instruction) -> int:
    arrays = [a for a in instruction.arrays if a.shape or instruction.opcode == kind]
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        arrays = arrays[len(arrays) // 2 :]  # operands stand first, then results
    size, n = sum(array.size for array in arrays), _group(instruction.rest)
    if kind == "all-reduce":
        return 2 * size * (n - 1) // n
    if kind == "reduce-scatter":  # of the part that is kept, or as a TPU spells it of the whole
        return size * (n - 1) // (n if instruction.opcode == "all-reduce" else 1)
    return size if kind.startswith("collective") else size * (n - 1) // n


def _group(rest: str) -> int:
    """Devices that take part together, from one of the three spellings of replica_groups."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", rest):
        return int(found[2])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([\w.]+)'=(\d+)", found[1]))
        axes = re.findall(r"'([\w.]+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return 1


def _matmul(instruction: Instruction, table: dict[str, Instruction]) -> int:
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    left, right = (table[name].arrays[0].shape for name in instruction.operands[:2])
    out = instruction.arrays[0].shape
    if instruction.opcode == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
        contracted = [int(d) for d in found[1].split(",") if d] if found else []
        return 2 * math.prod(out) * math.prod(left[d] for d in contracted)
    return _convolution(instruction.rest, left, right, out)


def _convolution(
    rest: str, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]
) -> int:
    """TPUs spell every matrix product as a convolution; taps that meet padding cost nothing."""
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", rest)
    if not found:
        return 0
    window = re.search(r"window=\{([^}]*)\}", rest)
    given = dict(item.split("=") for item in window[1].split()) if window else {}
    of_left, of_right, of_out = found.groups()

    def setting(name: str, axis: int, default: str) -> str:
        return given[name].split("x")[axis] if name in given else default

    flops = 2 * out[of_out.index("b")] * out[of_out.index("f")] * right[of_right.index("i")]
    for axis in range(len(out) - 2):
        at = [labels.index(str(axis)) for labels in (of_left, of_right, of_out)]
        places, taps, outs = left[at[0]], right[at[1]], out[at[2]]
        low = int(setting("pad", axis, "0_0").split("_")[0])
        stride, of_places, of_taps = (
            int(setting(name, axis, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        where = np.arange(outs)[:, None] * stride + np.arange(taps)[None] * of_taps - low
        inside = (where >= 0) & (where <= (places - 1) * of_places) & (where % of_places == 0)
        flops *= int(inside.sum())
    return flops
