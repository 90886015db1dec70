"""Protocol `rfw`: verification of four races, and how far apart the accuracies of races are."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.metrics.verification import pair_distances, ten_fold_accuracy
from uniface_jax.evaluate.protocols import verification
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results, SetResult
from uniface_jax.evaluate.sets.pair_sets import OpenedPairs
from uniface_jax.evaluate.sets.rfw_trees import RACES, open_rfw

ALL = "all races"
# TFace's evaluation searches squared distances, 0 to 4, with these: a pair whose cosine is below .5
# is never one of the same person.
TFACE_THRESHOLDS = np.arange(-1, 1, 0.001)


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate each race as a set, and race_summary of all four; every list is read first.

    `tface` of all races is the summary by TFace's thresholds, for comparison with its tables.
    """
    if len(parts.paths) != 1:
        raise UserError(f"--data: {len(parts.paths)} folders for rfw; expected one with all races")
    opened = open_rfw(parts.paths[0])
    results = {
        race: verification.opened_result(source, found, options) for race, found in opened.items()
    }
    means = {race: found.metrics["accuracy"]["mean"] for race, found in results.items()}
    tface = {race: _tface_accuracy(source, found) for race, found in opened.items()}
    return {**results, ALL: SetResult({**race_summary(means), "tface": race_summary(tface)})}


def _tface_accuracy(source: FeatureSource, opened: OpenedPairs) -> float:
    """Return the accuracy by TFace's thresholds, from the features that are kept by now."""
    pairs = opened.pairs
    listed = np.stack([pairs.first, pairs.second], axis=1).ravel()
    features = source.features(opened.images, apart=True, listed=listed).values
    distances = pair_distances(features, pairs.first, pairs.second)
    return ten_fold_accuracy(distances, pairs.same, pairs.folds, TFACE_THRESHOLDS).mean


def race_summary(accuracy: Mapping[str, float]) -> dict[str, Any]:
    """Return `accuracy` by race, `mean`, `std` and `skewed_error_ratio`, for JSON.

    accuracy: 0..1 by race, of two or more. std: of the accuracies in percent, with N - 1 in the
    denominator. skewed_error_ratio: the largest error over the smallest one; null where a race has
    no error.

    >>> race_summary({"African": 0.5, "Asian": 0.75})["skewed_error_ratio"]
    2.0
    """
    values = np.array(list(accuracy.values()), np.float64)
    errors = 1 - values
    ratio = float(errors.max() / errors.min()) if errors.min() > 0 else None
    return {
        "accuracy": dict(accuracy),
        "mean": float(values.mean()),
        "std": float(np.std(100 * values, ddof=1)),
        "skewed_error_ratio": ratio,
    }


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table; others for all races than for one."""
    if "skewed_error_ratio" not in metrics:
        return verification.row(metrics)
    ratio = metrics["skewed_error_ratio"]
    return {
        **{race: f"{metrics['accuracy'][race]:.2%}" for race in RACES},
        "mean": f"{metrics['mean']:.2%}",
        "std": f"{metrics['std']:.2f}",
        "error ratio": "undefined" if ratio is None else f"{ratio:.2f}",
    }


RFW = Protocol(
    "RFW: four races",
    PartNames("FOLDER of RACE_test.bin, or RFW's tree"),
    run,
    row,
)
