"""The metrics of the MFR track of ICCV 2021: all-to-all by population, masked to plain, combined.

Its public server is gone; this is what it measured, on images of one's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.engine import AllPairs, all_pairs, all_pairs_metrics

ALL = "ALL"
ALL_FARS, MASK_FARS = (1e-6,), (1e-4,)
_MASK_WEIGHT, _ALL_WEIGHT = 0.25, 0.75


@dataclass(frozen=True)
class Undefined:
    """A population that has no TAR. reason: "no image", "no same pair" or "no different pair"."""

    reason: str
    images: int


def population_pairs(
    features: np.ndarray,
    labels: np.ndarray,
    populations: np.ndarray | None = None,
    *,
    fars: Sequence[float] = ALL_FARS,
    wanted: Sequence[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> dict[str, AllPairs | Undefined]:
    """All pairs within each population, by its name, and of all images together, last, as "ALL".

    features [N, D], labels [N] and options: see all_pairs. populations: [N] names; None: "ALL"
    only. wanted: the populations to evaluate, all that occur by default. The rows that the hardest
    pairs name are those of `features`.

    Raises what all_pairs raises, except that a population without a same or a different pair is
    Undefined; UserError where populations are not [N] or one has the name "ALL".
    """
    results: dict[str, AllPairs | Undefined] = {}
    labels = np.asarray(labels)
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
                    features[rows],
                    labels[rows],
                    fars=fars,
                    progress=name if progress else None,
                    **options,
                ),
                rows,
            )
        )
    results[ALL] = all_pairs(
        features, labels, fars=fars, progress=ALL if progress else None, **options
    )
    return results


def mask_pairs(
    masked: np.ndarray,
    masked_labels: np.ndarray,
    plain: np.ndarray,
    plain_labels: np.ndarray,
    *,
    fars: Sequence[float] = MASK_FARS,
    progress: str | None = None,
    **options: Any,
) -> AllPairs:
    """Each masked image [N, D] against each plain one [M, D]; all_pairs of two sets."""
    return all_pairs(
        masked, masked_labels, plain, plain_labels, fars=fars, progress=progress, **options
    )


def combined_score(mask_tar: float, all_tar: float) -> float:
    """The track's ranking, 0..1: a quarter of the mask TAR and three quarters of MR-All's."""
    return _MASK_WEIGHT * mask_tar + _ALL_WEIGHT * all_tar


def mfr_metrics(
    populations: Mapping[str, AllPairs | Undefined] | None, mask: AllPairs | None
) -> dict[str, Any]:
    """Both parts for JSON: `all_to_all` by population, `mask` (null without) and `combined`.

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
    """Why all pairs of images with these labels have no TAR; empty where they have one."""
    if len(labels) == 0:
        return "no image"
    people = len(np.unique(labels))
    if people == len(labels):
        return "no same pair"
    return "no different pair" if people == 1 else ""


def _renumbered(result: AllPairs, rows: np.ndarray) -> AllPairs:
    def pairs(hard):
        return replace(hard, first=rows[hard.first], second=rows[hard.second])

    return replace(
        result,
        hardest_same=pairs(result.hardest_same),
        hardest_different=pairs(result.hardest_different),
    )
