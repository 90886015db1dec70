"""One pass over the tiles of all pairs: counts above edges, and the few scores that are wanted."""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from uniface_jax.evaluate.all_pairs.largest import Hardest, Largest
from uniface_jax.evaluate.all_pairs.tiles import (
    EDGES,
    SEGMENT,
    Bounds,
    PairTiles,
    Tile,
    count_all,
    count_different,
    same_positions,
    take,
)

_TILES_IN_FLIGHT = 2  # by which a device is ahead of the host


@dataclass(frozen=True)
class Wanted:
    """Questions of a pass about the scores of different pairs.

    edges: how many are at least each of these. intervals: the scores s with low <= s < high, given
    up where there are more than `limit`. top: the `keep` largest of those >= a bound, or None.
    same: whether the scores of same pairs are wanted as well.
    """

    edges: tuple[np.float32, ...] = ()
    intervals: tuple[tuple[np.float32, np.float32], ...] = ()
    top: tuple[np.float32, int] | None = None
    limit: int = 0
    same: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """Answers of a pass.

    counts: of each of Wanted's edges and of the intervals' ends. intervals: scores, float32 [K]
    falling, None where given up. top: scores as Largest.falling, and whether nothing was dropped.
    same: the scores of same pairs, float32 [positives] rising, where they were wanted.
    """

    counts: dict[np.float32, int]
    intervals: tuple[np.ndarray | None, ...]
    top: np.ndarray | None
    top_exact: bool
    same: np.ndarray | None


class _Submitted(NamedTuple):
    """A tile whose work a device has begun: its scores, and those of its different pairs alone.

    counts, hits: of tiles.count_all.
    """

    tile: Tile
    bounds: Bounds | None
    scores: jax.Array
    different: jax.Array
    counts: jax.Array
    hits: jax.Array


class _Collector:
    """State of a pass."""

    def __init__(
        self, tiles: PairTiles, wanted: Wanted, hard_same: Hardest, hard_different: Hardest
    ) -> None:
        self.tiles, self.wanted = tiles, wanted
        self.hard_same, self.hard_different = hard_same, hard_different
        ends = {end for interval in wanted.intervals for end in interval}
        self.edges = sorted(set(wanted.edges) | ends)
        self.counts = np.zeros(len(self.edges), np.int64)
        self.held: list[list[np.ndarray] | None] = [[] for _ in wanted.intervals]
        self.sizes = [0] * len(wanted.intervals)
        self.top = None if wanted.top is None else Largest(wanted.top[1], wanted.top[0])
        self.same: list[np.ndarray] = []
        self._prepare()

    def _prepare(self) -> None:
        """Set the edges and weights that the devices count with: the top's bound moves."""
        slots = -(-(len(self.edges) + 1) // EDGES) * EDGES
        edges, weights = np.full(slots, np.inf, np.float32), np.zeros(slots, np.int32)
        edges[: len(self.edges)] = self.edges
        for (low, high), held in zip(self.wanted.intervals, self.held, strict=True):
            if held is not None:
                weights[self.edges.index(low)] += 1
                weights[self.edges.index(high)] -= 1
        if self.top is not None:
            edges[-1], weights[-1] = self.top.bound, 1
        self.device_edges, self.weights = edges, weights

    def submit(self, tile: Tile, device: int) -> _Submitted:
        """Start a tile's work on a device."""
        bounds = self.tiles.bounds(tile)
        scores = self.tiles.product(tile, device)
        if bounds is None:
            counts, hits = count_all(scores, self.device_edges, self.weights)
            return _Submitted(tile, None, scores, scores, counts, hits)
        counts, hits, masked = count_different(scores, bounds, self.device_edges, self.weights)
        return _Submitted(tile, bounds, scores, masked, counts, hits)

    def receive(self, submitted: _Submitted) -> None:
        """Take in a tile's results."""
        tile, bounds, scores, different, counts, hits = submitted
        self.counts += np.asarray(counts)[: len(self.counts)]
        segments = np.flatnonzero(np.asarray(hits))
        if len(segments):
            self._collect(tile, segments, take(different, segments, SEGMENT))
        if self.wanted.same and bounds is not None:
            position = same_positions(bounds[1], bounds[2], self.tiles.shape[1])
            if len(position):
                same = take(scores, position, 1)[:, 0]
                self.same.append(same)
                best = self.hard_same.candidates(same)
                if len(best):
                    rows = self.tiles.pair_rows(tile, position[best])
                    self.hard_same.push(same[best], *rows)

    def _collect(self, tile: Tile, segments: np.ndarray, values: np.ndarray) -> None:
        """Take in `values`, float32 [K, SEGMENT]: the segments [K] that hold wanted scores."""
        for n, (low, high) in enumerate(self.wanted.intervals):
            held = self.held[n]
            if held is None:
                continue
            inside = values[(values >= low) & (values < high)]
            held.append(inside)
            self.sizes[n] += len(inside)
            if self.sizes[n] > self.wanted.limit:
                self.held[n] = None
                self._prepare()
        best = self.hard_different.candidates(values.reshape(-1))
        if len(best):
            position = segments[best // SEGMENT] * SEGMENT + best % SEGMENT
            rows = self.tiles.pair_rows(tile, position)
            self.hard_different.push(values.reshape(-1)[best], *rows)
        if self.top is not None:
            bound = self.top.bound
            self.top.push(values)
            if self.top.bound != bound:
                self._prepare()

    def found(self) -> Found:
        """Return the answers of the pass."""
        return Found(
            counts={edge: int(n) for edge, n in zip(self.edges, self.counts, strict=True)},
            intervals=tuple(
                None if held is None else np.sort(_joined(held))[::-1] for held in self.held
            ),
            top=None if self.top is None else self.top.falling(),
            top_exact=self.top is not None and self.top.exact,
            same=np.sort(_joined(self.same)) if self.wanted.same else None,
        )


def run_pass(
    tiles: PairTiles,
    wanted: Wanted,
    hard_same: Hardest,
    hard_different: Hardest,
    progress: str | None = None,
) -> Found:
    """Run once over all tiles, on all their devices.

    hard_same and hard_different take in the pairs that the pass comes by: all same pairs, where
    they are wanted, and the different ones that are in the top. progress: title of a bar.
    """
    collector = _Collector(tiles, wanted, hard_same, hard_different)
    queue: deque[_Submitted] = deque()
    size = tiles.shape[0] * tiles.shape[1]
    with tqdm(
        total=len(tiles.tiles) * size,
        desc=progress,
        disable=progress is None,
        unit=" pairs",
        unit_scale=True,
        mininterval=0.5,
    ) as bar:
        for n, tile in enumerate(tiles.tiles):
            queue.append(collector.submit(tile, n % len(tiles.devices)))
            if len(queue) > _TILES_IN_FLIGHT * len(tiles.devices):
                collector.receive(queue.popleft())
                bar.update(size)
        while queue:
            collector.receive(queue.popleft())
            bar.update(size)
    return collector.found()


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *parts])
