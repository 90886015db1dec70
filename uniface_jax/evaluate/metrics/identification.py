"""1:N identification of templates: closed-set ranks, and the open set by TPIR at FPIR.

A probe whose subject is in the gallery is mated, any other is unknown. Closed set: the rank of a
mated probe's own subject. Open set: a search gives an identity when the highest score reaches the
threshold; FPIR is the share of unknown probes that are given one, TPIR the share of mated probes
whose own subject is ranked first and reaches the threshold.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)
_BLOCK_PROBES = 1024  # compared at a time


@dataclass(frozen=True, eq=False)
class Searches:
    """Findings of Q probes in a gallery of G.

    ranks: int [mated], 1 is best; entries that score as high as the mate rank before it, so that
    equal scores are no success. mate_scores: float64 [mated]. best_scores: float64 [unknown], the
    highest score that an unknown probe has in the gallery.
    """

    gallery: int
    ranks: np.ndarray
    mate_scores: np.ndarray
    best_scores: np.ndarray


def search(gallery: np.ndarray, probes: np.ndarray, mates: np.ndarray) -> Searches:
    """Search every probe in a gallery.

    Args:
        gallery: float64 [G, D], rows of length 1.
        probes: float64 [Q, D], rows of length 1.
        mates: int [Q], the gallery's row of the probe's own subject, -1 where it has none.

    Example:
        >>> gallery = np.eye(3)
        >>> probes = np.array([[0.8, 0.6, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
        >>> found = search(gallery, probes, np.array([0, 1, -1]))
        >>> found.ranks, found.best_scores
        (array([1, 2]), array([1.]))
    """
    ranks = np.empty(len(probes), np.int64)
    scores = np.empty(len(probes))

    def block(start: int) -> None:
        rows = slice(start, start + _BLOCK_PROBES)
        found = probes[rows] @ gallery.T
        mate = mates[rows]
        known = np.where(mate >= 0, found[np.arange(len(found)), mate], found.max(axis=1))
        scores[rows] = known
        # The mate counts itself, and that is its rank.
        ranks[rows] = np.count_nonzero(found >= known[:, None], axis=1)

    with ThreadPoolExecutor(2) as pool:  # one counts while the other multiplies
        list(pool.map(block, range(0, len(probes), _BLOCK_PROBES)))
    mated = mates >= 0
    return Searches(len(gallery), ranks[mated], scores[mated], scores[~mated])


def closed_set(found: Searches, ranks: Sequence[int] = RANKS) -> dict[str, Any]:
    """Return `gallery`, `mated` (counts) and `ranks`, of each `rank`, `hits`, `rate`, for JSON.

    >>> found = Searches(3, np.array([1, 2]), np.array([0.8, 0.6]), np.array([]))
    >>> [entry["rate"] for entry in closed_set(found, (1, 2))["ranks"]]
    [0.5, 1.0]
    """
    hits = [int(np.count_nonzero(found.ranks <= rank)) for rank in ranks]
    mated = len(found.ranks)
    return {
        "gallery": found.gallery,
        "mated": mated,
        "ranks": [
            {"rank": rank, "hits": count, "rate": count / mated if mated else None}
            for rank, count in zip(ranks, hits, strict=True)
        ],
    }


def open_set(found: Searches, targets: Sequence[float] = FPIRS) -> list[dict[str, Any]]:
    """Return TPIR at each FPIR: the largest TPIR whose FPIR does not exceed the target.

    The result is for JSON, of each target: `target`, `resolvable` (True where one unknown probe is
    at most that share), `fpir`, `tpir`, `threshold` (the lowest score that is accepted; null where
    none is), `false_identifications`, `true_identifications`, `unknown`, `mated`.

    >>> found = Searches(3, np.array([1, 2]), np.array([0.8, 0.6]), np.array([0.3, 0.7]))
    >>> open_set(found, [0.5])[0]["tpir"]
    0.5
    """
    unknown = np.sort(found.best_scores)[::-1]
    first = np.sort(found.mate_scores[found.ranks == 1])
    rates = np.arange(1, len(unknown) + 1) / max(1, len(unknown))
    results = []
    for target in targets:
        # The next unknown probe after those that are allowed, and all that score as it, stay out.
        allowed = int(np.searchsorted(rates, target, side="right"))
        barrier = unknown[allowed] if allowed < len(unknown) else -np.inf
        false = int(np.count_nonzero(unknown > barrier))
        hits = len(first) - int(np.searchsorted(first, barrier, side="right"))
        accepted = [*first[len(first) - hits :][:1], *unknown[:false][-1:]]
        results.append(
            {
                "target": float(target),
                "resolvable": bool(len(unknown) and 1 / len(unknown) <= target),
                "fpir": false / len(unknown) if len(unknown) else None,
                "tpir": hits / len(found.ranks) if len(found.ranks) else None,
                "threshold": float(min(accepted)) if accepted else None,
                "false_identifications": false,
                "true_identifications": hits,
                "unknown": len(unknown),
                "mated": len(found.ranks),
            }
        )
    return results
