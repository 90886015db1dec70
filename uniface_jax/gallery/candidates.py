"""Candidates of one segment, by codes or by float32 products, and which of them are ranked."""

import itertools

import numpy as np

from uniface_jax.gallery import approximate
from uniface_jax.gallery.segment import Segment
from uniface_jax.native import nearest

METHODS = ("int8", "float32", "approximate")
_TILE = 1 << 13  # rows of a float32 product


def candidates_of(segment: Segment, units: np.ndarray, k: int, method: str) -> nearest.Candidates:
    """Return the rows of a segment that may be among the k nearest of unit vectors [Q, D]."""
    if method == "int8":
        return nearest.candidates(segment.codes, nearest.Queries.of(units), k)
    if method == "approximate":
        index = approximate.read_index(segment)
        if index is None:  # rows that were added since
            return nearest.candidates(segment.codes, nearest.Queries.of(units), k)
        return _indexed(segment, approximate.indexed_candidates(segment, index, units, k), k)
    return nearest.by_products(segment.features, segment.codes.errors, units, k, _TILE)


def by_query(part: nearest.Candidates, best: np.ndarray, queries: int) -> list[np.ndarray]:
    """Return the places of each query's candidates that reach `best`, in rising order."""
    kept = part.bounds >= best[part.queries]
    of, rows = part.queries[kept], part.rows[kept]
    order = np.lexsort((rows, of))
    ends = np.searchsorted(of[order], np.arange(queries + 1))
    return [rows[order][a:b] for a, b in itertools.pairwise(ends)]


def _indexed(segment: Segment, places: np.ndarray, k: int) -> nearest.Candidates:
    """Return places int64 [Q, M], -1 for none, as candidates that all are to be ranked."""
    of, column = np.nonzero(places >= 0)
    rows = places[of, column]
    kept = ~np.isnan(segment.codes.errors[rows])
    found = nearest.no_candidates(len(places), k)
    bounds = np.full(int(kept.sum()), np.inf, np.float32)
    return nearest.Candidates(of[kept].astype(np.int32), rows[kept], bounds, found.best)
