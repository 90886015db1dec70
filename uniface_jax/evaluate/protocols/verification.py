"""Protocol `verification`: pairs of .bin files, by ten folds and TAR at FAR."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.formats.bin_pairs import FOLDS, PairSet
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import (
    Side,
    accept_counts,
    far_thresholds,
    hard_pairs,
    histogram,
    resamples,
    roc_line,
    tar_bars,
)
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.metrics.identification_intervals import Resampled
from uniface_jax.evaluate.metrics.pair_intervals import verification_intervals
from uniface_jax.evaluate.metrics.roc import roc
from uniface_jax.evaluate.metrics.verification import (
    FARS,
    base_rate,
    is_balanced,
    pair_distances,
    pair_scores,
    verification_metrics,
)
from uniface_jax.evaluate.protocols.base import (
    Options,
    Protocol,
    Results,
    SetResult,
    tar_cells,
)
from uniface_jax.evaluate.sets.image_sets import ImageSet
from uniface_jax.evaluate.sets.pair_sets import OpenedPairs, open_pair_sets


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate every .bin file and every list of pairs as a set, see pair_result.

    The part `root` is the folder of the lists' images.
    """
    opened = open_pair_sets(parts.paths, parts.named.get("root"))
    return {name: opened_result(source, found, options) for name, found in opened.items()}


def opened_result(source: FeatureSource, opened: OpenedPairs, options: Options) -> SetResult:
    """Return the pair_result of one set of pairs."""
    sides = partial(_sides, opened.pairs)
    return pair_result(source, opened.images, opened.pairs, sides, opened.file, options)


def _sides(pairs: PairSet, pair: int) -> tuple[Side, Side]:
    first, second = int(pairs.first[pair]), int(pairs.second[pair])
    if pairs.names is not None:
        return (first, pairs.names[first]), (second, pairs.names[second])
    return (first, f"pair {pair}, first"), (second, f"pair {pair}, second")


def pair_result(
    source: FeatureSource,
    images: ImageSet,
    pairs: PairSet,
    sides: Callable[[int], tuple[Side, Side]],
    file: Path,
    options: Options,
) -> SetResult:
    """Return verification_metrics, `file`, `sha256`, `images`, `features`, and the drawings.

    Where the model's features can be had without the mirrored images, `without_mirror` holds the
    metrics of those. sides: as in drawings.hard_pairs. file: the one that errors name.
    """
    fars = options.fars_or(FARS)
    listed = np.stack([pairs.first, pairs.second], axis=1).ravel()
    found = source.features(images, apart=True, listed=listed)
    try:
        metrics = verification_metrics(found.values, pairs, fars, pairs.folds)
        scores = pair_scores(found.values, pairs.first, pairs.second)
        resampled = _resampled(metrics, found.values, pairs)
        intervals = resampled.intervals
        if found.plain is not None:
            metrics["without_mirror"] = verification_metrics(found.plain, pairs, fars, pairs.folds)
            plain = _resampled(metrics["without_mirror"], found.plain, pairs)
            intervals = {**intervals, "without_mirror": plain.intervals}
    except UserError as e:
        raise UserError(f"{file} with {source.name}: {e}") from e
    thresholds = {
        _folds(pairs.folds): metrics["accuracy"]["threshold_cosine"],
        **far_thresholds(metrics["tar_at_far"]),
    }
    curve = roc(scores, pairs.same)
    return SetResult(
        {"file": str(file), "images": len(images), **found.record, **metrics},
        {
            "roc": roc_line(curve) | tar_bars(intervals),
            "counts": accept_counts(curve),
            "scores": histogram(scores[pairs.same], scores[~pairs.same], thresholds),
            "pairs": hard_pairs(scores, pairs.same, sides, images),
            "resamples": resamples(intervals, resampled.estimates, resampled.replicates),
        },
        {"intervals": intervals, "thresholds": resampled.thresholds},
    )


def _resampled(metrics: Mapping[str, Any], features: np.ndarray, pairs: PairSet) -> Resampled:
    scores = pair_scores(features, pairs.first, pairs.second)
    distances = pair_distances(features, pairs.first, pairs.second)
    return verification_intervals(metrics, scores, distances, pairs.same)


def _folds(folds: int) -> str:
    return "ten folds" if folds == FOLDS else f"{folds} folds"


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table.

    Where one kind of pair is in the majority, TAR at FAR comes first, and beside the accuracies
    stands what guessing that kind would reach.
    """

    def accuracy(found: Mapping[str, Any]) -> str:
        return f"{found['accuracy']['mean']:.2%} ± {found['accuracy']['std']:.2%}"

    pairs = {"pairs": f"{metrics['pairs']:,}"}
    tars = tar_cells(metrics)
    folds = len(metrics["accuracy"].get("folds", range(FOLDS)))
    cells = {"AUC": f"{metrics['auc']:.5f}", f"{folds}-fold accuracy": accuracy(metrics)}
    if "without_mirror" in metrics:
        cells["without mirror"] = accuracy(metrics["without_mirror"])
    if is_balanced(metrics):
        return {**pairs, **cells, **tars}
    return {**pairs, **tars, **cells, "base rate": f"{base_rate(metrics):.2%}"}


VERIFICATION = Protocol(
    "Verification of pairs",
    PartNames(
        "FILE.bin, a table or a folder of them, or a list of pairs",
        {"root": "FOLDER of a list's images"},
    ),
    run,
    row,
)
