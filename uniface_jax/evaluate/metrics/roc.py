"""ROC of scores of same and different pairs: exact counts, area, TAR at FAR.

A pair is accepted when its score is at least the threshold. FAR is the share of different pairs
that are accepted, TAR the share of same pairs. Everything is counted, nothing is binned, and
pairs of equal score are accepted together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uniface_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Roc:
    """K+1 points of a ROC: nothing accepted, then one more distinct score at each point.

    thresholds: float64 [K+1], falling, the first +inf. true_accepts, false_accepts: int64 [K+1],
    same and different pairs with score >= threshold; the last entries are all pairs.
    """

    thresholds: np.ndarray
    true_accepts: np.ndarray
    false_accepts: np.ndarray

    @property
    def positives(self) -> int:
        """Return the number of same pairs."""
        return int(self.true_accepts[-1])

    @property
    def negatives(self) -> int:
        """Return the number of different pairs."""
        return int(self.false_accepts[-1])

    @property
    def tar(self) -> np.ndarray:
        """True accept rate, float64 [K+1], rising from 0 to 1."""
        return self.true_accepts / self.positives

    @property
    def far(self) -> np.ndarray:
        """False accept rate, float64 [K+1], rising from 0 to 1."""
        return self.false_accepts / self.negatives


@dataclass(frozen=True)
class OperatingPoint:
    """One point of a ROC. threshold is +inf where no pair at all is accepted."""

    far: float
    tar: float
    threshold: float
    true_accepts: int
    false_accepts: int


@dataclass(frozen=True)
class TarAtFar:
    """TAR at one target FAR, in the two readings that are in use (see tar_at_far).

    resolvable: True where the target is at least 1/negatives; below that, the set is too small to
    tell it from FAR 0.
    """

    target: float
    strict: OperatingPoint
    nearest: OperatingPoint
    resolvable: bool


def check_kinds(same: np.ndarray) -> None:
    """Check that same, bool [P], marks both same and different pairs; UserError if not."""
    if same.all() or not same.any():
        kind = "same" if same.all() else "different"
        raise UserError(f"all {len(same)} pairs are {kind} ones; expected same and different ones")


def roc(scores: np.ndarray, same: np.ndarray) -> Roc:
    """Return the ROC of the scores of pairs.

    Args:
        scores: [P], higher is more alike.
        same: bool [P], True for pairs of one person.

    Returns:
        The curve, with a point for each distinct score.

    Raises:
        UserError: a score is not finite, or there is no same or no different pair.

    Example:
        >>> curve = roc(np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, True, False, False]))
        >>> curve.tar
        array([0. , 0.5, 1. , 1. , 1. ])
        >>> curve.far
        array([0. , 0. , 0. , 0.5, 1. ])
    """
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(f"scores {scores.shape} and same {same.shape}; expected both [P]")
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise UserError(f"the score of pair {first} is {scores[first]}; expected a finite number")
    check_kinds(same)
    order = np.argsort(-scores, kind="stable")
    falling, accepted_same = scores[order], np.cumsum(same[order])
    last_of_tie = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    true_accepts = accepted_same[last_of_tie]
    return Roc(
        thresholds=np.append(np.inf, falling[last_of_tie]),
        true_accepts=np.append(0, true_accepts),
        false_accepts=np.append(0, last_of_tie + 1 - true_accepts),
    )


def auc(curve: Roc) -> float:
    """Return the area under the curve: the chance that a same pair scores above a different one.

    It is in 0..1 and exact: integer counts until the one division; pairs of equal score count
    half.

    >>> auc(roc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])))
    0.875
    """
    step = np.diff(curve.false_accepts)
    twice = np.sum(step * (curve.true_accepts[1:] + curve.true_accepts[:-1]))
    return int(twice) / (2 * curve.positives * curve.negatives)


def roc_auc(scores: np.ndarray, same: np.ndarray) -> float:
    """Return the area under the ROC of scores [P] and same, bool [P]; raises what roc raises."""
    return auc(roc(scores, same))


def tar_at_far(curve: Roc, targets: Sequence[float]) -> list[TarAtFar]:
    """Return TAR at each target FAR, in both readings.

    strict: the largest TAR whose FAR does not exceed the target, at the lowest such threshold.
    nearest: the TAR of the ROC point whose FAR is nearest to the target, the later point where two
    are as near; insightface's evaluation of IJB. Its ROC is scikit-learn's, which leaves out
    points in the middle of equal steps, and so does this.

    Args:
        curve: of roc.
        targets: FARs in 0..1.

    Example:
        >>> scores = np.array([0.9, 0.6, 0.4, 0.1])
        >>> (point,) = tar_at_far(roc(scores, np.array([True, True, False, False])), [0.5])
        >>> point.strict.tar, point.strict.far, point.strict.threshold
        (1.0, 0.5, 0.4)
    """
    corners = _corners(curve)
    return [
        TarAtFar(
            target=float(target),
            strict=_point(curve, int(np.searchsorted(curve.far, target, side="right")) - 1),
            nearest=_point(curve, _nearest(curve, corners, target)),
            resolvable=bool(1 / curve.negatives <= target),
        )
        for target in targets
    ]


def _corners(curve: Roc) -> np.ndarray:
    """Return the indices of points that sklearn.metrics.roc_curve keeps (drop_intermediate)."""
    turns = (np.diff(curve.false_accepts[1:], 2) != 0) | (np.diff(curve.true_accepts[1:], 2) != 0)
    last = len(curve.thresholds) - 1
    return np.unique(np.concatenate([[0, 1], 2 + np.flatnonzero(turns), [last]]))


def _nearest(curve: Roc, corners: np.ndarray, target: float) -> int:
    distance = np.abs(curve.far[corners] - target)
    return int(corners[len(corners) - 1 - int(np.argmin(distance[::-1]))])


def _point(curve: Roc, i: int) -> OperatingPoint:
    return OperatingPoint(
        far=float(curve.far[i]),
        tar=float(curve.tar[i]),
        threshold=float(curve.thresholds[i]),
        true_accepts=int(curve.true_accepts[i]),
        false_accepts=int(curve.false_accepts[i]),
    )
