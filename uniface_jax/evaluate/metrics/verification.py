"""Verification of pairs from features: cosine, ten folds of accuracy, and the set's metrics.

The protocol of LFW and its successors as insightface computes it; float64 numpy throughout.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from uniface_jax.data.formats.bin_pairs import FOLDS, PairSet
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.roc import (
    OperatingPoint,
    TarAtFar,
    auc,
    check_kinds,
    roc,
    tar_at_far,
)

FARS = (1e-1, 1e-2, 1e-3)
DISTANCE_THRESHOLDS = np.arange(0, 4, 0.01)  # of squared distances between unit features
_CHUNK_PAIRS = 1 << 16  # that a thread scores at a time
_BLOCK_PAIRS = 256  # gathered at a time: two tiles of 512 float64 stay in the second-level cache


@dataclass(frozen=True, eq=False)
class FoldAccuracy:
    """Accuracy and threshold of each fold, float64 [folds]; mean, and std of the population."""

    accuracy: np.ndarray
    thresholds: np.ndarray
    mean: float
    std: float


def normalize(
    features: np.ndarray, kind: str = "image", ids: np.ndarray | None = None
) -> np.ndarray:
    """Return the rows of features [N, D] at length 1, float64.

    Raises UserError naming the first row that is not finite or is zero: as a `kind` of thing, by
    its entry in `ids` [N] or by its number.

    >>> normalize(np.array([[3, 4], [0, 2]]))
    array([[0.6, 0.8],
           [0. , 1. ]])
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"features of shape {features.shape}; expected [N, D]")
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = "zero" if norms[row] == 0 else "not finite"
        raise UserError(
            f"the feature of {kind} {row if ids is None else ids[row]} is {what} "
            f"({int(bad.sum())} of {len(features)} are unusable); expected finite, not zero"
        )
    unit: np.ndarray = features / norms[:, None]
    return unit


def pair_scores(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine, float64 [P], of features [N, D] at rows first[i] and second[i], int [P].

    Raises what `normalize` raises.

    >>> pair_scores(np.array([[1, 0], [0, 2], [3, 4]]), np.array([0, 0]), np.array([1, 2]))
    array([0. , 0.6])
    """
    return unit_pair_scores(normalize(features), first, second)


def unit_pair_scores(unit: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the product, float64 [P], of rows first[i] and second[i] of `unit` [N, D]."""

    def scores(start: int) -> np.ndarray:
        part = slice(start, start + _CHUNK_PAIRS)
        blocks = _gathered(unit, first[part], second[part])
        return np.concatenate([np.sum(a * b, axis=1) for a, b in blocks])

    first, second = np.asarray(first), np.asarray(second)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = pool.map(scores, range(0, len(first), _CHUNK_PAIRS))
        return np.concatenate([np.empty(0), *chunks])


def pair_distances(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared distance, float64 [P] in 0..4, of the normalized features of each pair.

    It is not 2 - 2 cos, which rounds otherwise: thresholds lie on multiples of 0.01, and
    insightface takes this form. Raises what `normalize` raises.
    """
    unit = normalize(features)
    blocks = [np.sum(np.square(a - b), axis=1) for a, b in _gathered(unit, first, second)]
    return np.concatenate([np.empty(0), *blocks])


def ten_fold_accuracy(
    distances: np.ndarray,
    same: np.ndarray,
    folds: int = FOLDS,
    thresholds: np.ndarray = DISTANCE_THRESHOLDS,
) -> FoldAccuracy:
    """Return the accuracy by cross-validation over contiguous folds, as insightface does.

    A pair counts as the same person when its distance is below the threshold. For each fold the
    threshold is the first of `thresholds` with the best accuracy on the other folds; where P is
    not a multiple of `folds`, the first folds hold one pair more (scikit-learn's KFold).

    Args:
        distances: squared, float64 [P], as pair_distances returns them.
        same: bool [P].
        folds: at least 2.
        thresholds: rising squared distances, 0, 0.01, … 3.99 in insightface's evaluation.

    Raises:
        UserError: a distance is not finite, there are fewer pairs than folds, or there is no same
            or no different pair.

    Example:
        >>> same = np.arange(20) % 2 == 0
        >>> ten_fold_accuracy(np.where(same, 0.5, 1.5), same).mean
        1.0
    """
    distances, same = np.asarray(distances, np.float64), np.asarray(same, bool)
    if distances.ndim != 1 or distances.shape != same.shape:
        raise ValueError(f"distances {distances.shape} and same {same.shape}; expected both [P]")
    if folds < 2:
        raise ValueError(f"{folds} folds; expected at least 2")
    if not np.isfinite(distances).all():
        raise UserError("a distance between two features is not a finite number")
    check_pairs(same, folds)
    parts = list(zip(np.array_split(distances, folds), np.array_split(same, folds), strict=True))
    correct = np.stack([_correct(*part, thresholds) for part in parts])  # [folds, thresholds]
    sizes = np.array([len(part) for part, _ in parts])
    best = np.argmax(correct.sum(axis=0) - correct, axis=1)  # the first where several are best
    accuracy = correct[np.arange(folds), best] / sizes
    return FoldAccuracy(
        accuracy, thresholds[best], float(np.mean(accuracy)), float(np.std(accuracy))
    )


def check_pairs(same: np.ndarray, folds: int = FOLDS) -> None:
    """Check that pairs marked by same, bool [P], can be evaluated in `folds` folds.

    Raises UserError where there is no pair in each fold, or only one kind of pair.
    """
    if len(same) < folds:
        raise UserError(f"{len(same)} pairs; {folds} folds need at least {folds}")
    check_kinds(same)


def base_rate(metrics: Mapping[str, Any]) -> float:
    """Return the accuracy, 0.5 to 1, of calling all pairs of verification_metrics the same kind.

    An accuracy says something of a model only as far as it is above this.

    >>> base_rate({"pairs": 4950, "same": 450, "different": 4500})
    0.9090909090909091
    """
    share: float = max(metrics["same"], metrics["different"]) / metrics["pairs"]
    return share


def is_balanced(metrics: Mapping[str, Any]) -> bool:
    """Return True where same and different pairs are as many, to one in a hundred."""
    return base_rate(metrics) < 0.505


def verification_metrics(
    features: np.ndarray, pairs: PairSet, fars: Sequence[float] = FARS, folds: int = FOLDS
) -> dict[str, Any]:
    """Return all that is reported of one verification set, ready for JSON.

    Args:
        features: [N, D], a row for each of the set's images.
        pairs: the set.
        fars: targets of TAR at FAR, 0..1.
        folds: of the accuracy, as PairSet.folds has them.

    Returns:
        `pairs`, `same`, `different` (counts), `auc`, `accuracy` (`mean`, `std`, `squared_distance`:
        the mean of the folds' thresholds, which the protocol chooses among squared distances;
        `threshold_cosine`: the cosine at that distance; `folds`: a list of accuracy and both) and
        `tar_at_far` (see tar_summary).

    Raises:
        UserError: what pair_scores and ten_fold_accuracy raise.

    Example:
        >>> first = np.arange(20)
        >>> pairs = PairSet("toy", [], first, first ^ 1, first % 4 < 2)
        >>> features = np.array([[1, 0], [1, 0.1], [1, 0], [0, 1]] * 5)
        >>> verification_metrics(features, pairs)["auc"]
        1.0
    """
    curve = roc(pair_scores(features, pairs.first, pairs.second), pairs.same)
    distances = pair_distances(features, pairs.first, pairs.second)
    found = ten_fold_accuracy(distances, pairs.same, folds)
    return {
        "pairs": len(pairs.same),
        "same": curve.positives,
        "different": curve.negatives,
        "auc": auc(curve),
        "accuracy": {
            "mean": found.mean,
            "std": found.std,
            **_threshold(float(np.mean(found.thresholds))),
            "folds": [
                {"accuracy": float(a), **_threshold(float(t))}
                for a, t in zip(found.accuracy, found.thresholds, strict=True)
            ],
        },
        "tar_at_far": tar_summary(tar_at_far(curve, fars)),
    }


def _threshold(squared_distance: float) -> dict[str, float]:
    """Return a squared distance of unit features, 0..4, and the cosine that it stands for."""
    return {"squared_distance": squared_distance, "threshold_cosine": 1 - squared_distance / 2}


def tar_summary(points: Sequence[TarAtFar]) -> list[dict[str, Any]]:
    """Return TAR at FAR for JSON: `far`, `resolvable`, and the readings `strict` and `nearest`.

    A reading has `tar`, `far`, `threshold` (a cosine; null where no pair is accepted),
    `true_accepts` and `false_accepts`.
    """

    def reading(point: OperatingPoint) -> dict[str, Any]:
        threshold = point.threshold if np.isfinite(point.threshold) else None
        return {**vars(point), "threshold": threshold}

    return [
        {
            "far": point.target,
            "resolvable": point.resolvable,
            "strict": reading(point.strict),
            "nearest": reading(point.nearest),
        }
        for point in points
    ]


def _gathered(
    unit: np.ndarray, first: np.ndarray, second: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the features of both images of the pairs, block by block, [<=_BLOCK_PAIRS, D]."""
    first, second = np.asarray(first), np.asarray(second)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"first {first.shape} and second {second.shape}; expected both [P]")
    for start in range(0, len(first), _BLOCK_PAIRS):
        block = slice(start, start + _BLOCK_PAIRS)
        yield unit[first[block]], unit[second[block]]


def _correct(distances: np.ndarray, same: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the pairs that are judged rightly at each threshold."""
    # The left side: as many distances lie strictly below the threshold.
    accepted_same = np.searchsorted(np.sort(distances[same]), thresholds)
    accepted_different = np.searchsorted(np.sort(distances[~same]), thresholds)
    return accepted_same + (np.count_nonzero(~same) - accepted_different)
