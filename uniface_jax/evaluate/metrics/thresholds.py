"""Thresholds at FARs, and intervals of what is measured at them, for metrics.json."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np

from uniface_jax.evaluate.metrics.bootstrap import DEFAULT, PEOPLE, Resampling, Units
from uniface_jax.evaluate.metrics.intervals import (
    BOOTSTRAP,
    EXACT,
    FEW_ERRORS,
    LEVEL,
    Interval,
    effect_of_units,
    exact_binomial,
    quantile_ranks,
    rate_interval,
    resampled_bounds,
)
from uniface_jax.evaluate.metrics.tar_replicates import TarReplicates, UnitScores

_TAIL_SCORES = 20  # of different pairs, by which their tail is judged
Entry = dict[str, Any]


def resampling_record(units: Units, resampling: Resampling = DEFAULT) -> Entry:
    """Return what intervals were drawn of, for JSON.

    `level` is their probability, `units` "people" or "pairs", `count` how many of those there are,
    `resamples` how often they were drawn, with `seed`.
    """
    return {
        "level": LEVEL,
        "units": units.kind,
        "count": units.count,
        "resamples": resampling.resamples,
        "seed": resampling.seed,
    }


def too_few_pairs(far: float, different: int) -> str:
    """Return the note on a target FAR that `different` pairs cannot tell from 0.

    >>> too_few_pairs(1e-6, 3000)
    'too few pairs for FAR 1e-06: 3,000 different ones, where 1,000,000 are needed'
    """
    needed = ceil(round(1 / far, 6))
    return (
        f"too few pairs for FAR {far:g}: {different:,} different ones, where {needed:,} are needed"
    )


def tar_uncertainty(
    tar_at_far: Sequence[Mapping[str, Any]], scores: UnitScores, found: TarReplicates
) -> tuple[list[Entry], list[Entry]]:
    """Return the intervals of TAR at each FAR, and the threshold at each FAR with its own.

    Args:
        tar_at_far: as verification.tar_summary gives it; an entry may lack `nearest`.
        scores: of which it was counted.
        found: the resamples of the same targets.

    Returns:
        For JSON. First, of each target: `far`, and the intervals `tar` of each reading and, in
        `strict`, `far` of the FAR that its threshold has. Second: `far`, `resolvable`,
        `threshold_cosine` (null where no pair is accepted), `threshold_cosine_interval` and
        `far_interval`. Where there are too few pairs for a FAR, both have a `note` that says so.
    """
    entries, thresholds = [], []
    for target, entry in enumerate(tar_at_far):
        strict, far = entry["strict"], entry["far"]
        total, units = scores.totals.pairs, scores.units.fewest
        note = {} if entry["resolvable"] else {"note": too_few_pairs(far, total)}
        effect = max(1.0, found.effect[target])
        errors = _known_errors(strict["false_accepts"], effect, units)
        limits = _threshold_interval(
            strict, (far, effect), scores, found.threshold[:, target], errors
        )
        of_far = rate_interval(strict["false_accepts"], total, found.far[:, target], units)
        of_tar = {
            reading: _tar_interval(
                entry, reading, limits, scores, (drawn[:, target], found.tar[:, target]), errors
            )
            for reading, drawn in (("strict", found.strict), ("nearest", found.nearest))
            if reading in entry
        }
        readings = {reading: {"tar": tar.summary()} for reading, tar in of_tar.items()}
        readings["strict"]["far"] = of_far.summary()
        entries.append({"far": far, **readings, **note})
        thresholds.append(
            {
                "far": far,
                "resolvable": entry["resolvable"],
                "threshold_cosine": strict["threshold"],
                "threshold_cosine_interval": limits.summary(),
                "far_interval": of_far.summary(),
                **note,
            }
        )
    return entries, thresholds


def _known_errors(false_accepts: int, effect: float, units: int) -> int:
    """Return by how many false accepts a threshold's spread is known, or units if these are fewer.

    Not many of them widen percentiles as not many units do; of FEW_ERRORS, ranks say more.
    effect: how many come at a time.
    """
    errors = int(false_accepts / effect)
    return units if errors < FEW_ERRORS else min(units, errors)


def _tar_interval(
    entry: Mapping[str, Any],
    reading: str,
    limits: Interval,
    scores: UnitScores,
    replicates: tuple[np.ndarray, np.ndarray],
    errors: int,
) -> Interval:
    """Return the interval of a reading's TAR.

    Where few false accepts say what the threshold is, its limits and the error of TAR at one
    threshold are put together as errors that do not depend on each other, by their squares.

    limits: of the threshold. replicates: TAR [B] of each resample at its own threshold, and at the
    one of all pairs. errors: see _known_errors.
    """
    hits, trials, units = entry[reading]["true_accepts"], len(scores.same), scores.units.fewest
    effect = None
    if scores.units.kind == PEOPLE:
        effect = effect_of_units(hits, trials, replicates[1])
    if limits.method == BOOTSTRAP:
        return rate_interval(hits, trials, replicates[0], errors, effect)
    low, high = (
        np.count_nonzero(scores.same >= limit) / trials for limit in (limits.upper, limits.lower)
    )
    if not entry["resolvable"]:
        return Interval(0.0, exact_binomial(round(high * trials), trials)[1], EXACT)
    estimate, at_one = hits / trials, rate_interval(hits, trials, replicates[1], units, effect)
    lower = estimate - np.hypot(max(0.0, estimate - low), estimate - at_one.lower)
    upper = estimate + np.hypot(max(0.0, high - estimate), at_one.upper - estimate)
    return Interval(float(max(0.0, lower)), float(min(1.0, upper)), EXACT)


def _threshold_interval(
    strict: Mapping[str, Any],
    rate: tuple[float, float],
    scores: UnitScores,
    replicates: np.ndarray,
    errors: int,
) -> Interval:
    """Return the interval of the threshold that has a FAR among all pairs there could be.

    Of few false accepts, those that come at a time counted once, it reaches at least from one score
    to another by rank. rate: the FAR, and how many of its false accepts come at a time. errors: see
    _known_errors.
    """
    lower, upper = resampled_bounds(replicates, errors)
    (far, effect), total = rate, scores.totals.pairs
    few = strict["false_accepts"] < FEW_ERRORS * effect
    if few:
        fewest, most = quantile_ranks(ceil(total / effect), far)
        fewest, most = int(fewest * effect), min(ceil(most * effect), total)
        falling = highest(scores.different, most + 1)
        lower = min(float(falling[most]) if most < len(falling) else -1.0, _or(lower, np.inf))
        above = (
            falling[fewest - 1] if fewest else _above_all(scores.different, total * far / effect)
        )
        upper = max(float(above), _or(upper, -np.inf))
    estimate = strict["threshold"]
    if estimate is not None:
        lower, upper = min(_or(lower, estimate), estimate), max(_or(upper, estimate), estimate)
    return Interval(float(lower), float(upper), EXACT if few else BOOTSTRAP)


def _above_all(scores: np.ndarray, expected: float) -> float:
    """Return a cosine that the threshold is hardly above, though it may be above all scores.

    expected: how many scores are above it on average, below the 3.7 of which one is hardly missing.
    From the highest score on it goes as far as scores of that number lie apart from those of 3.7,
    where their tail is an exponential one; to 1 where less than one is expected.
    """
    falling = highest(scores, _TAIL_SCORES + 1)
    if expected < 1 or len(falling) <= 1:
        return 1.0
    scale = float(np.mean(falling[:-1]) - falling[-1])
    further = np.log(-np.log((1 - LEVEL) / 2) / expected)
    return float(min(1.0, falling[0] + scale * max(0.0, further)))


def _or(value: float, other: float) -> float:
    return other if np.isnan(value) else value


def highest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` highest values, falling; all where there are not more."""
    if count < len(values):
        values = np.partition(values, len(values) - count)[len(values) - count :]
    return np.sort(values)[::-1]
