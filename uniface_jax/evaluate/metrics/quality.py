"""Errors versus rejected pairs: how well a score of quality finds the pairs that are misjudged.

Pairs are rejected from the worst on; a pair is as good as the worse of its images. FNMR is the
share of same pairs whose cosine does not pass the threshold, FMR the share of different pairs whose
cosine reaches it. As CR-FIQA's evaluation has it (fdbtrs/CR-FIQA, ERC/).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

FMRS = (1e-2, 1e-3, 1e-4)
REJECTED = np.arange(0, 0.98, 0.05)  # shares of all pairs


def error_versus_reject(
    scores: np.ndarray,
    same: np.ndarray,
    quality: np.ndarray,
    fmrs: Sequence[float] = FMRS,
    rejected: np.ndarray = REJECTED,
) -> list[dict[str, Any]]:
    """Return the FNMR at each FMR, after each share of the pairs is rejected, for JSON.

    Of pairs that are equally good the earlier is rejected first.

    Args:
        scores: cosines, float [P].
        same: bool [P].
        quality: float [P], higher is better.
        fmrs: targets, 0..1.
        rejected: rising shares R, 0..1; int(share * P) pairs go.

    Returns:
        For each target `fmr`, `resolvable` (True where all different pairs can tell it from 0), and
        two readings: `recomputed`, whose threshold is found again among the pairs that are left,
        and `fixed`, whose threshold is that of all pairs. Each has `fnmr` and `thresholds` (R
        cosines), and `area` below the errors, by trapezes. A threshold is the cosine of a pair
        whose FMR is nearest to the target, the lowest of several. Where pairs of one kind are left
        alone, fnmr is null, and the area is of the others.

    >>> scores, same = np.array([0.9, 0.2, 0.3, 0.1]), np.array([True, True, False, False])
    >>> found = error_versus_reject(scores, same, np.array([2, 0, 2, 2]), [0.5], np.array([0, 0.3]))
    >>> found[0]["recomputed"]["fnmr"]
    [0.5, 0.0]
    """
    order = np.argsort(quality, kind="stable")
    kept = [np.sort(order[int(share * len(order)) :]) for share in rejected]
    entries = []
    for fmr in fmrs:
        found = [_threshold(scores[rows], same[rows], fmr) for rows in kept]
        fixed = [found[0]] * len(kept)
        different = int(np.count_nonzero(~same))
        entries.append(
            {
                "fmr": float(fmr),
                "resolvable": bool(different and 1 / different <= fmr),
                "recomputed": _errors(scores, same, kept, found, rejected),
                "fixed": _errors(scores, same, kept, fixed, rejected),
            }
        )
    return entries


def _threshold(scores: np.ndarray, same: np.ndarray, fmr: float) -> float | None:
    """Return the cosine of a pair whose FMR is nearest to the target; None without both kinds."""
    different = np.sort(scores[~same])
    if not len(different) or not same.any():
        return None
    rising = np.sort(scores)
    reached = len(different) - np.searchsorted(different, rising, side="left")
    return float(rising[np.argmin(np.abs(reached / len(different) - fmr))])


def _errors(
    scores: np.ndarray,
    same: np.ndarray,
    kept: Sequence[np.ndarray],
    thresholds: Sequence[float | None],
    rejected: np.ndarray,
) -> dict[str, Any]:
    fnmr: list[float | None] = []
    for rows, threshold in zip(kept, thresholds, strict=True):
        genuine = scores[rows][same[rows]]
        known = threshold is not None and len(genuine) > 0
        fnmr.append(float(np.mean(~(genuine > threshold))) if known else None)
    there = [i for i, error in enumerate(fnmr) if error is not None]
    area = (
        float(np.trapezoid([fnmr[i] for i in there], rejected[there])) if len(there) > 1 else None
    )
    return {"fnmr": fnmr, "thresholds": list(thresholds), "area": area}
