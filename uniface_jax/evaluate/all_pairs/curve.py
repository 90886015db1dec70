"""ROC, area and histogram of all pairs, from the scores and counts that their search has kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uniface_jax.evaluate.all_pairs.largest import LOWEST
from uniface_jax.evaluate.all_pairs.search import Search, rank_of_far
from uniface_jax.evaluate.metrics.roc import OperatingPoint, Roc

COMPLETE_SCORES = 1 << 20  # up to this many, a curve has a point for each of them
_POINTS = 1000  # of each range of scores that were kept, where it is not complete
_MIN_SAMPLE_RANK = 100  # ranks in the sample from which it estimates a FAR: to a tenth of it
_BINS = np.linspace(-1.0, 1.0, 401)


@dataclass(frozen=True, eq=False)
class ScoreHistogram:
    """edges: float64 [K+1]. same, different: int64 [K], scores in each bin; the last one closed.

    different_pairs: how many different pairs were binned, a random sample where it is not all.
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray
    different_pairs: int


@dataclass(frozen=True, eq=False)
class Line:
    """A ROC to draw: far, tar, float64 [K] rising.

    exact: bool [K], False where far is estimated from a sample of the different pairs.
    """

    far: np.ndarray
    tar: np.ndarray
    exact: np.ndarray


def point_at(search: Search, same: np.ndarray, far: float) -> OperatingPoint:
    """Return the point of largest TAR with FAR <= far. same: the scores of same pairs, rising."""
    total = search.total
    allowed = rank_of_far(far, total)
    if allowed == total:
        rejected, false_accepts = -np.inf, total
    else:
        first_rejected = search.statistic(allowed)
        assert first_rejected is not None  # passes continue until it is
        rejected, false_accepts = float(first_rejected.value), first_rejected.larger
    accepted_from = int(np.searchsorted(same, rejected, side="right"))
    thresholds = [float(score) for score in same[accepted_from : accepted_from + 1]]
    if false_accepts:
        last_accepted = search.statistic(false_accepts - 1)
        assert last_accepted is not None
        thresholds.append(float(last_accepted.value))
    true_accepts = len(same) - accepted_from
    return OperatingPoint(
        far=false_accepts / total,
        tar=true_accepts / len(same),
        threshold=min(thresholds, default=np.inf),
        true_accepts=true_accepts,
        false_accepts=false_accepts,
    )


def curve_of(search: Search, same: np.ndarray, points: Sequence[OperatingPoint]) -> Roc:
    """Return the ROC at every score where these are few, else at those that are known exactly."""
    everything = _all_scores(search)
    if everything is not None and len(everything) + len(same) <= COMPLETE_SCORES:
        thresholds = np.unique(np.concatenate([same, everything]))[::-1]
        false_accepts = _at_least(everything[::-1], thresholds)
    else:
        known = {float(edge): count for edge, count in search.counted() if np.isfinite(edge)}
        del known[float(LOWEST)]
        known |= {p.threshold: p.false_accepts for p in points if np.isfinite(p.threshold)}
        for before, falling in search.stored():
            if len(falling) == 0:
                continue
            # Of the least one kept, equal ones may have been dropped.
            complete = falling[falling > falling[-1]]
            values = complete[_spread(len(complete))]
            inside = same[np.searchsorted(same, falling[-1], side="right") :]
            inside = inside[inside <= falling[0]] if before else inside
            values = np.concatenate([values, inside[_spread(len(inside))]])
            counts = before + _at_least(falling[::-1], values)
            known |= {float(v): int(n) for v, n in zip(values, counts, strict=True)}
        lowest = min([float(same[0]), *known])
        known[np.nextafter(lowest, -np.inf)] = search.total
        thresholds = np.array(sorted(known, reverse=True))
        false_accepts = np.array([known[threshold] for threshold in thresholds])
    return Roc(
        thresholds=np.append(np.inf, thresholds.astype(np.float64)),
        true_accepts=np.append(0, _at_least(same, thresholds)),
        false_accepts=np.append(0, false_accepts),
    )


def area(search: Search, same: np.ndarray, curve: Roc) -> tuple[float, float]:
    """Return bounds of the area under the ROC, 0..1: equal where every score is known.

    Between two points that are known, the ROC may take any way that rises.
    """
    everything = _all_scores(search)
    if everything is not None:
        rising = everything[::-1]
        below = np.searchsorted(rising, same, side="left").sum(dtype=np.int64)
        up_to = np.searchsorted(rising, same, side="right").sum(dtype=np.int64)
        exact = (int(below) + int(up_to)) / (2 * len(same) * len(rising))
        return exact, exact
    steps = [int(step) for step in np.diff(curve.false_accepts)]
    low, high = (
        sum(n * int(t) for n, t in zip(steps, side, strict=True))
        / (curve.positives * curve.negatives)
        for side in (curve.true_accepts[:-1], curve.true_accepts[1:])
    )
    return low, high


def line_of(curve: Roc, same: np.ndarray, sample: np.ndarray) -> Line:
    """Return the curve with estimates between its points, by a sample, float32 [M] falling."""
    ranks = _spread(len(sample))
    ranks = ranks[ranks >= _MIN_SAMPLE_RANK]
    thresholds = sample[ranks].astype(np.float64)
    rising = curve.thresholds[:0:-1]  # without the first, +inf
    at = np.searchsorted(rising, thresholds, side="left")  # the first point of no smaller one
    at_least = np.append(curve.far[:0:-1], 0.0)[at]
    at_most = np.append(1.0, curve.far[:0:-1])[at]
    far = np.concatenate([curve.far, np.clip((ranks + 1) / len(sample), at_least, at_most)])
    tar = np.concatenate([curve.tar, _at_least(same, thresholds) / len(same)])
    exact = np.arange(len(far)) < len(curve.far)
    order = np.lexsort((tar, far))
    return Line(far[order], np.maximum.accumulate(tar[order]), exact[order])


def histogram_of(search: Search, same: np.ndarray, sample: np.ndarray) -> ScoreHistogram:
    """Return the histogram of all scores of same pairs, and of all or a sample of the others."""
    everything = _all_scores(search)
    different = sample if everything is None else everything
    return ScoreHistogram(_BINS, _binned(same), _binned(different), len(different))


def _all_scores(search: Search) -> np.ndarray | None:
    """Return all scores of different pairs, falling, where all were kept."""
    for before, falling in search.stored():
        if before == 0 and len(falling) == search.total:
            return falling
    return None


def _at_least(rising: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return how many of the rising scores are at least each threshold, int64."""
    return len(rising) - np.searchsorted(rising, thresholds, side="left")


def _spread(count: int) -> np.ndarray:
    """Return up to _POINTS numbers below count, dense where they are small, with the last."""
    return np.unique(np.geomspace(1, count, _POINTS).astype(int)) - 1 if count else np.arange(0)


def _binned(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(scores, _BINS[0], _BINS[-1])  # a cosine may round to a little beyond 1
    return np.histogram(clipped, _BINS)[0]
