"""Intervals of all pairs of people, who are drawn again; of large sets by a part of their people.

Of a set with too many pairs to be held some people are looked at, but as many are drawn again as
the whole set has (the bag of little bootstraps): resamples spread as the whole set's would, and
their spread is put about the whole set's numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
from uniface_jax.evaluate.metrics.bootstrap import DEFAULT, PEOPLE, Resampling, Units
from uniface_jax.evaluate.metrics.identification_intervals import Resampled
from uniface_jax.evaluate.metrics.intervals import (
    BOOTSTRAP,
    FEW_ERRORS,
    Interval,
    effect_of_units,
    rate_interval,
    resampled_bounds,
)
from uniface_jax.evaluate.metrics.pair_intervals import tar_intervals
from uniface_jax.evaluate.metrics.pair_totals import CrossedTotals
from uniface_jax.evaluate.metrics.tar_replicates import TarReplicates, UnitScores, tar_replicates
from uniface_jax.evaluate.metrics.thresholds import resampling_record, too_few_pairs
from uniface_jax.evaluate.metrics.verification import normalize

MAX_PAIRS = 1 << 24  # that are held: 200 MB
_BLOCK_ROWS = 512


def all_pairs_intervals(
    images: LabeledFeatures,
    others: LabeledFeatures | None,
    metrics: Mapping[str, Any],
    resampling: Resampling = DEFAULT,
) -> Resampled:
    """Return pair_intervals.tar_intervals of engine.all_pairs.

    Beyond MAX_PAIRS pairs, a FAR at which a part of the people has too few false accepts has a note
    in the place of intervals.

    Args:
        images: features [N, D] and labels [N].
        others: as for all_pairs; both have labels.
        metrics: of engine.all_pairs_metrics.
        resampling: how often people are drawn.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(np.arange(20), 3)
        >>> features = rng.standard_normal((20, 8))[labels] + rng.standard_normal((60, 8)) / 2
        >>> point = {"tar": 0.9, "far": 0.1, "true_accepts": 54, "false_accepts": 171}
        >>> entry = {"far": 0.1, "resolvable": True, "strict": {**point, "threshold": 0.5}}
        >>> metrics = {"same": 60, "different": 1710, "tar_at_far": [entry]}
        >>> found = all_pairs_intervals(LabeledFeatures(features, labels), None, metrics)
        >>> found.intervals["count"], found.thresholds[0]["threshold_cosine"]
        (20, 0.5)
    """
    second = images if others is None else others
    labels = [np.asarray(side.labels) for side in (images, second)]
    names, codes = np.unique(np.concatenate(labels), return_inverse=True)
    people = [codes[: len(labels[0])], codes[len(labels[0]) :]]
    sizes = [np.bincount(side, minlength=len(names)) for side in people]
    chosen = _part(sizes, others is None)
    number = np.full(len(names), -1)
    number[chosen] = np.arange(len(chosen))
    rows = [np.flatnonzero(number[side] >= 0) for side in people]
    units = [
        np.asarray(normalize(side.features[of_side]), np.float32)
        for side, of_side in zip((images, second), rows, strict=True)
    ]
    looked_at = [number[side[of_side]] for side, of_side in zip(people, rows, strict=True)]
    scores = UnitScores(
        *_scores(units, looked_at, others is None),
        CrossedTotals(sizes[0][chosen], None if others is None else sizes[1][chosen]),
        Units(PEOPLE, (len(chosen),), None if len(chosen) == len(names) else (len(names),)),
    )
    if len(chosen) == len(names):
        return tar_intervals(metrics["tar_at_far"], scores, resampling)
    return _of_part(metrics, scores, resampling)


def _part(sizes: Sequence[np.ndarray], within: bool) -> np.ndarray:
    """Return the people who are looked at, int [n], rising: all, or some at random.

    sizes: int [people], how many images each has on either side.
    """
    order = np.random.default_rng(0).permutation(len(sizes[0]))
    first, second = (np.cumsum(side[order].astype(np.float64)) for side in sizes)
    pairs = first * second / (2 if within else 1)
    return np.sort(order[: max(2, int(np.searchsorted(pairs, MAX_PAIRS, side="right")))])


def _of_part(metrics: Mapping[str, Any], scores: UnitScores, resampling: Resampling) -> Resampled:
    """Return the intervals of a set from a part of its people, whose resamples are of them all."""
    targets = metrics["tar_at_far"]
    found = tar_replicates(scores, [entry["far"] for entry in targets], resampling)
    entries, thresholds, estimates, replicates = [], [], {}, {}
    for target, entry in enumerate(targets):
        far = {key: entry[key] for key in ("far", "resolvable")}
        cosine = {"threshold_cosine": entry["strict"]["threshold"]}
        false_accepts = entry["far"] * scores.totals.pairs
        if false_accepts < FEW_ERRORS * found.effect[target] or cosine["threshold_cosine"] is None:
            note = {"note": _too_few(entry, metrics["different"], scores.units)}
            entries.append({"far": entry["far"], **note})
            thresholds.append({**far, **cosine, **note})
            continue
        tar, limits, of_far = _intervals(
            entry["strict"], metrics, found, target, scores.units.fewest
        )
        entries.append({"far": entry["far"], "strict": {"tar": tar[0].summary(), "far": of_far}})
        thresholds.append(
            {**far, **cosine, "threshold_cosine_interval": limits, "far_interval": of_far}
        )
        name = f"TAR@FAR≤{entry['far']:g}"
        estimates[name], replicates[name] = entry["strict"]["tar"], tar[1]
    record = resampling_record(scores.units, resampling)
    return Resampled({**record, "tar_at_far": entries}, thresholds, estimates, replicates)


def _intervals(
    strict: Mapping[str, Any],
    metrics: Mapping[str, Any],
    found: TarReplicates,
    target: int,
    units: int,
) -> tuple[tuple[Interval, np.ndarray], dict[str, Any], dict[str, Any]]:
    """Return the intervals of TAR, with its resamples, of the threshold, and of FAR."""
    tar, at_one, threshold = (
        drawn[:, target] - np.nanmean(drawn[:, target]) + strict[key]
        for drawn, key in (
            (found.strict, "tar"), (found.tar, "tar"), (found.threshold, "threshold")
        )
    )  # fmt: skip
    hits, trials = strict["true_accepts"], metrics["same"]
    effect = effect_of_units(hits, trials, at_one)
    of_tar = rate_interval(hits, trials, np.clip(tar, 0, 1), units, effect)
    lower, upper = resampled_bounds(threshold, units)
    far = found.far[:, target] / np.nanmean(found.far[:, target]) * strict["far"]
    of_far = rate_interval(strict["false_accepts"], metrics["different"], far, units)
    limits = Interval(max(-1.0, lower), min(1.0, upper), BOOTSTRAP)
    return (of_tar, tar), limits.summary(), of_far.summary()


def _too_few(entry: Mapping[str, Any], different: int, units: Units) -> str:
    """Return why there is no interval at a FAR."""
    if not entry["resolvable"]:
        return too_few_pairs(entry["far"], different)
    return (
        f"no interval at FAR {entry['far']:g}: too few false accepts of the {units.count:,} people "
        f"of {sum(units.draws):,} who were looked at"
    )


def _scores(
    units: Sequence[np.ndarray], people: Sequence[np.ndarray], within: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return same scores [S], their people, different scores [D], and their people [D, 2].

    units: features of length 1, of both sides. within: the pairs are i < j of one side.
    """
    same, owners, different, both = [], [], [], []
    for start in range(0, len(units[0]), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        cosines = units[0][rows] @ units[1].T
        first, second = people[0][rows, None], people[1][None]
        equal = first == second
        counted = np.ones_like(equal)
        if within:
            counted = (
                np.arange(len(units[1]))[None] > np.arange(start, start + len(cosines))[:, None]
            )
        mated, apart = np.nonzero(equal & counted), np.nonzero(~equal & counted)
        same.append(cosines[mated])
        owners.append(people[0][rows][mated[0]])
        different.append(cosines[apart])
        ends = (people[0][rows][apart[0]], people[1][apart[1]])
        both.append(np.stack(ends, axis=1).astype(np.int32))
    joined = (np.concatenate(parts) for parts in (same, owners, different, both))
    return tuple(joined)  # type: ignore[return-value]
