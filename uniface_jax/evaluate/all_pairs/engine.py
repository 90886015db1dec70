"""All pairs of a set of images, or of two sets: TAR at FAR with the exact order statistic.

1.6 million images have 1.3e12 different pairs. Their scores are computed tile by tile and never
held; the threshold is still the one that sorting them all would give, and the counts are exact.
The first pass keeps the largest scores down to the last rank asked for. Where a FAR is so high
that these do not fit in memory, it counts between edges instead, and the next pass keeps the few
scores between the two edges that enclose the statistic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.all_pairs.curve import (
    COMPLETE_SCORES,
    Line,
    ScoreHistogram,
    area,
    curve_of,
    histogram_of,
    line_of,
    point_at,
)
from uniface_jax.evaluate.all_pairs.largest import Hardest, HardPairs
from uniface_jax.evaluate.all_pairs.one_pass import run_pass
from uniface_jax.evaluate.all_pairs.search import BUDGET_SCORES, Search, rank_of_far
from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures, PairTiles, Tiling
from uniface_jax.evaluate.metrics.roc import OperatingPoint, Roc

FARS = (1e-6,)
HARDEST_PAIRS = 24  # of each kind
_COUNTED_FARS = (1e-1, 1e-2, 1e-3)  # points of the curve that the first pass counts on its way
_SAMPLED_PAIRS = 1 << 24


@dataclass(frozen=True)
class Targets:
    """FARs to find the TAR at, each in (0, 1], and how much to keep on the way.

    hardest: how many pairs of each kind to name. budget: how many scores of different pairs may be
    held at a time.
    """

    fars: Sequence[float] = FARS
    hardest: int = HARDEST_PAIRS
    budget: int = BUDGET_SCORES


@dataclass(frozen=True)
class PairsAtFar:
    """TAR at one target FAR, strict: the largest TAR whose FAR does not exceed the target.

    resolvable: whether the target is at least 1 / negatives; below, FAR 0 is what is reported.
    """

    target: float
    resolvable: bool
    strict: OperatingPoint


@dataclass(frozen=True, eq=False)
class AllPairs:
    """Result of all_pairs.

    positives, negatives: same and different pairs. points: one for each FAR. curve: exact points
    of the ROC, one at every score where `complete`; line: the same with estimates in between, to
    be drawn. auc: lower and upper bound of the area under the ROC, equal where it is exact.
    hardest_same: the same pairs of lowest score, hardest_different: the different ones of highest.
    passes: how often all pairs were scored.
    """

    positives: int
    negatives: int
    points: tuple[PairsAtFar, ...]
    curve: Roc
    complete: bool
    line: Line
    auc: tuple[float, float]
    histogram: ScoreHistogram
    hardest_same: HardPairs
    hardest_different: HardPairs
    passes: int


def all_pairs(
    images: LabeledFeatures,
    others: LabeledFeatures | None = None,
    *,
    targets: Targets = Targets(),
    tiling: Tiling = Tiling(),
    progress: str | None = None,
) -> AllPairs:
    """Return TAR at each FAR over the pairs of a set of images, or of two sets.

    Args:
        images: the pairs i < j of these, if they are the only ones.
        others: then the pairs are each of `images` with each of `others`.
        targets: the FARs, and how much is kept on the way to them.
        tiling: how scores are computed, which are float32 cosines.
        progress: title of a progress bar; None shows none.

    Returns:
        The exact numbers, as sorting all scores would give them. Scores of same pairs are all
        held, 4 bytes each.

    Raises:
        UserError: a feature is not finite or zero, a set is empty or has not as many labels, there
            is no same or no different pair, or a FAR is out of range.

    Example:
        >>> features = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
        >>> result = all_pairs(
        ...     LabeledFeatures(features, np.array(["ann", "ann", "bob", "bob"])),
        ...     targets=Targets(fars=(0.1,)),
        ... )
        >>> result.positives, result.negatives, result.points[0].strict.tar
        (2, 4, 1.0)
    """
    tiles = PairTiles(images, others, tiling)
    if tiles.positives == 0 or tiles.negatives == 0:
        kind = "different" if tiles.positives == 0 else "same"
        raise UserError(
            f"all {tiles.positives + tiles.negatives} pairs of {len(tiles.row_order)} images are "
            f"{kind} ones; expected same and different ones"
        )
    return search_pairs(tiles, None, targets, progress)


def search_pairs(
    tiles: PairTiles,
    same: tuple[np.ndarray, HardPairs] | None,
    targets: Targets,
    progress: str | None = None,
) -> AllPairs:
    """Return all_pairs of tiles at hand.

    same: rising scores of same pairs that are not among the tiles, and the hardest of them.
    """
    fars, hardest, budget = targets.fars, targets.hardest, targets.budget
    for far in fars:
        if not 0 < far <= 1:
            raise UserError(f"FAR {far}: expected more than 0 and at most 1")
    total = tiles.negatives
    sample = np.empty(0, np.float32)
    if total > budget:
        sample = tiles.sample_different(_SAMPLED_PAIRS)
    search = Search(total, sample, budget)
    hard_same, hard_different = Hardest(hardest, -1), Hardest(hardest, 1)
    scores = None if same is None else same[0]
    passes = 0
    while (unknown := _unknown_ranks(search, fars, hardest)) or scores is None:
        wanted = search.plan(unknown, _COUNTED_FARS, same=scores is None)
        title = f"{progress}, pass {passes + 1}" if progress and passes else progress
        found = run_pass(tiles, wanted, hard_same, hard_different, title)
        search.learn(wanted, found)
        scores = found.same if scores is None else scores
        passes += 1
    strict = [point_at(search, scores, far) for far in fars]
    curve = curve_of(search, scores, strict)
    return AllPairs(
        positives=len(scores),
        negatives=total,
        points=tuple(
            PairsAtFar(float(far), bool(1 / total <= far), point)
            for far, point in zip(fars, strict, strict=True)
        ),
        curve=curve,
        complete=total + len(scores) <= min(budget, COMPLETE_SCORES),
        line=line_of(curve, scores, sample),
        auc=area(search, scores, curve),
        histogram=histogram_of(search, scores, sample),
        hardest_same=hard_same.pairs() if same is None else same[1],
        hardest_different=hard_different.pairs(),
        passes=passes,
    )


def _unknown_ranks(search: Search, fars: Sequence[float], hardest: int) -> set[int]:
    """Return the ranks of the scores that are still to be found."""
    wanted = {min(hardest, search.total) - 1} if hardest else set()
    for far in fars:
        allowed = rank_of_far(far, search.total)
        first_rejected = search.statistic(allowed) if allowed < search.total else None
        if allowed == search.total:
            wanted.add(allowed - 1)
        elif first_rejected is None:
            wanted.add(allowed)
        elif first_rejected.larger:
            wanted.add(first_rejected.larger - 1)  # the last accepted one: a threshold is a score
    return {rank for rank in wanted if search.statistic(rank) is None}


def all_pairs_metrics(result: AllPairs) -> dict[str, Any]:
    """Return a result for JSON.

    `pairs`, `same`, `different` (counts), `auc` (`lower`, `upper`), `passes`, `tar_at_far`: a list
    of `far`, `resolvable` and `strict`, which has `tar`, `far`, `threshold` (a cosine; null where
    no pair is accepted), `true_accepts` and `false_accepts`.
    """
    lower, upper = result.auc
    return {
        "pairs": result.positives + result.negatives,
        "same": result.positives,
        "different": result.negatives,
        "auc": {"lower": lower, "upper": upper},
        "passes": result.passes,
        "tar_at_far": [
            {
                "far": point.target,
                "resolvable": point.resolvable,
                "strict": {
                    **vars(point.strict),
                    "threshold": point.strict.threshold
                    if np.isfinite(point.strict.threshold)
                    else None,
                },
            }
            for point in result.points
        ],
    }
