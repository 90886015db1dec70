"""Bytes that a step works in on an accelerator, from its jaxpr, without any compiler.

Compilers for accelerators fuse what is done by element into what reads it. So an array is written
to memory where a product, a convolution, a loop or a collective takes or makes it, where it is a
sum, and where several take it that would otherwise read more to make it again. From there it lives
until its last reader, in the order of the program. tests/plan holds this against compilers.

XLA's compiler for TPUs does otherwise in what TPU below has: read from its assignment of buffers,
which `XLA_FLAGS=--xla_dump_to=FOLDER` writes.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jax.interpreters.partial_eval import dce_jaxpr

# An array with several readers is written where making it again would read this many times its
# bytes: one map and what belongs to its channels is read again, two maps are not.
REREAD = 1.5
LANES, SUBLANES = 128, 8  # of a TPU's tile
TABLE = 16 * 1024  # bytes that a TPU's compiler takes for the table of a kernel's results
SCALAR = 8  # bytes at most of what a TPU holds elsewhere

Size = Callable[[Any], int]

# Done by element, or by moving elements: made again by each reader.
_FUSED = frozenset(
    [
        "abs", "acos", "add", "add_any", "and", "asin", "atan", "atan2", "bitcast_convert_type",
        "broadcast_in_dim", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p",
        "cos", "cosh", "div", "dynamic_slice", "eq", "erf", "erf_inv", "erfc", "exp", "exp2",
        "expand_dims", "expm1", "floor", "ge", "gt", "imag", "integer_pow", "iota", "is_finite",
        "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter",
        "not", "optimization_barrier", "or", "pad", "pow", "real", "reduce_precision", "rem",
        "reshape", "rev", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic",
        "shift_right_logical", "sign", "sin", "sinh", "slice", "split", "sqrt", "square", "squeeze",
        "stop_gradient", "sub", "tan", "tanh", "transpose", "xor",
    ]
)  # fmt: skip
# What they take may be fused into them; what they make is written.
_READERS = frozenset(
    [
        "argmax", "argmin", "concatenate", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum",
        "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod",
        "reduce_sum", "reduce_window", "reduce_window_sum", "reduce_xor",
    ]
)  # fmt: skip
_SAME_BYTES = frozenset(["reshape", "squeeze", "expand_dims", "copy", "optimization_barrier"])
_PRODUCTS = frozenset(["dot_general", "conv_general_dilated"])  # never written over what they read
_INLINED = frozenset(
    [
        "checkpoint", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call",
        "custom_vjp_call_jaxpr", "jit", "pjit", "remat", "remat2", "shard_map",
    ]
)  # fmt: skip


def plain_bytes(aval: Any) -> int:
    """Return the bytes of an array as its elements take them."""
    return int(math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 4))


def tiled_bytes(aval: Any) -> int:
    """Return the bytes of an array in a TPU's memory, which holds tiles of 8 sublanes by 128 lanes.

    One axis is padded to whole lanes, and one to whole sublanes, or to a power of two below 8. In a
    map [B, S, S, C] these are channels and images, in the order that pads less. Else the last axis
    takes the lanes, or the first where the last is below 8, and the sublanes what is padded least.

    Example:
        >>> from jax import ShapeDtypeStruct
        >>> maps = [ShapeDtypeStruct((size, 56, 56, 64), "float32") for size in (64, 128)]
        >>> [tiled_bytes(x) / plain_bytes(x) for x in maps]  # 64 channels in lanes, 128 images
        [2.0, 1.0]
    """
    shape: tuple[int, ...] = aval.shape
    plain = plain_bytes(aval)
    if len(shape) < 2 or plain == 0:
        return plain
    last = len(shape) - 1
    if len(shape) == 4 and shape[1] == shape[2]:
        pairs = [(last, 0), (0, last)]
    else:
        lanes = [last, 0] if shape[-1] < SUBLANES else [last]
        pairs = [(lane, sub) for lane in lanes for sub in range(len(shape)) if sub != lane]
    padding = min(
        _padded(shape[lane], LANES) / shape[lane] * _padded(shape[sub], SUBLANES) / shape[sub]
        for lane, sub in pairs
    )
    return math.ceil(plain * padding)


def images_in_lanes(aval: Any) -> int:
    """Return the bytes of a map [B, ...] in a TPU's memory with its images in lanes."""
    images: int = aval.shape[0]
    return plain_bytes(aval) * _padded(images, LANES) // images


def _padded(size: int, tile: int) -> int:
    """Return the size of an axis in whole tiles; below 8, a power of two does."""
    if tile == SUBLANES and size < tile:
        return 1 << (size - 1).bit_length()
    return -(-size // tile) * tile


class Compiler(NamedTuple):
    """Hold what differs between compilers; as it is, XLA's for GPUs.

    size: of an array in memory. factors: True where products make their factors as they read them,
    so that what only they take is in no memory. slots: True where an array's place is given to
    others of other times as a whole, and is as large as the largest of them, else all places are
    as close as can be. grouped: of a map as convolutions of groups of several channels take and
    make it, in a layout of their own, where they do. table: bytes for each array, of the table of
    its kernel's results. on_chip: bytes beside the memory, for what lives shortest.
    """

    size: Size = plain_bytes
    factors: bool = False
    slots: bool = False
    grouped: Size | None = None
    table: int = 0
    on_chip: int = 0


GPU = Compiler()
TPU = Compiler(tiled_bytes, factors=True, slots=True, grouped=images_in_lanes, table=TABLE)


def working_bytes(jaxpr: Any, compiler: Compiler = GPU) -> int:
    """Return the most bytes that are held at once beside what the jaxpr takes and returns.

    Results are taken to be written over arguments, as a step's new state is over the old.
    """
    return _Program(jaxpr, compiler).most()


class _Node(NamedTuple):
    """Operation on arrays by their numbers; inner: bytes that it needs while it runs."""

    name: str
    takes: tuple[int, ...]
    makes: tuple[int, ...]
    inner: int


class _Array(NamedTuple):
    """Array in memory, from one operation's number to another's, both included."""

    size: int
    born: int
    dies: int


class _Program:
    """One jaxpr with all that it calls in its place: operations in order, arrays by number."""

    def __init__(self, jaxpr: Any, compiler: Compiler) -> None:
        self._compiler = compiler
        self._bytes: list[int] = []
        self._nodes: list[_Node] = []
        self._copies: dict[int, int] = {}  # by the arrays they are of
        jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)
        given = [self._new(x.aval) for x in (*jaxpr.constvars, *jaxpr.invars)]
        self._given = set(given)
        self._results = set(self._inline(jaxpr, given)) - self._given

    def most(self) -> int:
        """Return the most bytes that are held at once."""
        readers: dict[int, int] = defaultdict(int)
        taken_whole = set(self._results)
        for node in self._nodes:
            if self._compiler.factors and node.name in _PRODUCTS:
                continue
            for x in set(node.takes):
                readers[x] += 1
            if node.name not in _FUSED and node.name not in _READERS:
                taken_whole.update(node.takes)
        made_of = defaultdict(frozenset[int], {x: frozenset([x]) for x in self._given})
        reads, makes = [], []  # of each operation, the arrays in memory
        for node in self._nodes:
            sources = frozenset().union(*(made_of[x] for x in node.takes))
            written = []
            for x in node.makes:
                made_of[x] = sources
                if not self._is_fused(node, x, sources, readers[x], x in taken_whole):
                    written.append(x)
                    made_of[x] = frozenset([x])
            reads.append(sources if written else frozenset())
            makes.append(written)
        return self._peak(reads, makes)

    def _is_fused(
        self, node: _Node, x: int, sources: frozenset[int], readers: int, whole: bool
    ) -> bool:
        """Return True for an array that is in no memory of its own."""
        if node.name not in _FUSED:
            return False
        if node.name in _SAME_BYTES and len(sources) == 1 and node.takes[0] in sources:
            return True
        if whole:
            return False
        return readers < 2 or sum(self._bytes[s] for s in sources) < REREAD * self._bytes[x]

    def _peak(self, reads: Sequence[frozenset[int]], makes: Sequence[list[int]]) -> int:
        last = {x: at for at, sources in enumerate(reads) for x in sources}
        if self._compiler.slots:
            return self._slots(makes, last)
        outside = self._given | self._results
        live = most = 0
        for at, node in enumerate(self._nodes):
            new = [x for x in makes[at] if x not in outside]
            dying = [x for x in reads[at] if last[x] == at and x not in outside]
            more, free = 0, [] if node.name in _PRODUCTS else [self._bytes[x] for x in dying]
            for x in new:  # written over what is read for the last time, where that is as large
                if self._bytes[x] in free:
                    free.remove(self._bytes[x])
                else:
                    more += self._bytes[x]
            most = max(most, live + more + node.inner)
            live += sum(self._bytes[x] for x in new if x in last)
            live -= sum(self._bytes[x] for x in dying)
        return most

    def _slots(self, makes: Sequence[list[int]], last: Mapping[int, int]) -> int:
        """Return the bytes of all slots and tables."""
        outside = self._given | self._results
        arrays = [_Array(node.inner, at, at) for at, node in enumerate(self._nodes) if node.inner]
        arrays += [
            _Array(self._bytes[x], at, last.get(x, at))
            for at, made in enumerate(makes)
            for x in made
            if x not in outside
        ]
        tables = len(self._given) + sum(array.size > SCALAR for array in arrays)
        slots: list[tuple[int, list[_Array]]] = []
        for array in sorted(self._off_chip(arrays), key=lambda array: -array.size):
            for _, others in slots:
                if all(array.dies < x.born or array.born > x.dies for x in others):
                    others.append(array)
                    break
            else:
                slots.append((array.size, [array]))
        return sum(size for size, _ in slots) + self._compiler.table * tables

    def _off_chip(self, arrays: Sequence[_Array]) -> list[_Array]:
        """Return the arrays for which the chip has no room beside those that live shorter."""
        used, found = [0] * len(self._nodes), []
        for array in sorted(arrays, key=lambda array: array.dies - array.born):
            times = range(array.born, array.dies + 1)
            if array.size + max(used[at] for at in times) > self._compiler.on_chip:
                found.append(array)
                continue
            for at in times:
                used[at] += array.size
        return found

    def _copy(self, x: int, aval: Any) -> int:
        """Return the copy of an array for convolutions of groups, which is made where it is new."""
        if x not in self._copies:
            assert self._compiler.grouped
            self._bytes.append(self._compiler.grouped(aval))
            self._copies[x] = len(self._bytes) - 1
            self._nodes.append(_Node("copy to another layout", (x,), (self._copies[x],), 0))
        return self._copies[x]

    def _new(self, aval: Any) -> int:
        self._bytes.append(self._compiler.size(aval))
        return len(self._bytes) - 1

    def _inline(self, jaxpr: Any, given: Sequence[int]) -> list[int]:
        """Add what a jaxpr does to the operations, and return its results' numbers."""
        variables = [*jaxpr.constvars, *jaxpr.invars]
        numbers: dict[Any, int] = dict(zip(variables, given, strict=True))
        by_platform: set[Any] = set()

        def number(x: Any) -> int:
            return self._new(x.aval) if hasattr(x, "val") else numbers[x]

        for equation in jaxpr.eqns:
            name, takes = equation.primitive.name, [number(x) for x in equation.invars]
            if name == "platform_index":
                by_platform.update(equation.outvars)
            inner = _called(equation, by_platform)
            if inner is not None:
                operands = takes[1:] if name == "cond" else takes
                constants = [self._new(x.aval) for x in inner.constvars]
                makes = self._inline(inner, [*constants, *operands])
            else:
                makes = [self._new(x.aval) for x in equation.outvars]
                if self._compiler.grouped and _has_groups(equation):
                    takes = [
                        self._copy(x, variable.aval)
                        for x, variable in zip(takes, equation.invars, strict=True)
                    ]
                    self._bytes[makes[0]] += self._compiler.grouped(equation.outvars[0].aval)
                within = max(
                    (working_bytes(x, self._compiler) for x in _bodies(equation)), default=0
                )
                self._nodes.append(_Node(name, tuple(takes), tuple(makes), within))
            numbers.update(zip(equation.outvars, makes, strict=True))
        return [number(x) for x in jaxpr.outvars]


def _called(equation: Any, by_platform: set[Any]) -> Any | None:
    """Return the jaxpr that stands in an equation's place, if one does.

    Of jax.lax.platform_dependent that is the default.
    """
    name, parameters = equation.primitive.name, equation.params
    choice = equation.invars[0] if name == "cond" else None
    if choice is not None and not hasattr(choice, "val") and choice in by_platform:
        found = parameters["branches"][-1]
    elif name == "scan" and parameters["length"] == 1:  # compilers leave such a loop out
        found = parameters["jaxpr"]
    elif name in _INLINED:
        found = next(
            value for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if (value := parameters.get(key))
        )
    else:
        return None
    return getattr(found, "jaxpr", found)


def _has_groups(equation: Any) -> bool:
    """Return True for a convolution of groups of several channels each."""
    if equation.primitive.name != "conv_general_dilated":
        return False
    parameters, (images, _) = equation.params, (x.aval.shape for x in equation.invars)
    numbers = parameters["dimension_numbers"].lhs_spec
    groups = parameters["feature_group_count"], parameters["batch_group_count"]
    return any(
        1 < n < images[axis] for n, axis in zip(groups, (numbers[1], numbers[0]), strict=True)
    )


def _bodies(equation: Any) -> Iterator[Any]:
    """Return the jaxprs that run while an equation does: a loop's body, a choice's branches."""
    if equation.primitive.name in ("scan", "while", "cond"):
        for value in equation.params.values():
            for found in value if isinstance(value, tuple) else (value,):
                if hasattr(found, "eqns"):
                    yield getattr(found, "jaxpr", found)
