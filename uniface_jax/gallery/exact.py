"""Cosines to the last bit: what a search answers, whatever way found the rows."""

import math

import numpy as np

# By which a float64 product of vectors may differ from the exact one, relative to their lengths:
# far above D 2^-53 for any D that a gallery has.
_MARGIN = 1e-11


def cosines(query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the cosines of a query [D] and rows float32 [K, D], float64 [K].

    The sums are exact, and then rounded once: a row has the same cosine wherever it stands.
    """
    wide = np.asarray(query, np.float64)
    length = math.sqrt(math.fsum((wide * wide).tolist()))
    found = []
    for row in np.asarray(rows, np.float64):
        of_row = math.sqrt(math.fsum((row * row).tolist()))
        found.append(math.fsum((row * wide).tolist()) / (of_row * length))
    return np.clip(np.array(found, np.float64), -1, 1)


def nearest_of(
    query: np.ndarray, rows: np.ndarray, ids: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and the cosines of the k nearest of rows float32 [K, D], the nearest first.

    Rows of the same cosine come in the order of their ids, int64 [K]. Fewer rows than k give all.

    Example:
        >>> rows = np.array([[0, 2], [1, 0], [3, 0]], np.float32)
        >>> nearest_of(np.array([1.0, 0.0]), rows, np.array([5, 9, 7]), 2)[0].tolist()
        [7, 9]
    """
    if len(rows) > k:
        wide = np.asarray(rows, np.float64)
        about = wide @ query / (np.linalg.norm(wide, axis=1) * np.linalg.norm(query))
        kept = np.nonzero(about >= np.partition(about, -k)[-k] - _MARGIN)[0]
        rows, ids = rows[kept], ids[kept]
    found = cosines(query, rows)
    order = np.lexsort((ids, -found))[:k]
    return ids[order], found[order]
