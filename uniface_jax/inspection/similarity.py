"""Matrix of sample-to-class similarities, block by block: who dominates rows, columns, all.

Row i is a sample, column j a class; the positive of a row is in its label's column. Softmax losses
ask for dominance in rows: a sample's positive above its own negatives. One threshold for all takes
more: the smallest positive of the matrix above the largest negative (UniFace, ICCV 2023, section
3).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.verification import normalize

EDGES = np.linspace(-1, 1, 2001)  # of the histogram of negatives
_BLOCK_CLASSES = 4096  # at a time


@dataclass(frozen=True, eq=False)
class Similarities:
    """Extremes of the cosines of N samples with C prototypes; float64 unless said otherwise.

    positive [N]: with the own class. row_negative [N]: the largest with another class.
    column_positive [C]: the smallest of the class's own samples, +inf where it has none.
    column_negative [C]: the largest of other people's samples, -inf where there are none.
    counts int64 [2000]: histogram of all negatives over EDGES.
    negatives_reaching: number of negatives at or above the smallest positive.
    threshold: the cosine that was asked for, with negatives_above, the number of negatives above
    it; None and 0 without one.
    """

    positive: np.ndarray
    row_negative: np.ndarray
    column_positive: np.ndarray
    column_negative: np.ndarray
    counts: np.ndarray
    negatives_reaching: int
    threshold: float | None
    negatives_above: int

    @property
    def negatives(self) -> int:
        """Return the number of negatives in the matrix: N (C - 1)."""
        return int(self.counts.sum())


def similarities(
    features: np.ndarray, labels: np.ndarray, prototypes: np.ndarray, threshold: float | None = None
) -> Similarities:
    """Compute the extremes of all cosines of samples and classes; [N, C] is never held.

    Args:
        features: [N, D].
        labels: int [N], in 0..C-1.
        prototypes: [C, D], or [C, K, D] with K a class, of whose cosines the largest counts.
        threshold: a cosine, to count the negatives above it; None counts none.

    Raises:
        UserError: a row is zero or not finite, a label is out of range, or there are fewer than
            two classes.

    Example:
        >>> found = similarities(np.eye(2), np.array([0, 1]), np.array([[1, 0], [0.6, 0.8]]))
        >>> found.positive, found.row_negative
        (array([1. , 0.8]), array([0.6, 0. ]))
    """
    samples, labels = normalize(features, "feature"), np.asarray(labels)
    flat = normalize(np.reshape(prototypes, (-1, samples.shape[1])), "prototype")
    count, size, several = len(samples), len(prototypes), len(flat) // max(len(prototypes), 1)
    classes = flat.reshape(size, several, -1)
    if size < 2:
        raise UserError(f"{size} classes; a negative similarity takes at least 2")
    if not count or labels.min() < 0 or labels.max() >= size:
        found = f"{labels.min()}..{labels.max()}" if count else "none"
        raise UserError(f"labels {found}; expected some, in 0..{size - 1}")
    own = [np.einsum("nd,nd->n", samples, classes[labels, k]) for k in range(several)]
    positive = np.clip(np.max(own, 0), -1, 1)
    column_positive = np.full(size, np.inf)
    np.minimum.at(column_positive, labels, positive)
    row_negative, column_negative = np.full(count, -np.inf), np.full(size, -np.inf)
    counts = np.zeros(len(EDGES) - 1, np.int64)
    reaching = above = 0
    for start in range(0, size, _BLOCK_CLASSES):
        block = flat[start * several : (start + _BLOCK_CLASSES) * several]
        cos = np.clip((samples @ block.T).reshape(count, -1, several).max(2), -1, 1)
        here = np.flatnonzero((labels >= start) & (labels < start + _BLOCK_CLASSES))
        cos[here, labels[here] - start] = -np.inf  # positives take no part in what follows
        np.maximum(row_negative, cos.max(1), out=row_negative)
        column_negative[start : start + _BLOCK_CLASSES] = cos.max(0)
        counts += np.histogram(cos[np.isfinite(cos)], EDGES)[0]
        reaching += int(np.count_nonzero(cos >= positive.min()))
        if threshold is not None:
            above += int(np.count_nonzero(cos > threshold))
    return Similarities(
        positive, row_negative, column_positive, column_negative, counts, reaching, threshold, above
    )


def dominance(found: Similarities) -> dict[str, Any]:
    """Measure how far the matrix is from being split by one threshold; numbers for JSON.

    rows: share of samples whose positive exceeds all negatives of their row. columns: share of the
    classes with samples whose smallest positive exceeds all negatives of their column.
    min_positive, max_negative; one_threshold: True where min_positive > max_negative;
    positives_violating, negatives_violating: shares of positives not above the largest negative,
    and of negatives not below the smallest positive. equal_error: `rate` and `threshold` where as
    large a share of positives is below as of negatives above (to 0.001 in the threshold).
    sample_thresholds, class_thresholds: mean and std of the middle between the smallest positive
    and the largest negative of each row and column: 0 std if one threshold suits all equally.
    at_threshold, where a threshold was asked for: `threshold`, `positives_below` (at or below it)
    and `negatives_above`, shares.
    """
    with_samples = np.isfinite(found.column_positive)
    column_positive = found.column_positive[with_samples]
    column_negative = found.column_negative[with_samples]
    lowest, highest = float(found.positive.min()), float(found.row_negative.max())
    result: dict[str, Any] = {
        "samples": len(found.positive),
        "classes": len(found.column_positive),
        "classes_with_samples": int(with_samples.sum()),
        "rows": float(np.mean(found.positive > found.row_negative)),
        "columns": float(np.mean(column_positive > column_negative)),
        "min_positive": lowest,
        "max_negative": highest,
        "one_threshold": lowest > highest,
        "positives_violating": float(np.mean(found.positive <= highest)),
        "negatives_violating": found.negatives_reaching / found.negatives,
        "equal_error": _equal_error(found),
        "sample_thresholds": _spread((found.positive + found.row_negative) / 2),
        "class_thresholds": _spread(_middles(column_positive, column_negative)),
    }
    if found.threshold is not None:
        result["at_threshold"] = {
            "threshold": found.threshold,
            "positives_below": float(np.mean(found.positive <= found.threshold)),
            "negatives_above": found.negatives_above / found.negatives,
        }
    return result


def _middles(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    known = np.isfinite(negative)  # a class may hold all samples
    middles: np.ndarray = (positive[known] + negative[known]) / 2
    return middles


def _spread(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return {"mean": None, "std": None}
    return {"mean": float(values.mean()), "std": float(values.std())}


def _equal_error(found: Similarities) -> dict[str, float]:
    below = np.searchsorted(np.sort(found.positive), EDGES) / len(found.positive)
    above = 1 - np.concatenate([[0], np.cumsum(found.counts)]) / found.negatives
    near = np.abs(below - above)
    # Where many thresholds do equally well, their middle.
    best = np.flatnonzero(near == near.min())
    i = int(best[len(best) // 2])
    return {"rate": float(below[i] + above[i]) / 2, "threshold": float(EDGES[i])}
