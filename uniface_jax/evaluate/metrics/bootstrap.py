"""Bootstrap: rates of units that are drawn again, as numbers of times that each is drawn.

A unit is a person where it is known who is on the images, else a pair. No resample is made up: a
rate is a sum over units, weighed by how often each was drawn. Equal units and seed give equal
draws, so that the resamples of two models can be compared one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

PEOPLE, PAIRS = "people", "pairs"
_BLOCK_WEIGHTS = 1 << 24  # draws that are held at a time
_MAX_PAIRS = 1 << 13  # of a kind that are units of their own; more are drawn in groups


@dataclass(frozen=True)
class Resampling:
    """Number of resamples, and the seed of their draws."""

    resamples: int = 1000
    seed: int = 0


DEFAULT = Resampling()


@dataclass(frozen=True)
class Units:
    """Kind and number of what is drawn again.

    kind: PEOPLE or PAIRS. strata: how many units there are, each stratum drawn by itself; units
    count through all strata. drawn: how many are drawn of each stratum, where these are a part of a
    larger set; None draws as many as there are.
    """

    kind: str
    strata: tuple[int, ...]
    drawn: tuple[int, ...] | None = None

    @property
    def count(self) -> int:
        """Return the number of units in all strata."""
        return sum(self.strata)

    @property
    def share(self) -> float:
        """Return the share of the whole set's units that these are: 1, or less of a part."""
        return self.count / sum(self.draws)

    @property
    def draws(self) -> tuple[int, ...]:
        """Return how many units are drawn of each stratum."""
        return self.strata if self.drawn is None else self.drawn

    @property
    def fewest(self) -> int:
        """Return the number of units in the smallest stratum."""
        return min(self.strata)


def weight_blocks(units: Units, resampling: Resampling = DEFAULT) -> Iterator[np.ndarray]:
    """Yield how often each unit is drawn, float32 [units, b], for b resamples at a time.

    From each stratum as many are drawn as it has, or as `units.drawn` says, with replacement. The
    draws depend on those numbers, the number of the resample and the seed alone.

    >>> block, = weight_blocks(Units(PEOPLE, (5,)), Resampling(resamples=3))
    >>> block.shape, block.sum(axis=0)
    ((5, 3), array([5., 5., 5.], dtype=float32))
    """
    rng = np.random.default_rng(resampling.seed)
    size = max(1, min(resampling.resamples, _BLOCK_WEIGHTS // max(1, units.count)))
    for start in range(0, resampling.resamples, size):
        rows = min(size, resampling.resamples - start)
        drawn = np.empty((rows, units.count), np.float32)
        for row in drawn:
            begin = 0
            for stratum, count in zip(units.strata, units.draws, strict=True):
                draws = rng.integers(0, stratum, count)
                row[begin : begin + stratum] = np.bincount(draws, minlength=stratum)
                begin += stratum
        yield np.ascontiguousarray(drawn.T)


def pair_units(same: np.ndarray) -> tuple[Units, np.ndarray]:
    """Return the units of pairs of people who are not known: int [P], and their number.

    Same and different pairs are drawn by themselves. Where there are more than 8,192 of a kind,
    groups of them are drawn, which are as good: they are random, and many.

    Args:
        same: bool [P].

    >>> pair_units(np.array([True, False, True]))
    (Units(kind='pairs', strata=(2, 1), drawn=None), array([0, 2, 1]))
    """
    unit = np.empty(len(same), np.int64)
    strata: list[int] = []
    for kind in (same, ~same):
        rows = np.flatnonzero(kind)
        groups = min(len(rows), _MAX_PAIRS)
        if groups < len(rows):
            rows = rows[np.random.default_rng(0).permutation(len(rows))]
        unit[rows] = sum(strata) + np.arange(len(rows)) % max(1, groups)
        strata.append(groups)
    return Units(PAIRS, tuple(strata)), unit


def joined_people(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Return the person of each of `count` images or templates, int [count], numbered from 0.

    Two are of one person where a chain of same pairs, first[i] and second[i], int [S], joins them.

    >>> joined_people(np.array([0, 3]), np.array([2, 2]), 5)
    array([0, 1, 0, 0, 2])
    """
    pairs = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    labels: np.ndarray = connected_components(pairs, directed=False)[1].astype(np.int64)
    return labels


def unit_table(
    units: np.ndarray,
    columns: np.ndarray,
    shape: tuple[int, int],
    weights: np.ndarray | None = None,
) -> csr_array:
    """Return how many entries fall on each column and unit, a sparse float32 [columns, units].

    Args:
        units: int [N], the unit of each entry.
        columns: int [N], what is counted.
        shape: the numbers of columns and of units.
        weights: float [N]; None counts.
    """
    values = np.ones(len(units), np.float32) if weights is None else weights.astype(np.float32)
    table = coo_array((values, (columns, units)), shape=shape).tocsr()
    table.sum_duplicates()
    return table


def rate_replicates(
    hits: np.ndarray, trials: np.ndarray, units: Units, resampling: Resampling = DEFAULT
) -> np.ndarray:
    """Return the rates of each resample, float64 [B, K]; nan where it has no trial.

    Args:
        hits: [units, K], the hits of each unit: queries of a person whose mate has rank 1, say.
        trials: [units, K] or [units, 1], how many there are of each unit.
        units: what is drawn again.
        resampling: how often.

    >>> rates = rate_replicates(np.array([[1], [0]]), np.array([[1], [1]]), Units(PEOPLE, (2,)))
    >>> sorted(set(rates[:, 0].tolist()))
    [0.0, 0.5, 1.0]
    """
    hits, trials = (np.asarray(part, np.float64) for part in (hits, trials))
    found = []
    for weights in weight_blocks(units, resampling):
        # float64: sums of whole numbers, exact in any order.
        drawn = weights.T.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append((drawn @ hits) / (drawn @ trials))
    return np.concatenate(found)


def hits_by_unit(
    hits: Sequence[np.ndarray] | np.ndarray, unit: np.ndarray, count: int
) -> np.ndarray:
    """Return the sums of hits, K rows of bool [N], over each unit, float64 [count, K].

    >>> hits_by_unit([np.array([True, True, False])], np.array([0, 0, 1]), 2)
    array([[2.],
           [0.]])
    """
    return np.stack([np.bincount(unit, row, count) for row in hits], axis=1)
