"""TAR at FAR of resamples: of every resample its threshold, and the share of same pairs above it.

A different pair of two units is in a resample as often as both of them together: the product of
how often each was drawn. That counts chance of the pairs themselves three times, once with each
unit and once with both; the spread of FAR is brought back to what the units' numbers say (_spread).

Of different pairs only those near the top matter. Their scores are looked at between edges: all of
the scores near each target, or some of them, evenly by rank, where there are many.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from uniface_jax.evaluate.metrics.bootstrap import (
    DEFAULT,
    Resampling,
    Units,
    unit_table,
    weight_blocks,
)
from uniface_jax.evaluate.metrics.pair_totals import PairTotals

_EDGES = 512  # near one target
_WINDOW_DEVIATIONS = 6.0  # of the count of false accepts, on either side of a target
_BLOCK_ROWS, _BLOCK_NUMBERS = 1 << 12, 1 << 21  # pairs times resamples that are weighed at a time
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class UnitScores:
    """Scores of pairs and their units.

    Attributes:
        same: float [S], of all same pairs; -inf of one that no threshold accepts.
        same_units: int [S].
        different: float [D], of all different pairs, or of the highest ones.
        different_units: int [D, 2], or [D, 1] where a pair has one unit.
        totals: how many different pairs there are in all, between which units.
        units: what is drawn again.
    """

    same: np.ndarray
    same_units: np.ndarray
    different: np.ndarray
    different_units: np.ndarray
    totals: PairTotals
    units: Units


@dataclass(frozen=True, eq=False)
class TarReplicates:
    """Numbers of B resamples at T targets, float64 [B, T] each; nan where one has no pair.

    strict, nearest: TAR by both readings of roc.tar_at_far. threshold: the lowest score of a
    different pair that the strict reading accepts. far, tar: FAR and TAR at the threshold that all
    pairs together have by the strict reading.

    effect: [T], how many false accepts come at a time, on average: the variance of their number is
    so many times the one of a binomial number.
    """

    strict: np.ndarray
    nearest: np.ndarray
    threshold: np.ndarray
    far: np.ndarray
    tar: np.ndarray
    effect: Sequence[float]


@dataclass(frozen=True, eq=False)
class _Edges:
    """Scores of different pairs that are looked at, falling, float64 [E].

    different_bins: int [K], the first edge that each of the K highest different pairs reaches.
    counts: float64 [E], how many reach each edge. complete: True where all pairs reach the last.
    at: int [T], the last edge within each target, or -1. shrinkage, effect: float [T], see _spread.
    """

    values: np.ndarray
    different_bins: np.ndarray
    counts: np.ndarray
    complete: bool
    at: Sequence[int]
    shrinkage: Sequence[float]
    effect: Sequence[float]


def tar_replicates(
    scores: UnitScores, fars: Sequence[float], resampling: Resampling = DEFAULT
) -> TarReplicates:
    """Return TAR, threshold and FAR of each resample at each target FAR.

    Example:
        >>> from uniface_jax.evaluate.metrics.bootstrap import DEFAULT, pair_units
        >>> from uniface_jax.evaluate.metrics.pair_totals import ListedTotals
        >>> units, unit = pair_units(np.arange(40) % 2 == 0)
        >>> different = unit[1::2]
        >>> scores = UnitScores(
        ...     same=np.linspace(0.4, 0.9, 20), same_units=unit[::2],
        ...     different=np.linspace(0, 0.5, 20), different_units=different[:, None],
        ...     totals=ListedTotals(different, None, units.count), units=units,
        ... )
        >>> found = tar_replicates(scores, [0.1])
        >>> found.strict.shape, bool(0.7 < found.strict.mean() < 0.95)
        ((1000, 1), True)
    """
    scores = _highest(scores, max(fars))
    edges = _edges(scores, fars)
    reached = np.searchsorted(-edges.values, -scores.same, side="right")
    reached[np.isneginf(scores.same)] = len(edges.values) + 1
    shape = (len(edges.values) + 2, scores.units.count)
    same = unit_table(scores.same_units, reached, shape)
    parts = [
        _of_block(weights, scores, edges, same, fars)
        for weights in weight_blocks(scores.units, resampling)
    ]
    strict, nearest, threshold, far, tar = map(np.concatenate, zip(*parts, strict=True))
    return TarReplicates(strict, nearest, threshold, far, tar, edges.effect)


def _highest(scores: UnitScores, far: float) -> UnitScores:
    """Return the scores with their different pairs falling: all that FARs up to `far` may need."""
    wanted = min(2 * int(far * scores.totals.pairs) + 4096, len(scores.different))
    rows = np.arange(len(scores.different))
    if wanted < len(rows):
        rows = np.argpartition(scores.different, len(rows) - wanted)[len(rows) - wanted :]
    rows = rows[np.argsort(-scores.different[rows], kind="stable")]
    return UnitScores(
        np.asarray(scores.same, np.float64),
        scores.same_units,
        np.asarray(scores.different[rows], np.float64),
        scores.different_units[rows],
        scores.totals,
        scores.units,
    )


def _edges(scores: UnitScores, fars: Sequence[float]) -> _Edges:
    falling, total = scores.different, scores.totals.pairs
    ranks = []
    for far in fars:
        allowed = min(int(far * total * (1 + _ROUNDING)), len(falling) - 1)
        own = np.bincount(scores.different_units[: allowed + 1].ravel())
        reach = int(_WINDOW_DEVIATIONS * np.sqrt(np.sum(own.astype(np.float64) ** 2))) + 8
        first, last = max(0, allowed - reach), min(len(falling) - 1, allowed + reach)
        ranks += [np.linspace(first, last, _EDGES), np.arange(allowed - 1, allowed + 2)]
    chosen = np.clip(np.round(np.concatenate(ranks)), 0, len(falling) - 1).astype(np.int64)
    values = np.unique(falling[chosen])[::-1]
    bins = np.searchsorted(-values, -falling, side="left")
    counts = np.cumsum(np.bincount(bins, minlength=len(values))[: len(values)]).astype(np.float64)
    at = [
        int(np.searchsorted(counts / total, far * (1 + _ROUNDING), side="right")) - 1
        for far in fars
    ]
    accepted = [int(counts[edge]) if edge >= 0 else 0 for edge in at]
    shrinkage, effect = zip(*(_spread(scores, max(1, count)) for count in accepted), strict=True)
    return _Edges(values, bins, counts, bool(counts[-1] == total), at, shrinkage, effect)


def _spread(scores: UnitScores, accepted: int) -> tuple[float, float]:
    """Return two shares: of the resamples' deviation of FAR, and of a binomial's variance.

    With e the false accepts between two units less those expected, and g its sum over all pairs of
    a unit, the resamples' variance is sum g^2 + sum e^2: chance of a single e is in both g and in
    their product. Sum g^2 stands for the true one, in which it is once: a little much, as it should
    where units are few. The first share brings deviations to it, the second is what it is of
    `accepted`: how many false accepts come at a time.
    """
    totals = scores.totals
    own, far = totals.of_unit(), accepted / totals.pairs
    units = scores.different_units[:accepted].astype(np.int64)
    spread = np.bincount(units.ravel(), minlength=len(own)) - far * own
    of_units = max(float(np.sum(spread**2)), _ROUNDING)
    if units.shape[1] == 1:
        return 1.0, of_units / accepted
    first, second = units.T
    codes = np.minimum(first, second) * len(own) + np.maximum(first, second)
    codes, counts = np.unique(codes, return_counts=True)
    expected = totals.between(*np.divmod(codes, len(own)))
    of_pairs = float(
        np.sum(counts * (counts - 2 * far * expected)) + far**2 * totals.sum_of_squares()
    )
    # Where units are a part of those that are drawn, weights spread by so much less.
    share = of_units / (of_units + scores.units.share * max(0.0, of_pairs))
    return float(np.sqrt(share)), of_units / accepted


def _of_block(
    weights: np.ndarray, scores: UnitScores, edges: _Edges, same: csr_array, fars: Sequence[float]
) -> tuple[np.ndarray, ...]:
    """Return the numbers of TarReplicates, in their order, [b, T] each, of weights [units, b]."""
    false = np.cumsum(_accepted(weights, scores.different_units, edges), axis=0)
    true = np.cumsum(np.asarray(same @ weights, np.float64), axis=0)  # above each edge
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = false / scores.totals.weighted(weights)
        above = true[:-1] / true[-1]
    of_all = edges.counts / scores.totals.pairs
    if not edges.complete:
        above[-1] = above[-2]  # below the last edge nothing is known
    found: list[list[np.ndarray]] = [[], [], [], [], []]
    resample = np.arange(weights.shape[1])
    for far, shrinkage, at in zip(fars, edges.shrinkage, edges.at, strict=True):
        own = of_all[:, None] + shrinkage * (rates - of_all[:, None])
        accepted = _up_to(own, np.full(len(resample), far))
        later = np.minimum(accepted, len(own) - 1)
        rate = np.where(accepted > 0, own[accepted - 1, resample], 0.0)
        above_far = own[later, resample]
        nearer = np.where(
            above_far - far <= far - rate + _ROUNDING, _up_to(own, above_far), accepted
        )
        # Edges whose pairs are not in a resample have the FAR of those before.
        lowest = np.count_nonzero(own < rate * (1 - _ROUNDING), axis=0)
        undefined = np.isnan(own[-1])
        values = (
            above[accepted, resample],
            above[nearer, resample],
            edges.values[np.where(accepted > 0, lowest, 0)],
            own[at] if at >= 0 else np.zeros(len(resample)),
            above[at + 1],
        )
        for kept, value in zip(found, values, strict=True):
            kept.append(np.where(undefined, np.nan, value))
    return tuple(np.stack(kept, axis=1) for kept in found)


def _up_to(rates: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return how many of rates [E, b] are within limits [b], int [b]; nan is not."""
    count: np.ndarray = np.count_nonzero(rates <= limits * (1 + _ROUNDING), axis=0)
    return count


def _accepted(weights: np.ndarray, units: np.ndarray, edges: _Edges) -> np.ndarray:
    """Return how many different pairs each edge is the first of, of each resample, [E, b]."""
    known = int(np.searchsorted(edges.different_bins, len(edges.values)))
    bins, units = edges.different_bins[:known], units[:known]
    shape = (len(edges.values), weights.shape[1])
    if units.shape[1] == 1:
        table = unit_table(units[:, 0], bins, (shape[0], len(weights)))
        return np.asarray(table @ weights, np.float64)
    # Of a pair within one unit the other side is one that is always drawn once.
    drawn = np.append(weights, np.ones((1, shape[1]), np.float32), axis=0)
    first, second = units[:, 0], np.where(units[:, 0] == units[:, 1], len(weights), units[:, 1])
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_NUMBERS // shape[1]))

    def sums(start: int) -> tuple[np.ndarray, np.ndarray]:
        # Whole numbers below 2^24, which float32 adds up exactly in any order.
        part = slice(start, min(start + rows, known))
        begins = np.flatnonzero(np.diff(bins[part], prepend=-1))
        product = drawn[first[part]]
        product *= drawn[second[part]]
        return bins[part][begins], np.add.reduceat(product, begins, axis=0)

    found = np.zeros(shape)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for at, of_bins in pool.map(sums, range(0, known, rows)):
            found[at] += of_bins
    return found
