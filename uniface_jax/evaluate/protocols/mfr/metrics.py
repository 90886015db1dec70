"""Metrics of the MFR track of ICCV 2021: all-to-all by population, masked to plain, combined.

Its public server is gone; this is what it measured, on images of one's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.engine import AllPairs, Targets, all_pairs, all_pairs_metrics
from uniface_jax.evaluate.all_pairs.largest import HardPairs
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures, Tiling

ALL = "ALL"
_MASK_WEIGHT, _ALL_WEIGHT = 0.25, 0.75


@dataclass(frozen=True)
class Undefined:
    """A population without a TAR. reason: "no image", "no same pair" or "no different pair"."""

    reason: str
    images: int


def population_pairs(
    images: LabeledFeatures,
    populations: np.ndarray | None = None,
    *,
    targets: Targets,
    wanted: Sequence[str] | None = None,
    tiling: Tiling = Tiling(),
    progress: bool = True,
) -> dict[str, AllPairs | Undefined]:
    """Return all pairs within each population, and of all images together, last, as "ALL".

    Args:
        images: the features [N, D] and labels [N] of all of them.
        populations: [N] names; None: "ALL" only.
        targets: see all_pairs.
        wanted: the populations to evaluate, all that occur by default.
        tiling: see all_pairs.
        progress: shows a bar for each population.

    Returns:
        Results by name. The rows that hardest pairs name are those of `images`.

    Raises:
        UserError: what all_pairs raises, except that a population without a same or a different
            pair is Undefined; populations are not [N], or one has the name "ALL".
    """
    features, labels = images.features, np.asarray(images.labels)
    results: dict[str, AllPairs | Undefined] = {}
    names = (
        np.full(len(labels), ALL) if populations is None else np.asarray(populations).astype(str)
    )
    if len(names) != len(labels):
        raise UserError(f"{len(names)} populations for {len(labels)} images; expected as many")
    if populations is not None and ALL in names:
        raise UserError(f"a population has the name {ALL}, which stands for all images together")
    chosen = [] if populations is None else sorted(set(names) if wanted is None else set(wanted))
    for name in chosen:
        rows = np.flatnonzero(names == name)
        reason = _undefined(labels[rows])
        results[name] = (
            Undefined(reason, len(rows))
            if reason
            else _renumbered(
                all_pairs(
                    LabeledFeatures(features[rows], labels[rows]),
                    targets=targets,
                    tiling=tiling,
                    progress=name if progress else None,
                ),
                rows,
            )
        )
    results[ALL] = all_pairs(
        images, targets=targets, tiling=tiling, progress=ALL if progress else None
    )
    return results


def combined_score(mask_tar: float, all_tar: float) -> float:
    """Return the track's ranking, 0..1: a quarter of the mask TAR, three quarters of MR-All's.

    >>> combined_score(1.0, 0.5)
    0.625
    """
    return _MASK_WEIGHT * mask_tar + _ALL_WEIGHT * all_tar


def mfr_metrics(
    populations: Mapping[str, AllPairs | Undefined] | None, mask: AllPairs | None
) -> dict[str, Any]:
    """Return both parts for JSON: `all_to_all` by population, `mask` (or null) and `combined`.

    A part is all_pairs_metrics, or `images` and `undefined`, the reason. `combined` takes the
    first FAR of each part, and is null where one is missing.
    """
    parts = {
        name: {"images": result.images, "undefined": result.reason}
        if isinstance(result, Undefined)
        else all_pairs_metrics(result)
        for name, result in (populations or {}).items()
    }
    everyone = (populations or {}).get(ALL)
    combined = None
    if mask is not None and isinstance(everyone, AllPairs):
        combined = combined_score(mask.points[0].strict.tar, everyone.points[0].strict.tar)
    return {
        "all_to_all": parts or None,
        "mask": None if mask is None else all_pairs_metrics(mask),
        "combined": combined,
    }


def _undefined(labels: np.ndarray) -> str:
    """Return why pairs of images with these labels have no TAR; empty where they have one."""
    if len(labels) == 0:
        return "no image"
    people = len(np.unique(labels))
    if people == len(labels):
        return "no same pair"
    return "no different pair" if people == 1 else ""


def _renumbered(result: AllPairs, rows: np.ndarray) -> AllPairs:
    def pairs(hard: HardPairs) -> HardPairs:
        return replace(hard, first=rows[hard.first], second=rows[hard.second])

    return replace(
        result,
        hardest_same=pairs(result.hardest_same),
        hardest_different=pairs(result.hardest_different),
    )
