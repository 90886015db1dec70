"""Gallery rows that may be among the nearest of queries, by 8-bit codes of bounded error.

A unit vector x is coded as integers c, -127..127, and a scale s: x = s c + e, and |e|, its error,
is kept. For a query q = t d + f in the same form, x q is s t (c d) but for at most
|e| |q| + |f| |s c| <= |e| (|q| + |f|) + |f|. A row whose cosine is so at most `upper` and at least
`lower` can be left out where k others have a greater `lower` than its `upper`: no row of the true k
nearest, ties included, is lost.

The kernel is compiled where there is a compiler; the same in NumPy takes its place elsewhere.
"""

import ctypes
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from uniface_jax.native import build

BLOCK_ROWS, GROUP = 64, 4  # rows side by side, and dimensions of each together
_QUERIES = 6  # that the kernel takes at a time
_LEVELS = 127
MAX_WIDTH = 1 << 14  # at which sums of products are far from 32 bits
# Of rounding in float32, where cosines and bounds are computed: each is a few operations on numbers
# of at most 2.
_ROUNDING = 2e-6
_FOUND = 1 << 20  # rows that a thread notes before they are looked through
_TWIN_ROWS = 1 << 13


@dataclass(frozen=True)
class Codes:
    """Codes of N rows, in blocks of 64, the last one padded.

    packed: uint8 [blocks, ceil(D / 4), 64, 4], a code plus 128. scales: float32 [64 blocks], what a
    step is worth. errors: float32 [64 blocks], the length of what a code leaves, rounded up; nan
    for padding, and for rows that are to be left out.
    """

    packed: np.ndarray
    scales: np.ndarray
    errors: np.ndarray


@dataclass
class Candidates:
    """Rows that may be among the k nearest: query, row and the upper bound of each cosine, [M].

    best: float32 [Q, k], falling, the greatest lower bounds of cosines.
    """

    queries: np.ndarray
    rows: np.ndarray
    bounds: np.ndarray
    best: np.ndarray

    def pruned(self) -> "Candidates":
        """Return those that still may."""
        kept = self.bounds >= self.best[self.queries, -1]
        return Candidates(self.queries[kept], self.rows[kept], self.bounds[kept], self.best)


def no_candidates(queries: int, k: int) -> Candidates:
    """Return none, for a search to begin with."""
    best = np.full((queries, k), -np.inf, np.float32)
    return Candidates(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32), best)


def joined(parts: list[Candidates], k: int) -> Candidates:
    """Return the candidates of rows that were gone over apart."""
    best = np.sort(np.concatenate([part.best for part in parts], axis=1), axis=1)[:, : -k - 1 : -1]
    return Candidates(
        np.concatenate([part.queries for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.bounds for part in parts]),
        np.ascontiguousarray(best),
    ).pruned()


def coded(units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes int8 [N, D], scales float32 [N] and errors float32 [N] of unit vectors.

    Example:
        >>> codes, scales, errors = coded(np.array([[0.6, 0.8]]))
        >>> codes.tolist(), bool(abs(codes[0] * scales[0] - [0.6, 0.8]).max() < errors[0])
        ([[95, 127]], True)
    """
    units = np.asarray(units, np.float64)
    scales = (np.abs(units).max(1) / _LEVELS).astype(np.float32)
    by = scales.astype(np.float64)[:, None]
    codes = np.clip(np.rint(units / by), -_LEVELS, _LEVELS)
    errors = np.linalg.norm(units - codes * by, axis=1) * (1 + 1e-9) + 1e-12
    return codes.astype(np.int8), scales, np.nextafter(errors.astype(np.float32), np.float32(2))


def packed(codes: np.ndarray) -> np.ndarray:
    """Return codes int8 [N, D] in the blocks that the kernel takes, with zeros as padding."""
    count, width = codes.shape
    blocks, groups = -(-count // BLOCK_ROWS), -(-width // GROUP)
    padded = np.full((blocks * BLOCK_ROWS, groups * GROUP), 128, np.uint8)
    padded[:count, :width] = (codes.astype(np.int16) + 128).astype(np.uint8)
    by_block = padded.reshape(blocks, BLOCK_ROWS, groups, GROUP)
    return np.ascontiguousarray(by_block.transpose(0, 2, 1, 3))


def padded_to_blocks(values: np.ndarray, padding: float) -> np.ndarray:
    """Return float32 [N] with padding behind it, up to whole blocks."""
    return np.pad(
        values.astype(np.float32), (0, -len(values) % BLOCK_ROWS), constant_values=padding
    )


@dataclass(frozen=True)
class Queries:
    """Codes of Q unit vectors, and the bound of a cosine: a row's error * by_error + beyond."""

    codes: np.ndarray
    scales: np.ndarray
    by_error: np.ndarray
    beyond: np.ndarray

    @classmethod
    def of(cls, units: np.ndarray) -> "Queries":
        """Code unit vectors [Q, D]."""
        codes, scales, errors = coded(units)
        wide = np.zeros((len(codes), -(-codes.shape[1] // GROUP) * GROUP), np.int8)
        wide[:, : codes.shape[1]] = codes
        by_error = (1 + errors.astype(np.float64)) * (1 + 1e-6)
        return cls(
            wide, scales, by_error.astype(np.float32), errors * np.float32(1 + 1e-6) + _ROUNDING
        )


def candidates(codes: Codes, queries: Queries, k: int, threads: int = 0) -> Candidates:
    """Return the rows of `codes` that may be among the k nearest of each query.

    threads: 0 is one for each core.
    """
    blocks, library = len(codes.packed), build.library()
    if not blocks:
        return no_candidates(len(queries.codes), k)
    if library is None:
        return _twin(codes, queries, k)
    threads = min(threads or len(os.sched_getaffinity(0)), blocks)
    ends = np.linspace(0, blocks, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        work = [
            pool.submit(_Pass(library, codes, queries, k).over, begin, end)
            for begin, end in itertools.pairwise(ends)
        ]
        return joined([each.result() for each in work], k)


class _Arguments(ctypes.Structure):
    """UnifaceNearest of nearest.cc."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "scales", "errors")),
        ("groups", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("queries", "sums", "query_scales", "by_error")),
        ("beyond", ctypes.c_void_p),
        ("query_count", ctypes.c_int64),
        ("k", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("best", "found_queries", "found_rows")),
        ("found_bounds", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("found", ctypes.c_int64),
    )


class _Pass:
    """One thread's way over blocks of codes."""

    def __init__(self, library: ctypes.CDLL, codes: Codes, queries: Queries, k: int) -> None:
        self._walk = library.UnifaceNearestOfCodes
        self._walk.restype = ctypes.c_int64
        self._walk.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        self._count = len(queries.codes)
        missing = -self._count % _QUERIES
        capacity = max(_FOUND, 2 * (self._count + missing) * BLOCK_ROWS)
        # Kept here: the kernel has only their addresses. Queries that fill up find nothing.
        self._best = np.full((self._count + missing, k), -np.inf, np.float32)
        self._best[self._count :] = np.inf
        wide = np.pad(queries.codes, ((0, missing), (0, 0)))
        self._given = {
            "codes": codes.packed,
            "scales": codes.scales,
            "errors": codes.errors,
            "queries": wide,
            "sums": 128 * wide.sum(1, dtype=np.int32),
            "query_scales": np.pad(queries.scales, (0, missing)),
            "by_error": np.pad(queries.by_error, (0, missing)),
            "beyond": np.pad(queries.beyond, (0, missing)),
            "best": self._best,
            "found_queries": np.empty(capacity, np.int32),
            "found_rows": np.empty(capacity, np.int64),
            "found_bounds": np.empty(capacity, np.float32),
        }
        assert all(array.flags.c_contiguous for array in self._given.values())
        self._arguments = _Arguments(
            **{name: array.ctypes.data for name, array in self._given.items()},
            groups=wide.shape[1] // GROUP, query_count=len(wide), k=k, capacity=capacity, found=0,
        )  # fmt: skip

    def over(self, begin: int, end: int) -> Candidates:
        """Return the candidates of blocks `begin` to `end` - 1."""
        parts = [self._drained()]
        while begin < end:
            begin = int(self._walk(ctypes.addressof(self._arguments), begin, end))
            parts.append(self._drained())
        kept = Candidates(
            np.concatenate([part.queries for part in parts]),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.bounds for part in parts]),
            self._best[: self._count].copy(),
        )
        return kept.pruned()

    def _drained(self) -> Candidates:
        """Take what was found, less what has been outdone since."""
        found, self._arguments.found = self._arguments.found, 0
        names = ("found_queries", "found_rows", "found_bounds")
        queries, rows, bounds = (self._given[name][:found] for name in names)
        kept = bounds >= self._best[queries, -1]
        return Candidates(queries[kept], rows[kept], bounds[kept], self._best)


def _twin(codes: Codes, queries: Queries, k: int) -> Candidates:
    """Return what the kernel does, by products in floating point, which are exact."""
    groups = queries.codes.shape[1]
    exact = np.float32 if groups * _LEVELS**2 < 1 << 24 else np.float64
    wide = queries.codes.astype(exact)
    found = no_candidates(len(wide), k)
    for start, block in _plain_rows(codes.packed, exact):
        end = start + len(block)
        by = codes.scales[start:end] * queries.scales[:, None]
        cosines = (wide @ block.T).astype(np.float32) * by
        bounds = codes.errors[start:end] * queries.by_error[:, None] + queries.beyond[:, None]
        found = joined([found, _reaching(cosines + bounds, cosines - bounds, start, k)], k)
    return found


def _plain_rows(blocks: np.ndarray, exact: type) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of a first row, and the codes of rows from there on, [rows, D]."""
    step = _TWIN_ROWS // BLOCK_ROWS
    for start in range(0, len(blocks), step):
        some = blocks[start : start + step].transpose(0, 2, 1, 3)
        rows: np.ndarray = some.reshape(len(some) * BLOCK_ROWS, -1).astype(exact) - 128
        yield start * BLOCK_ROWS, rows


def by_products(
    features: np.ndarray, errors: np.ndarray, units: np.ndarray, k: int, tile: int
) -> Candidates:
    """Return the rows of features float32 [N, D] that may be among the k nearest of each query.

    By products in float32, whose rounding is bounded, `tile` rows at a time. errors: [>= N], nan
    leaves a row out; else not looked at. units: queries at length 1, [Q, D].
    """
    wide, found = units.astype(np.float32), no_candidates(len(units), k)
    # (1 + u)^(D + 3) - 1 for a sum of D rounded products in any order, of rounded factors.
    bound = np.float32((units.shape[1] + 3) * 2.0**-24 * 1.01 + _ROUNDING)
    for start in range(0, len(features), tile):
        rows: np.ndarray = np.asarray(features[start : start + tile])
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        scaled = (rows / lengths[:, None]).astype(np.float32)
        cosines = wide @ scaled.T
        cosines[:, np.isnan(errors[start : start + len(rows)])] = np.nan
        found = joined([found, _reaching(cosines + bound, cosines - bound, start, k)], k)
    return found


def _reaching(upper: np.ndarray, lower: np.ndarray, start: int, k: int) -> Candidates:
    """Return the rows, the first of which is `start`, whose upper bound reaches the k-th lower."""
    lower[np.isnan(lower)] = -np.inf
    padded = np.concatenate([np.full((len(lower), k), -np.inf, np.float32), lower], axis=1)
    best = np.sort(np.partition(padded, -k, axis=1)[:, -k:], axis=1)
    best = np.ascontiguousarray(best[:, ::-1])
    of, rows = np.nonzero(upper >= best[:, -1:])
    return Candidates(of.astype(np.int32), rows + start, upper[of, rows], best)
