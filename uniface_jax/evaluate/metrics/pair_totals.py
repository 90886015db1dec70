"""Numbers of different pairs between units, and how many a resample has of them."""

from typing import Protocol

import numpy as np
from scipy.sparse import coo_array, csr_array

_EXACT_FLOAT32 = 1 << 20  # sums of weights times this stay whole in float32
_DENSE_SHARE = 1 / 8  # of cells that are filled, from which on a plain product is faster
_MAX_CELLS = 1 << 26  # of a table of all units by all units that is counted in


class PairTotals(Protocol):
    """Numbers of different pairs, by their two units; of the same unit twice, or of one, by it."""

    @property
    def pairs(self) -> int:
        """Return the number of pairs."""
        ...

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """Return the number of pairs of each resample, float64 [b], of weights [units, b]."""
        ...

    def of_unit(self) -> np.ndarray:
        """Return the number of pairs that each unit takes part in, float64 [units]."""
        ...

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the number of pairs of units first[i] and second[i], float64 [K]."""
        ...

    def sum_of_squares(self) -> float:
        """Return the sum over all two units of the square of their number of pairs."""
        ...


class ListedTotals:
    """Totals of pairs that a list names.

    first, second: int [D], the units of each pair; second None where a pair has one.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray | None, units: int) -> None:
        self.pairs = len(first)
        self._single = np.zeros(units)
        self._double: csr_array | None = None
        if second is None:
            self._single += np.bincount(first, minlength=units)
            return
        alone = first == second
        self._single += np.bincount(first[alone], minlength=units)
        low, high = np.minimum(first, second), np.maximum(first, second)
        codes, counts = _counted(low[~alone].astype(np.int64) * units + high[~alone], units**2)
        cells = np.divmod(codes, units)
        self._double = coo_array((counts.astype(np.float64), cells), (units, units)).tocsr()

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """Return the number of pairs of each resample, float64 [b], of weights [units, b]."""
        found: np.ndarray = np.einsum("u,ub->b", self._single, weights, dtype=np.float64)
        table = self._double
        if table is None or not table.nnz:
            return found
        if self.of_unit().max() < _EXACT_FLOAT32:
            table = table.astype(np.float32)
        else:
            weights = weights.astype(np.float64)
        units = len(weights)
        dense = table.nnz > _DENSE_SHARE * units**2
        product = (table.toarray() if dense else table) @ weights
        found += np.einsum("ub,ub->b", product, weights, dtype=np.float64)
        return found

    def of_unit(self) -> np.ndarray:
        """Return the number of pairs that each unit takes part in, float64 [units]."""
        if self._double is None:
            return self._single
        found: np.ndarray = self._single + self._double.sum(axis=0) + self._double.sum(axis=1)
        return found

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the number of pairs of units first[i] and second[i], float64 [K]."""
        found: np.ndarray = self._single[first].copy()
        apart = first != second
        if self._double is not None and apart.any():
            low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
            found[apart] = np.asarray(self._double[low, high]).ravel()
        return found

    def sum_of_squares(self) -> float:
        """Return the sum over all two units of the square of their number of pairs."""
        double = 0.0 if self._double is None else float(np.sum(self._double.data**2))
        return double + float(np.sum(self._single**2))


class CrossedTotals:
    """Totals of all pairs of images of different people, within one set or across two.

    first: int [units], how many images of the one set show each person; second: of the other set;
    None for the pairs within one.
    """

    def __init__(self, first: np.ndarray, second: np.ndarray | None = None) -> None:
        self._within = second is None
        self._first = np.asarray(first, np.float64)
        self._second = self._first if second is None else np.asarray(second, np.float64)
        self.pairs = int(self.weighted(np.ones((len(first), 1)))[0])

    def weighted(self, weights: np.ndarray) -> np.ndarray:
        """Return the number of pairs of each resample, float64 [b], of weights [units, b]."""
        drawn = weights.astype(np.float64)
        all_pairs = (self._first @ drawn) * (self._second @ drawn)
        found: np.ndarray = all_pairs - (self._first * self._second) @ drawn**2
        return found / 2 if self._within else found

    def of_unit(self) -> np.ndarray:
        """Return the number of pairs that each unit takes part in, float64 [units]."""
        first, second = self._first, self._second
        found: np.ndarray = first * (second.sum() - second)
        return found if self._within else found + second * (first.sum() - first)

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the number of pairs of units first[i] and second[i], float64 [K]."""
        found: np.ndarray = self._first[first] * self._second[second]
        if not self._within:
            found = found + self._first[second] * self._second[first]
        return np.where(first == second, 0.0, found)

    def sum_of_squares(self) -> float:
        """Return the sum over all two units of the square of their number of pairs."""
        a, b = self._first, self._second
        crossed = np.sum(a**2) * np.sum(b**2) - np.sum(a**2 * b**2)
        if self._within:
            return float(crossed / 2)
        # (a_i b_j + a_j b_i)^2 over i < j
        return float(crossed + np.sum(a * b) ** 2 - np.sum(a**2 * b**2))


def _counted(codes: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that occur, rising, and how often each does."""
    if cells > _MAX_CELLS:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes, minlength=1)
    found = np.flatnonzero(counts)
    return found, counts[found]
