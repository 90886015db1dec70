"""Separation of same from different pairs by one threshold, for everyone at once or one by one."""

from typing import Any, NamedTuple

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.roc import Roc, auc, roc
from uniface_jax.evaluate.metrics.verification import normalize


class Pairs(NamedTuple):
    """All P = N (N-1) / 2 pairs of N images: first, second int [P]; score [P] cosine; same bool."""

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    same: np.ndarray


def every_pair(features: np.ndarray, labels: np.ndarray) -> Pairs:
    """Return every pair of few images with features [N, D] and labels int [N], all held.

    Raises UserError when a feature is zero or not finite.
    """
    unit, labels = normalize(features, "feature"), np.asarray(labels)
    first, second = np.triu_indices(len(unit), 1)
    return Pairs(first, second, (unit @ unit.T)[first, second], labels[first] == labels[second])


def best_threshold(curve: Roc) -> tuple[float, float]:
    """Return the threshold of smallest error, the mean of the rates of misses and false accepts.

    The error is returned with it. A pair is accepted when its score is above the threshold. Of
    thresholds that do equally well it is the middle.

    >>> best_threshold(roc(np.array([0.9, 0.6, 0.2]), np.array([True, True, False])))
    (0.4, 0.0)
    """
    errors = _errors(curve)
    best = np.flatnonzero(errors == errors.min())
    upper = curve.thresholds[max(int(best[0]), 1)]
    lower = curve.thresholds[min(int(best[-1]) + 1, len(curve.thresholds) - 1)]
    return float(upper + lower) / 2, float(errors.min())


def separation(scores: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    """Measure how well one threshold does on pairs with scores [P], same bool [P]; for JSON.

    min_same, max_different; separable: True where min_same > max_different; threshold and error of
    best_threshold; equal_error_rate; auc. Raises UserError for what has not both kinds of pairs.
    """
    curve = roc(scores, same)
    threshold, error = best_threshold(curve)
    lowest, highest = float(scores[same].min()), float(scores[~same].max())
    nearest = int(np.argmin(np.abs(curve.far - (1 - curve.tar))))
    return {
        "min_same": lowest,
        "max_different": highest,
        "separable": lowest > highest,
        "threshold": threshold,
        "error": error,
        "equal_error_rate": float(curve.far[nearest] + 1 - curve.tar[nearest]) / 2,
        "auc": auc(curve),
    }


def person_thresholds(
    pairs: Pairs, labels: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return thresholds, own errors and common errors, float64 [people], in order of labels.

    For each person, with all pairs that have an image of them: their best threshold, the error at
    it, and the error at the common `threshold`. Raises UserError for a person with one image.
    """
    labels = np.asarray(labels)
    rows = []
    for person in np.unique(labels):
        if np.count_nonzero(labels == person) < 2:
            raise UserError(f"person {person} has one image; a same pair takes two")
        involved = (labels[pairs.first] == person) | (labels[pairs.second] == person)
        scores, same = pairs.score[involved], pairs.same[involved]
        own, error = best_threshold(roc(scores, same))
        missed = np.mean(scores[same] <= threshold)
        accepted = np.mean(scores[~same] > threshold)
        rows.append((own, error, (missed + accepted) / 2))
    thresholds, own_errors, common_errors = np.array(rows).T
    return thresholds, own_errors, common_errors


def _errors(curve: Roc) -> np.ndarray:
    errors: np.ndarray = (curve.far + 1 - curve.tar) / 2
    return errors
