"""Kernels of a compiled program, read from its text: how many, and the bytes each reads and writes.

The text is XLA's HLO after all passes, `jax.stages.Compiled.as_text()`: an instruction of the entry
computation, or of a loop's body, is a kernel, a call of a library or a collective. Bytes are those
of its arguments and results; of an argument of which a fusion takes only slices, those of the
slices, and of a result that a fusion updates in place, those of the update. A loop counts as often
as it runs. The text is in the order in which kernels begin, so that those between the start of a
collective and its end run beside it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from uniface_jax.plan import products

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|body|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
# Of these the results hold the arguments once more.
_STARTS = re.compile(r"async|(?!all-reduce).*-start$")
# Compilers for TPUs write a collective beside others as fusions of one chain: its start, its end,
# and between them those whose other work it runs beside, whose computations bear this name.
_CHAIN = re.compile(r'chain_id="(\d+)"')
_CHAIN_STARTS, _CHAIN_ENDS = "AsyncCollectiveStart", "AsyncCollectiveDone"
_BESIDE_A_COLLECTIVE = "async_collective_fusion"
_SLICES = {"dynamic-slice", "slice", "gather"}
_FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "opt-barrier",
    "partition-id", "replica-id", "add-dependency",
}  # fmt: skip
_COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
# Of a library's call: its target holds the word. The first that fits counts.
_LIBRARIES = {
    "convBackwardFilter": "convolution, kernel gradient",
    "convBackwardInput": "convolution, input gradient",
    "conv": "convolution, forward",
    "fmha": "attention",
    "matmul": "product",
    "gemm": "product",
}
COLLECTIVE, ELEMENTWISE, REDUCTION = "collective", "element-wise", "reduction"
COPY, PRODUCT, OTHER = "transpose or copy", "product", "other"
CONVOLUTION = "convolution"


class Array(NamedTuple):
    """Type of an array by HLO's name, as bf16, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Return the bytes it takes, without padding."""
        return -(-math.prod(self.shape) * _bits(self.dtype) // 8)


class Total(NamedTuple):
    """Kernels of a kind: how many run in a step, the bytes they read and write, and their FLOPs."""

    kernels: int
    bytes: int
    flops: float = 0.0


class Kernel(NamedTuple):
    """One instruction that runs.

    read, written: bytes of a run. times: how often it runs a step. flops: of its products, a run.
    beside: what runs between a collective's start and its end, which hides it; nothing for one that
    is waited for.
    """

    name: str
    kind: str
    read: int
    written: int
    times: int
    results: tuple[Array, ...]
    flops: float = 0.0
    beside: Total = Total(0, 0)

    @property
    def bytes(self) -> int:
        """Return the bytes of all runs."""
        return self.times * (self.read + self.written)


@dataclass
class _Instruction:
    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: list[str]
    rest: str
    root: bool
    parameter: int | None = None


@dataclass
class _Computation:
    instructions: dict[str, _Instruction] = field(default_factory=dict)

    @property
    def opcodes(self) -> set[str]:
        return {instruction.opcode for instruction in self.instructions.values()}

    def users(self, name: str) -> list[_Instruction]:
        """Return what takes `name`, through bitcasts."""
        found = []
        for instruction in self.instructions.values():
            if name in instruction.operands:
                if instruction.opcode == "bitcast" and not instruction.root:
                    found += self.users(instruction.name)
                else:
                    found.append(instruction)
        return found


def kernels(text: str) -> list[Kernel]:
    """Return what a compiled program runs, in its order. Raises ValueError for another text."""
    computations, entry = _computations(text)
    return _running(entry, computations, 1)


def by_kind(found: Iterable[Kernel]) -> dict[str, Total]:
    """Return the totals of each kind, the one with most bytes first."""
    kinds: dict[str, list[Kernel]] = {}
    for kernel in found:
        kinds.setdefault(kernel.kind, []).append(kernel)
    totals = {kind: _total(each) for kind, each in kinds.items()}
    return dict(sorted(totals.items(), key=lambda item: -item[1].bytes))


def _total(found: Iterable[Kernel], runs: int = 1) -> Total:
    """Return the total of one of so many runs of these kernels."""
    each = list(found)
    return Total(
        sum(kernel.times for kernel in each) // runs,
        sum(kernel.bytes for kernel in each) // runs,
        sum(kernel.times * kernel.flops for kernel in each) / runs,
    )


def _bits(dtype: str) -> int:
    if dtype in ("pred", "token", "opaque"):
        return 8 if dtype == "pred" else 0
    bits = re.search(r"\d+", dtype)
    return int(bits.group()) if bits else 0


def _computations(text: str) -> tuple[dict[str, _Computation], str]:
    """Return all computations by name, and the entry's."""
    found: dict[str, _Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = found[header.group(2)] = _Computation()
            entry = header.group(2) if header.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            instruction = _instruction(match, line)
            current.instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("not the text of a compiled program: it has no entry")
    return found, entry


def _instruction(match: re.Match[str], line: str) -> _Instruction:
    rest = line[match.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    types, rest = rest[:end], rest[end:].lstrip()
    begin = rest.index("(")
    close = _closing(rest, begin)
    opcode, inside, attributes = rest[:begin], rest[begin + 1 : close], rest[close + 1 :]
    arrays = tuple(
        Array(dtype, tuple(int(n) for n in shape.split(",") if n))
        for dtype, shape in _ARRAY.findall(types)
    )
    number = int(inside) if opcode == "parameter" else None
    operands = _NAME.findall(inside)
    return _Instruction(
        match.group(2), opcode, arrays, operands, attributes, bool(match.group(1)), number
    )


def _closing(text: str, begin: int) -> int:
    """Return where the bracket that opens at `begin` closes."""
    depth = 0
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ValueError(f"an instruction is cut short: {text[:80]}")


def _running(name: str, computations: Mapping[str, _Computation], times: int) -> list[Kernel]:
    """Return the kernels of a computation, and of what it calls, that run `times` times."""
    computation = computations[name]
    found: list[Kernel] = []
    begun: dict[str, int] = {}  # collectives under way: their places in `found`
    for instruction in computation.instructions.values():
        starts, ends = _collective_ends(instruction, computations)
        if ends:
            at = next((begun[name] for name in ends if name in begun), None)
            if at is not None:
                between = [kernel for kernel in found[at + 1 :] if kernel.kind != COLLECTIVE]
                found[at] = found[at]._replace(beside=_total(between, times))
                begun[instruction.name] = at
        elif instruction.opcode not in _FREE:
            ran = list(_of_an_instruction(instruction, computation, computations, times))
            if starts and ran[0].kind == COLLECTIVE:
                begun[starts] = len(found)
            found += ran
    return found


def _collective_ends(
    instruction: _Instruction, computations: Mapping[str, _Computation]
) -> tuple[str | None, list[str]]:
    """Return the name of what an instruction starts, and the names of what it may end or go on."""
    if instruction.opcode.endswith(("-done", "-update")):
        return None, instruction.operands
    if instruction.opcode.endswith("-start"):
        return instruction.name, []
    called = _CALLED.search(instruction.rest) if instruction.opcode == "fusion" else None
    inner = computations.get(called.group(1)) if called else None
    if inner is None or "custom-call" not in inner.opcodes:
        return None, []
    text = " ".join(each.rest for each in inner.instructions.values())
    chain = "chain " + "".join(_CHAIN.findall(text)[:1])
    return (
        chain if _CHAIN_STARTS in text else None,
        [chain] if _CHAIN_ENDS in text else [],
    )


def _of_an_instruction(
    instruction: _Instruction,
    around: _Computation,
    computations: Mapping[str, _Computation],
    times: int,
) -> Iterable[Kernel]:
    """Return the kernels that an instruction is, or that the computation runs which it calls."""
    called = _CALLED.search(instruction.rest)
    if instruction.opcode == "while":
        trips = _TRIPS.search(instruction.rest)
        again = times * (int(trips.group(1)) if trips else 1)
        return _running(called.group(1), computations, again) if called else []
    if instruction.opcode == "conditional":
        branches = [
            branch
            for many, one in _BRANCHES.findall(instruction.rest)
            for branch in (_NAME.findall(many) if many else [one])
        ]
        each = [_running(branch, computations, times) for branch in branches]
        return max(each, key=lambda ran: sum(kernel.bytes for kernel in ran), default=[])
    if instruction.opcode == "call":
        return _running(called.group(1), computations, times) if called else []
    return [_kernel(instruction, around, computations, times)]


def _kernel(
    instruction: _Instruction,
    around: _Computation,
    computations: Mapping[str, _Computation],
    times: int,
) -> Kernel:
    called = _CALLED.search(instruction.rest)
    inner = computations.get(called.group(1)) if called else None
    arguments = [
        sum(array.bytes for array in around.instructions[name].results)
        for name in instruction.operands
        if name in around.instructions
    ]
    results = instruction.results
    if products.LIBRARY.search(instruction.rest):
        results = tuple(array for array in results if not _is_workspace(array))
    read, written = sum(arguments), sum(array.bytes for array in results)
    if instruction.opcode == "fusion" and inner is not None:
        read, written = _of_a_fusion(inner, arguments, written)
    elif _STARTS.match(instruction.opcode):
        written = max(written - read, 0)
    return Kernel(
        instruction.name,
        _kind(instruction, inner),
        read,
        written,
        times,
        results,
        _flops(instruction, around, computations),
    )


def _flops(
    instruction: _Instruction, around: _Computation, computations: Mapping[str, _Computation]
) -> float:
    """Return the operations of an instruction's products, those within a fusion too."""
    called = _CALLED.search(instruction.rest)
    if instruction.opcode == "fusion" and called and called.group(1) in computations:
        inner = computations[called.group(1)]
        return sum(_flops(each, inner, computations) for each in inner.instructions.values())
    shapes = [
        around.instructions[name].results[0].shape
        for name in instruction.operands
        if name in around.instructions and around.instructions[name].results
    ]
    result = instruction.results[0].shape if instruction.results else ()
    return products.flops(instruction.opcode, shapes, result, instruction.rest)


def _is_workspace(array: Array) -> bool:
    """Return True for a library's result that is memory to work in: bytes of no shape."""
    return array.dtype in ("u8", "s8") and len(array.shape) == 1


def _of_a_fusion(inner: _Computation, arguments: list[int], written: int) -> tuple[int, int]:
    """Return the bytes that a fusion reads and writes."""
    taken = list(arguments)
    for instruction in inner.instructions.values():
        if instruction.parameter is None or instruction.parameter >= len(taken):
            continue
        users = inner.users(instruction.name)
        if users and all(user.opcode in _SLICES for user in users):
            slices = sum(array.bytes for user in users for array in user.results)
            taken[instruction.parameter] = min(taken[instruction.parameter], slices)
        updates = [user for user in users if user.opcode == "dynamic-update-slice"]
        if len(users) == len(updates) == 1 and users[0].operands[0] != users[0].operands[1]:
            whole = sum(array.bytes for array in users[0].results)
            update = inner.instructions.get(users[0].operands[1])
            if taken[instruction.parameter] == whole and update is not None:
                taken[instruction.parameter] = 0
                written += sum(array.bytes for array in update.results) - whole
    return sum(taken), max(written, 0)


def _kind(instruction: _Instruction, inner: _Computation | None) -> str:
    """Return what a kernel mainly does."""
    opcode = instruction.opcode
    inside = {opcode} if inner is None else inner.opcodes | {opcode}
    sent = {op for op in inside if op.startswith(_COLLECTIVES)}
    called = _CALLED.search(instruction.rest)
    if called and called.group(1).startswith(_BESIDE_A_COLLECTIVE):
        inside -= sent
    elif sent:
        return COLLECTIVE
    library = products.LIBRARY.search(instruction.rest)
    if library:
        return next((k for word, k in _LIBRARIES.items() if word in library.group(1)), OTHER)
    if "convolution" in inside:
        return CONVOLUTION
    if "dot" in inside:
        return PRODUCT
    if inside & {"reduce", "reduce-window"}:
        return REDUCTION
    if inside & {"sort", "scatter", "rng-bit-generator", "custom-call", "infeed", "outfeed"}:
        return OTHER
    moves = {"copy", "transpose", "bitcast", "parameter", "fusion", "reshape", "copy-start"}
    return COPY if inside <= moves | {"tuple", "get-tuple-element"} else ELEMENTWISE
