"""Intervals of MegaFace: the people of the probes are drawn again, distractors stay as they are."""

from typing import Any

import numpy as np

from uniface_jax.evaluate.metrics.bootstrap import (
    DEFAULT,
    PEOPLE,
    Resampling,
    Units,
    hits_by_unit,
    rate_replicates,
)
from uniface_jax.evaluate.metrics.identification_intervals import Resampled, rank_intervals
from uniface_jax.evaluate.metrics.intervals import effect_of_units, rate_interval
from uniface_jax.evaluate.metrics.thresholds import too_few_pairs
from uniface_jax.evaluate.protocols.megaface.metrics import REPORTED_RANKS, MegaFace


def megaface_intervals(result: MegaFace, resampling: Resampling = DEFAULT) -> Resampled:
    """Return the intervals of ranks among each number of distractors, and of TAR.

    `ranks` are those among all distractors, `identification` has them for each number, and
    `tar_at_far` TAR at the threshold that was found: its own error is not in it.
    """
    of_sizes = [
        rank_intervals(_closed_set(ranks, cmc.distractors), ranks, result.people, resampling)
        for cmc, ranks in zip(result.cmc, result.ranks, strict=True)
    ]
    last = of_sizes[-1]
    tars, thresholds, estimates, replicates = _tar(result, resampling)
    intervals = {
        **last.intervals,
        "identification": [
            {"distractors": cmc.distractors, "ranks": found.intervals["ranks"]}
            for cmc, found in zip(result.cmc, of_sizes, strict=True)
        ],
        "tar_at_far": tars,
    }
    return Resampled(
        intervals, thresholds, {**last.estimates, **estimates}, {**last.replicates, **replicates}
    )


def _closed_set(ranks: np.ndarray, distractors: int) -> dict[str, Any]:
    """Return what identification.closed_set says of the ranks [Q] that are reported."""
    shown = [rank for rank in REPORTED_RANKS if rank <= distractors + 1]
    hits = [int(np.count_nonzero(ranks <= rank)) for rank in shown]
    return {"ranks": [{"rank": rank, "hits": n} for rank, n in zip(shown, hits, strict=True)]}


def _tar(
    result: MegaFace, resampling: Resampling
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, float], dict[str, np.ndarray]]:
    """Return intervals, thresholds, estimates and resamples of TAR at each FAR."""
    points = result.verification.points
    names, unit = np.unique(result.people, return_inverse=True)
    units = Units(PEOPLE, (len(names),))
    accepted = [result.mate_scores >= point.strict.threshold for point in points]
    trials = np.bincount(unit, minlength=len(names))[:, None]
    drawn = rate_replicates(hits_by_unit(accepted, unit, len(names)), trials, units, resampling)
    entries, thresholds, estimates, replicates = [], [], {}, {}
    for point, rates in zip(points, drawn.T, strict=True):
        cosine = point.strict.threshold if np.isfinite(point.strict.threshold) else None
        threshold: dict[str, Any] = {
            "far": point.target,
            "resolvable": point.resolvable,
            "threshold_cosine": cosine,
        }
        if not point.resolvable:
            note = {"note": too_few_pairs(point.target, result.verification.negatives)}
            entries.append({"far": point.target, **note})
            thresholds.append({**threshold, **note})
            continue
        hits, pairs = point.strict.true_accepts, result.verification.positives
        effect = effect_of_units(hits, pairs, rates)
        interval = rate_interval(hits, pairs, rates, units.fewest, effect)
        entries.append({"far": point.target, "strict": {"tar": interval.summary()}})
        thresholds.append(threshold)
        name = f"TAR@FAR≤{point.target:g}"
        estimates[name], replicates[name] = point.strict.tar, rates
    return entries, thresholds, estimates, replicates
