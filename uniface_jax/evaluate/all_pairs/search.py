"""Search for scores of given ranks among more of them than can be held.

A search keeps what passes over the scores have found: exact counts above edges, and all the scores
of some intervals. Ranks count from 0, the largest score, and equal scores have a rank each. A
random sample says where to look; nothing in an answer depends on it.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from uniface_jax.evaluate.all_pairs.largest import LOWEST, TINY, float_above
from uniface_jax.evaluate.all_pairs.one_pass import Found, Wanted

BUDGET_SCORES = 1 << 24  # of different pairs, held at a time: 64 MiB
_MAX_EDGES = 15  # of one pass: more cost more than another pass
_TRUSTED_PASSES = 2  # from then on the sample has misled, and bits are halved
_SUBNORMAL = int(TINY.view(np.int32)) - 1  # bits of the largest subnormal
_INFINITY = np.float32(np.inf)


@dataclass(frozen=True)
class Statistic:
    """A score, and how many scores are larger."""

    value: np.float32
    larger: int


@dataclass(frozen=True, eq=False)
class _Stored:
    """Scores, float32 [K] falling, of ranks `before` and on: all the scores of those ranks."""

    before: int
    scores: np.ndarray


class Search:
    """Search among `total` scores, with a `sample` of them, float32 [M] falling."""

    def __init__(self, total: int, sample: np.ndarray, budget: int = BUDGET_SCORES) -> None:
        self.total, self.budget, self._sample = total, budget, sample
        self._passes = 0
        self._edges: list[np.float32] = [LOWEST, _INFINITY]
        self._counts: dict[np.float32, int] = {LOWEST: total, _INFINITY: 0}
        self._stored: list[_Stored] = []

    def statistic(self, rank: int) -> Statistic | None:
        """Return the score of a rank (0 … total - 1), None while it is not known."""
        for stored in self._stored:
            if stored.before <= rank < stored.before + len(stored.scores):
                value = stored.scores[rank - stored.before]
                rising = stored.scores[::-1]
                larger = len(rising) - int(np.searchsorted(rising, value, side="right"))
                return Statistic(value, stored.before + larger)
        low, high = self._bracket(rank)
        if float_above(low) >= high:
            return Statistic(low, self._counts[high])
        return None

    def counted(self) -> list[tuple[np.float32, int]]:
        """Return every edge and how many scores are at least it; edges rise to inf."""
        return [(edge, self._counts[edge]) for edge in self._edges]

    def stored(self) -> list[tuple[int, np.ndarray]]:
        """Return the kept scores, falling, each time with the rank of the first of them."""
        return [(stored.before, stored.scores) for stored in self._stored]

    def plan(self, ranks: Iterable[int], spare: Iterable[float] = (), same: bool = False) -> Wanted:
        """Plan the next pass for the ranks that are not known yet; same: see Wanted.

        spare: shares of all scores, 0..1, near which a count would be welcome if it costs nothing.
        """
        unknown = sorted({rank for rank in ranks if self.statistic(rank) is None})
        top = self._plan_top(unknown) if self._passes == 0 else None
        edges: set[np.float32] = set()
        intervals: set[tuple[np.float32, np.float32]] = set()
        if top is not None:
            unknown = [rank for rank in unknown if rank >= top[1]]
        room = max(1, (_MAX_EDGES - 2 * len(unknown)) // max(1, len(unknown)))
        for rank in unknown:
            inside, interval = self._plan_rank(rank, room)
            edges.update(inside)
            if interval is not None:
                intervals.add(interval)
        for share in spare:
            if len(edges) + 2 * len(intervals) < 3 and len(self._sample):
                edge = self._sample[min(int(share * len(self._sample)), len(self._sample) - 1)]
                if top is None or edge < top[0]:
                    edges.add(edge)
        return Wanted(
            edges=tuple(sorted(edges)),
            intervals=tuple(sorted(intervals)),
            top=top,
            limit=self.budget,
            same=same,
        )

    def learn(self, wanted: Wanted, found: Found) -> None:
        """Take in the answers of a pass."""
        self._passes += 1
        for edge, count in found.counts.items():
            self._know(edge, count)
        if wanted.top is not None and found.top is not None:
            if found.top_exact:
                self._know(wanted.top[0], len(found.top))
            self._stored.append(_Stored(0, found.top))
        for (_, high), scores in zip(wanted.intervals, found.intervals, strict=True):
            if scores is not None:
                self._stored.append(_Stored(self._counts[high], scores))

    def _know(self, edge: np.float32, count: int) -> None:
        if edge not in self._counts:
            insort(self._edges, edge)
            self._counts[edge] = count

    def _bracket(self, rank: int) -> tuple[np.float32, np.float32]:
        """Return the nearest edges: the rank's score is at least the first, below the second."""
        counts = [-self._counts[edge] for edge in self._edges]  # rising
        at = bisect_right(counts, -rank - 1)
        return self._edges[at - 1], self._edges[at]

    def _plan_top(self, ranks: list[int]) -> tuple[np.float32, int] | None:
        """Return bound and count of the top: all scores if they fit, else to the last rank."""
        if self.total <= self.budget:
            return LOWEST, self.total
        fitting = [rank for rank in ranks if rank < self.budget // 2]
        if not fitting:
            return None
        at = rank_in_sample(fitting[-1], self.total, len(self._sample))[1]
        bound = self._sample[at] if at < len(self._sample) else LOWEST
        return bound, fitting[-1] + 1

    def _plan_rank(
        self, rank: int, room: int
    ) -> tuple[list[np.float32], tuple[np.float32, np.float32] | None]:
        """Return edges to count at, at most `room`, and an interval to keep, for one rank."""
        low, high = self._bracket(rank)
        above, count = self._counts[high], self._counts[low] - self._counts[high]
        if count <= self.budget:
            return [], (low, high)
        rising = self._sample[::-1]
        first, last = np.searchsorted(rising, low), np.searchsorted(rising, high)
        inside = rising[first:last][::-1]
        if self._passes >= _TRUSTED_PASSES or len(inside) == 0:
            return _between(low, high, room), None
        upper, lower = rank_in_sample(rank - above, count, len(inside))
        near_high = inside[upper] if upper >= 0 else high
        near_low = inside[lower] if lower < len(inside) else low
        if near_high <= near_low:
            near_high = float_above(near_low)
        expected = (min(lower, len(inside)) - max(upper, 0)) / len(inside) * count
        if expected <= self.budget / 2:
            return [], (near_low, near_high)
        steps = np.linspace(max(upper, 0), min(lower, len(inside) - 1), room + 2)[1:-1]
        near = {near_low, near_high, *(inside[int(step)] for step in steps)}
        edges = [edge for edge in near if low < edge < high]
        # A sample of equal scores has none that parts them.
        return edges or _between(low, high, room), None


def rank_in_sample(rank: int, total: int, sample: int) -> tuple[int, int]:
    """Return the ranks in a sample between which the score of `rank` is expected.

    The first is negative and the second `sample` or more where that may lie beyond the sample.
    Wider than chance alone would have it: the images of a sample's pairs come again and again.
    """
    expected = rank / total * sample
    spread = 8 + 4 * np.sqrt(expected) + 0.03 * expected
    return int(np.floor(expected - spread)), int(np.ceil(expected + spread))


def _between(low: np.float32, high: np.float32, count: int) -> list[np.float32]:
    """Return up to `count` floats strictly between two, evenly over the floats there are."""
    first, last = _ordinal(low), _ordinal(min(high, np.float32(np.finfo(np.float32).max)))
    count = min(count, last - first - 1)
    steps = [first + (last - first) * (k + 1) // (count + 1) for k in range(count)]
    return [_from_ordinal(step) for step in steps]


def _ordinal(value: np.float32) -> int:
    """Return a float32's place among all that are not subnormal; 0 and -0 have place 0."""
    place = max(0, int(np.abs(value).view(np.int32)) - _SUBNORMAL)
    return place if value >= 0 else -place


def _from_ordinal(place: int) -> np.float32:
    if place == 0:
        return np.float32(0)
    magnitude = np.int32(abs(place) + _SUBNORMAL).view(np.float32)
    return np.float32(magnitude if place > 0 else -magnitude)


def rank_of_far(far: float, total: int) -> int:
    """Return how many of `total` different pairs may be accepted: the largest count within far.

    >>> rank_of_far(1e-3, 5500)
    5
    """
    allowed = min(int(far * total), total)
    while allowed < total and (allowed + 1) / total <= far:
        allowed += 1
    while allowed / total > far:
        allowed -= 1
    return allowed
