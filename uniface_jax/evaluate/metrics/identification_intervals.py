"""Intervals of identification, by drawing people again: of ranks, and of TPIR at FPIR."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from uniface_jax.evaluate.metrics.bootstrap import (
    DEFAULT,
    PEOPLE,
    Resampling,
    Units,
    hits_by_unit,
    rate_replicates,
)
from uniface_jax.evaluate.metrics.identification import Searches
from uniface_jax.evaluate.metrics.intervals import effect_of_units, rate_interval
from uniface_jax.evaluate.metrics.pair_totals import ListedTotals
from uniface_jax.evaluate.metrics.tar_replicates import UnitScores, tar_replicates
from uniface_jax.evaluate.metrics.thresholds import resampling_record, tar_uncertainty


class Resampled(NamedTuple):
    """Intervals and thresholds for JSON, and the resamples of what they are of.

    intervals: what was drawn (thresholds.resampling_record), and the intervals. thresholds: cosines
    at rates, with intervals. estimates: each number of the whole set, by its head in tables.
    replicates: its resamples, float64 [B].
    """

    intervals: dict[str, Any]
    thresholds: list[dict[str, Any]]
    estimates: dict[str, float]
    replicates: dict[str, np.ndarray]


def rank_intervals(
    closed: Mapping[str, Any],
    ranks: np.ndarray,
    people: np.ndarray,
    resampling: Resampling = DEFAULT,
) -> Resampled:
    """Return `ranks`: the interval of each `rate` of identification.closed_set.

    Args:
        closed: `mated` and `ranks`, a list of `rank`, `hits`, `rate`.
        ranks: int [mated], each mated probe's own rank.
        people: [mated], whose probe it is: numbers or strings.
        resampling: how often people are drawn.

    >>> closed = {"gallery": 9, "mated": 4, "ranks": [{"rank": 1, "hits": 4, "rate": 1.0}]}
    >>> found = rank_intervals(closed, np.ones(4, int), np.arange(4)).intervals
    >>> round(found["ranks"][0]["rate"]["lower"], 3), found["units"]
    (0.398, 'people')
    """
    names, unit = np.unique(people, return_inverse=True)
    units = Units(PEOPLE, (max(1, len(names)),))
    wanted = [entry["rank"] for entry in closed["ranks"]]
    hits = hits_by_unit([ranks <= rank for rank in wanted], unit, units.count)
    trials = np.bincount(unit, minlength=units.count)[:, None]
    found = rate_replicates(hits, trials, units, resampling).T
    entries = [
        {
            "rank": rank,
            "rate": rate_interval(
                entry["hits"],
                len(ranks),
                rates,
                units.fewest,
                effect_of_units(entry["hits"], len(ranks), rates),
            ).summary(),
        }
        for rank, entry, rates in zip(wanted, closed["ranks"], found, strict=True)
        if len(ranks)
    ]
    return Resampled(
        {**resampling_record(units, resampling), "ranks": entries},
        [],
        {f"rank {entry['rank']}": entry["hits"] / max(1, len(ranks)) for entry in closed["ranks"]},
        {f"rank {rank}": rates for rank, rates in zip(wanted, found, strict=True)},
    )


def open_set_intervals(
    open_set: Sequence[Mapping[str, Any]],
    found: Searches,
    mated: np.ndarray,
    unknown: np.ndarray,
    resampling: Resampling = DEFAULT,
) -> Resampled:
    """Return `open_set`: the intervals `tpir` and `fpir` at each `target`; and the thresholds.

    Args:
        open_set: what identification.open_set gives.
        found: of which it was counted.
        mated: [mated], whose probe each mated one is: numbers or strings.
        unknown: [unknown], whose probe each unknown one is.
        resampling: how often people are drawn.

    Returns:
        A threshold has `fpir`, `gallery` (of how many entries), `resolvable`, `threshold_cosine`,
        `threshold_cosine_interval` and `fpir_interval`.
    """
    scores = _search_scores(found, mated, unknown)
    targets = [entry["target"] for entry in open_set]
    replicates = tar_replicates(scores, targets, resampling)
    shared = tar_uncertainty([_as_tar(entry) for entry in open_set], scores, replicates)
    entries, thresholds = [], []
    for entry, tar, threshold in zip(open_set, *shared, strict=True):
        note = {} if entry["resolvable"] else {"note": _too_few(entry)}
        strict = tar["strict"]
        entries.append(
            {"target": entry["target"], "tpir": strict["tar"], "fpir": strict["far"], **note}
        )
        thresholds.append(
            {
                "fpir": entry["target"],
                "gallery": found.gallery,
                "resolvable": entry["resolvable"],
                "threshold_cosine": threshold["threshold_cosine"],
                "threshold_cosine_interval": threshold["threshold_cosine_interval"],
                "fpir_interval": strict["far"],
                **note,
            }
        )
    named = {
        f"TPIR@FPIR≤{entry['target']:g}": column
        for column, entry in enumerate(open_set)
        if entry["resolvable"]
    }
    return Resampled(
        {**resampling_record(scores.units, resampling), "open_set": entries},
        thresholds,
        {name: open_set[column]["tpir"] for name, column in named.items()},
        {name: replicates.strict[:, column] for name, column in named.items()},
    )


def _search_scores(found: Searches, mated: np.ndarray, unknown: np.ndarray) -> UnitScores:
    """Return what mated probes score, whose mate is first, and the best of each unknown one."""
    names, unit = np.unique(np.concatenate([mated, unknown]), return_inverse=True)
    units = Units(PEOPLE, (len(names),))
    different = unit[len(mated) :]
    return UnitScores(
        same=np.where(found.ranks == 1, found.mate_scores, -np.inf),
        same_units=unit[: len(mated)],
        different=found.best_scores,
        different_units=different[:, None],
        totals=ListedTotals(different, None, units.count),
        units=units,
    )


def _as_tar(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "far": entry["target"],
        "resolvable": entry["resolvable"],
        "strict": {
            "threshold": entry["threshold"],
            "true_accepts": entry["true_identifications"],
            "false_accepts": entry["false_identifications"],
        },
    }


def _too_few(entry: Mapping[str, Any]) -> str:
    return f"too few unknown probes for FPIR {entry['target']:g}: {entry['unknown']:,}"
