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
from uniface_jax.evaluate.metrics.intervals import Interval, effect_of_units, rate_interval
from uniface_jax.evaluate.metrics.roc import Roc
from uniface_jax.evaluate.metrics.thresholds import too_few_pairs
from uniface_jax.evaluate.protocols.megaface.metrics import REPORTED_RANKS, MegaFace


def megaface_intervals(result: MegaFace, resampling: Resampling = DEFAULT) -> Resampled:
    """Return the intervals of ranks among each number of distractors, and of TAR.

    `ranks` are those among all distractors, `identification` has them for each number. A
    threshold's interval has those scores as its ends that as many pairs reach as the ends of the
    interval of its FAR say (Woodruff 1952); `tar_at_far` is of TAR with that threshold's error.
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
    fars = _far_intervals(result, resampling)
    for point, rates, far in zip(points, drawn.T, fars, strict=True):
        cosine = point.strict.threshold if np.isfinite(point.strict.threshold) else None
        threshold: dict[str, Any] = {
            "far": point.target,
            "resolvable": point.resolvable,
            "threshold_cosine": cosine,
        }
        limits = threshold_interval(result.verification.curve, point.strict.threshold, far)
        threshold["threshold_cosine_interval"] = limits.summary()
        threshold["far_interval"] = far.summary()
        if not point.resolvable:
            note = {"note": too_few_pairs(point.target, result.verification.negatives)}
            entries.append({"far": point.target, **note})
            thresholds.append({**threshold, **note})
            continue
        hits, pairs = point.strict.true_accepts, result.verification.positives
        effect = effect_of_units(hits, pairs, rates)
        interval = rate_interval(hits, pairs, rates, units.fewest, effect)
        interval = _with_error_of_threshold(interval, point.strict.tar, limits, result.mate_scores)
        of_point = {"tar": interval.summary(), "far": far.summary()}
        entries.append({"far": point.target, "strict": of_point})
        thresholds.append(threshold)
        name = f"TAR@FAR≤{point.target:g}"
        estimates[name], replicates[name] = point.strict.tar, rates
    return entries, thresholds, estimates, replicates


def _far_intervals(result: MegaFace, resampling: Resampling) -> list[Interval]:
    """Return the interval of the FAR that each threshold has; the probes' people are drawn."""
    people, total = result.probe_people, result.verification.negatives
    units = Units(PEOPLE, (int(people.max()) + 1,))
    hits = np.zeros((units.count, result.false_accepts.shape[1]))
    np.add.at(hits, people, result.false_accepts)
    trials = np.bincount(people)[:, None] * result.distractors
    found = []
    drawn = rate_replicates(hits, trials, units, resampling)
    for point, rates in zip(result.verification.points, drawn.T, strict=True):
        accepts = point.strict.false_accepts
        effect = effect_of_units(accepts, total, rates)
        found.append(rate_interval(accepts, total, rates, units.fewest, effect))
    return found


def threshold_interval(curve: Roc, threshold: float, far: Interval) -> Interval:
    """Return the interval of a threshold: from the score of its FAR's upper end to the lower's.

    Where no score with just that FAR is known, the next one further out is taken; 1 where there is
    none above.

    Args:
        curve: of which points are known.
        threshold: infinite where no pair is accepted.
        far: the interval of its FAR.

    >>> curve = Roc(np.array([np.inf, 0.9, 0.5, 0.2]), np.zeros(4), np.array([0, 1, 2, 4]))
    >>> threshold_interval(curve, 0.5, Interval(0.3, 0.75, "bootstrap"))
    Interval(lower=0.2, upper=0.9, method='bootstrap')
    """
    below = np.searchsorted(curve.far, far.upper, side="left")
    above = np.searchsorted(curve.far, far.lower, side="right") - 1
    lower = float(curve.thresholds[min(int(below), len(curve.far) - 1)])
    upper = float(curve.thresholds[int(above)])
    return Interval(
        min(lower, threshold, 1.0), max(min(upper, 1.0), min(threshold, 1.0)), far.method
    )


def _with_error_of_threshold(
    at_one: Interval, tar: float, limits: Interval, mates: np.ndarray
) -> Interval:
    """Return the interval of TAR of which `at_one` is the one at a threshold without an error.

    Both errors are taken not to depend on each other. limits: of the threshold; mates: float [Q],
    the scores of same pairs.
    """
    low, high = (float(np.mean(mates >= limit)) for limit in (limits.upper, limits.lower))
    lower = tar - np.hypot(max(0.0, tar - low), tar - at_one.lower)
    upper = tar + np.hypot(max(0.0, high - tar), at_one.upper - tar)
    return Interval(float(max(0.0, lower)), float(min(1.0, upper)), at_one.method)
