"""Intervals of what is measured on pairs: people are drawn again where known, else pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniface_jax.evaluate.metrics.accuracy_replicates import accuracy_replicates
from uniface_jax.evaluate.metrics.bootstrap import DEFAULT, PEOPLE, Resampling, Units, pair_units
from uniface_jax.evaluate.metrics.identification_intervals import Resampled
from uniface_jax.evaluate.metrics.intervals import rate_interval
from uniface_jax.evaluate.metrics.pair_totals import ListedTotals
from uniface_jax.evaluate.metrics.tar_replicates import TarReplicates, UnitScores, tar_replicates
from uniface_jax.evaluate.metrics.thresholds import resampling_record, tar_uncertainty


def scores_by_pairs(scores: np.ndarray, same: np.ndarray) -> tuple[UnitScores, np.ndarray]:
    """Return scores float [P] with the pairs as units, and the unit of each, int [P].

    same: bool [P].
    """
    units, unit = pair_units(same)
    different = unit[~same]
    totals = ListedTotals(different, None, units.count)
    return UnitScores(
        scores[same], unit[same], scores[~same], different[:, None], totals, units
    ), unit


def scores_by_people(
    scores: np.ndarray, same: np.ndarray, first: np.ndarray, second: np.ndarray
) -> UnitScores:
    """Return scores float [P] with people as units.

    Args:
        scores: [P].
        same: bool [P].
        first: int [P], the person on each pair's first side, numbered from 0.
        second: int [P], on the second side.
    """
    count = int(max(first.max(), second.max())) + 1
    different = np.stack([first[~same], second[~same]], axis=1)
    totals = ListedTotals(different[:, 0], different[:, 1], count)
    units = Units(PEOPLE, (count,))
    return UnitScores(scores[same], first[same], scores[~same], different, totals, units)


def tar_intervals(
    tar_at_far: Sequence[Mapping[str, Any]],
    scores: UnitScores,
    resampling: Resampling = DEFAULT,
) -> Resampled:
    """Return the intervals `tar_at_far` of TAR at FAR, and the thresholds.

    See thresholds.tar_uncertainty. tar_at_far: as verification.tar_summary gives it.
    """
    found = tar_replicates(scores, [entry["far"] for entry in tar_at_far], resampling)
    entries, thresholds = tar_uncertainty(tar_at_far, scores, found)
    record = resampling_record(scores.units, resampling)
    named = _named(tar_at_far, found)
    return Resampled(
        {**record, "tar_at_far": entries},
        thresholds,
        {name: estimate for name, (estimate, _) in named.items()},
        {name: replicates for name, (_, replicates) in named.items()},
    )


def _named(
    tar_at_far: Sequence[Mapping[str, Any]], found: TarReplicates
) -> dict[str, tuple[float, np.ndarray]]:
    """Return TAR and its resamples by the heads that TAR at FAR has in tables."""
    named = {}
    for column, entry in enumerate(tar_at_far):
        for reading, mark in (("strict", "≤"), ("nearest", "≈")):
            if entry["resolvable"] and reading in entry:
                replicates = getattr(found, reading)[:, column]
                named[f"TAR@FAR{mark}{entry['far']:g}"] = (entry[reading]["tar"], replicates)
    return named


def verification_intervals(
    metrics: Mapping[str, Any],
    scores: np.ndarray,
    distances: np.ndarray,
    same: np.ndarray,
    resampling: Resampling = DEFAULT,
) -> Resampled:
    """Return tar_intervals with `accuracy`, the interval of the mean accuracy over folds.

    Args:
        metrics: what verification.verification_metrics gives of the same pairs.
        scores: float [P], cosines.
        distances: float [P], squared distances.
        same: bool [P].
        resampling: how often pairs are drawn.
    """
    by_pairs, unit = scores_by_pairs(scores, same)
    found = tar_intervals(metrics["tar_at_far"], by_pairs, resampling)
    of_folds = metrics["accuracy"]["folds"]
    folds = len(of_folds)
    replicates = accuracy_replicates(distances, same, unit, by_pairs.units, resampling, folds)
    hits = sum(
        round(fold["accuracy"] * len(part))
        for fold, part in zip(of_folds, np.array_split(same, folds), strict=True)
    )
    interval = rate_interval(hits, len(same), replicates, by_pairs.units.count).summary()
    return Resampled(
        {**found.intervals, "accuracy": interval},
        found.thresholds,
        {f"{folds}-fold accuracy": hits / len(same), **found.estimates},
        {f"{folds}-fold accuracy": replicates, **found.replicates},
    )
