"""Intervals of all pairs of people, who are drawn again; of sets whose scores can be held."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
from uniface_jax.evaluate.metrics.bootstrap import DEFAULT, PEOPLE, Resampling, Units
from uniface_jax.evaluate.metrics.identification_intervals import Resampled
from uniface_jax.evaluate.metrics.pair_intervals import tar_intervals
from uniface_jax.evaluate.metrics.pair_totals import CrossedTotals
from uniface_jax.evaluate.metrics.tar_replicates import UnitScores
from uniface_jax.evaluate.metrics.verification import normalize

MAX_PAIRS = 1 << 24  # that are held: 200 MB
_BLOCK_ROWS = 512


def all_pairs_intervals(
    images: LabeledFeatures,
    others: LabeledFeatures | None,
    tar_at_far: Sequence[Mapping[str, Any]],
    resampling: Resampling = DEFAULT,
) -> Resampled | None:
    """Return pair_intervals.tar_intervals of engine.all_pairs; None beyond MAX_PAIRS pairs.

    Args:
        images: features [N, D] and labels [N].
        others: as for all_pairs; both have labels.
        tar_at_far: of engine.all_pairs_metrics.
        resampling: how often people are drawn.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.repeat(np.arange(20), 3)
        >>> features = rng.standard_normal((20, 8))[labels] + rng.standard_normal((60, 8)) / 2
        >>> point = {"tar": 0.9, "far": 0.1, "true_accepts": 54, "false_accepts": 171}
        >>> entry = {"far": 0.1, "resolvable": True, "strict": {**point, "threshold": 0.5}}
        >>> found = all_pairs_intervals(LabeledFeatures(features, labels), None, [entry])
        >>> found.intervals["count"], found.thresholds[0]["threshold_cosine"]
        (20, 0.5)
    """
    second = images if others is None else others
    pairs = len(images.features) * len(second.features)
    if pairs > MAX_PAIRS * (2 if others is None else 1):
        return None
    labels = [np.asarray(side.labels) for side in (images, second)]
    names, codes = np.unique(np.concatenate(labels), return_inverse=True)
    people = codes[: len(labels[0])], codes[len(labels[0]) :]
    sizes = [np.bincount(side, minlength=len(names)) for side in people]
    units = [np.asarray(normalize(side.features), np.float32) for side in (images, second)]
    same, same_units, different, different_units = _scores(units, people, others is None)
    scores = UnitScores(
        same,
        same_units,
        different,
        different_units,
        CrossedTotals(sizes[0], None if others is None else sizes[1]),
        Units(PEOPLE, (len(names),)),
    )
    return tar_intervals(tar_at_far, scores, resampling)


def _scores(
    units: Sequence[np.ndarray], people: Sequence[np.ndarray], within: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return same scores [S], their people, different scores [D], and their people [D, 2].

    units: features of length 1, of both sides. within: the pairs are i < j of one side.
    """
    same, owners, different, both = [], [], [], []
    for start in range(0, len(units[0]), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        cosines = units[0][rows] @ units[1].T
        first, second = people[0][rows, None], people[1][None]
        equal = first == second
        counted = np.ones_like(equal)
        if within:
            counted = (
                np.arange(len(units[1]))[None] > np.arange(start, start + len(cosines))[:, None]
            )
        mated, apart = np.nonzero(equal & counted), np.nonzero(~equal & counted)
        same.append(cosines[mated])
        owners.append(people[0][rows][mated[0]])
        different.append(cosines[apart])
        ends = (people[0][rows][apart[0]], people[1][apart[1]])
        both.append(np.stack(ends, axis=1).astype(np.int32))
    joined = (np.concatenate(parts) for parts in (same, owners, different, both))
    return tuple(joined)  # type: ignore[return-value]
