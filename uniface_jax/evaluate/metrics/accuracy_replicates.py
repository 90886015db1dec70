"""Accuracy over folds of resamples: each chooses its thresholds anew."""

import numpy as np

from uniface_jax.data.formats.bin_pairs import FOLDS
from uniface_jax.evaluate.metrics.bootstrap import (
    DEFAULT,
    Resampling,
    Units,
    unit_table,
    weight_blocks,
)
from uniface_jax.evaluate.metrics.verification import DISTANCE_THRESHOLDS

_BLOCK_RESAMPLES = 128  # whose counts by fold and threshold are held at a time


def accuracy_replicates(
    distances: np.ndarray,
    same: np.ndarray,
    unit: np.ndarray,
    units: Units,
    resampling: Resampling = DEFAULT,
    folds: int = FOLDS,
) -> np.ndarray:
    """Return the mean accuracy over contiguous folds of each resample, float64 [B].

    As verification.ten_fold_accuracy, of pairs that stay in their folds: a fold in which a resample
    has no pair is left out of its mean.

    Args:
        distances: squared, float64 [P].
        same: bool [P].
        unit: int [P], the unit of each pair.
        units: what is drawn again.
        resampling: how often.
        folds: how many.

    >>> from uniface_jax.evaluate.metrics.bootstrap import DEFAULT, pair_units
    >>> same = np.arange(20) % 2 == 0
    >>> units, unit = pair_units(same)
    >>> float(accuracy_replicates(np.where(same, 0.5, 1.5), same, unit, units).mean())
    1.0
    """
    thresholds = len(DISTANCE_THRESHOLDS)
    fold = np.concatenate(
        [np.full(len(part), n) for n, part in enumerate(np.array_split(distances, folds))]
    )
    # The first threshold above a distance, from which on its pair is accepted.
    accepted = np.searchsorted(DISTANCE_THRESHOLDS, distances, side="right")
    cells = (folds, 2, thresholds + 1)
    column = np.ravel_multi_index((fold, np.asarray(same, np.int64), accepted), cells)
    table = unit_table(unit, column, (int(np.prod(cells)), units.count))
    found = []
    for weights in weight_blocks(units, resampling):
        for start in range(0, weights.shape[1], _BLOCK_RESAMPLES):
            drawn = np.ascontiguousarray(weights[:, start : start + _BLOCK_RESAMPLES])
            counts = np.cumsum((table @ drawn).reshape(*cells, -1), axis=2, dtype=np.float64)
            found.append(_mean_accuracy(counts))
    return np.concatenate(found)


def _mean_accuracy(counts: np.ndarray) -> np.ndarray:
    """Return the mean accuracy, [b], of counts accepted up to each threshold, [F, 2, T + 1, b]."""
    totals = counts[:, :, -1]  # [F, 2, b]
    correct = counts[:, 1, :-1] + totals[:, 0, None] - counts[:, 0, :-1]  # [F, T, b]
    best = np.argmax(correct.sum(axis=0) - correct, axis=1)[:, None]  # the first of several
    right = np.take_along_axis(correct, best, axis=1)[:, 0]
    sizes = totals.sum(axis=1)
    rates = np.divide(right, sizes, out=np.zeros_like(right), where=sizes > 0)
    mean: np.ndarray = rates.sum(axis=0) / np.count_nonzero(sizes, axis=0)
    return mean
