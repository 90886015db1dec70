"""Pairs of a score or more, from a stream of blocks: for sets larger than a device's memory."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from uniface_jax.evaluate.all_pairs.tiles import (
    EDGES,
    SEGMENT,
    LabeledFeatures,
    PairTiles,
    Tile,
    Tiling,
    count_all,
    count_different,
    take,
)

BLOCK_IMAGES = 1 << 16  # on each side of what a device holds at a time
_TILES_IN_FLIGHT = 2  # by which a device is ahead of the host


class PairsFound(NamedTuple):
    """K pairs: rows first and second, int64 [K], and their cosines, float32 [K], in no order."""

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray


class _Submitted(NamedTuple):
    """A tile whose work a device has begun: its scores, and its segments' hits."""

    tile: Tile
    scores: jax.Array
    hits: jax.Array


def count_products(images: int, others: int | None = None) -> int:
    """Return how many products of features pairs_above computes.

    >>> count_products(4), count_products(4, 3)
    (6, 12)
    """
    return images * (images - 1) // 2 if others is None else images * others


def pairs_above(
    features: np.ndarray,
    others: np.ndarray | None = None,
    *,
    bound: float,
    block_images: int = BLOCK_IMAGES,
    tiling: Tiling = Tiling(),
    progress: str | None = None,
) -> Iterator[PairsFound]:
    """Yield the pairs whose cosine is at least `bound`, exactly, tile by tile.

    Args:
        features: [N, D], which may be memory-mapped: the pairs i < j of these, or
        others: [M, D], each of `features` with each of these.
        bound: the least cosine.
        block_images: rows of either side that a device holds at a time.
        tiling: how scores are computed.
        progress: title of a bar; None shows none.

    Raises:
        UserError: a feature is zero or not finite.

    Example:
        >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
        >>> [(f.first.tolist(), f.second.tolist()) for f in pairs_above(features, bound=0.9)]
        [([0], [2])]
    """
    rows = range(0, len(features), block_images)
    within = others is None
    right = features if others is None else others
    total = count_products(len(features), None if within else len(right))
    with tqdm(
        total=total, desc=progress, disable=progress is None, unit=" pairs", unit_scale=True
    ) as bar:
        for i in rows:
            for j in range(i if within else 0, len(right), block_images):
                one = within and i == j
                tiles = _tiles(
                    features[i : i + block_images],
                    None if one else right[j : j + block_images],
                    tiling,
                )
                offset = np.array([i, j])
                for found in _pairs_of(tiles, np.float32(bound)):
                    yield PairsFound(
                        found.first + offset[0], found.second + offset[1], found.scores
                    )
                bar.update(tiles.negatives)


def _tiles(block: np.ndarray, other: np.ndarray | None, tiling: Tiling) -> PairTiles:
    """Return the tiles of one block or of two, in which all pairs are of different labels."""
    images = LabeledFeatures(block, np.arange(len(block)))
    return PairTiles(images, None if other is None else LabeledFeatures(other), tiling)


def _pairs_of(tiles: PairTiles, bound: np.float32) -> Iterator[PairsFound]:
    """Yield the pairs of tiles that are at least `bound`; rows are those of the tiles' arrays."""
    edges, weights = np.full(EDGES, np.inf, np.float32), np.zeros(EDGES, np.int32)
    edges[0], weights[0] = bound, 1
    queue: deque[_Submitted] = deque()

    def received() -> PairsFound | None:
        tile, scores, hits = queue.popleft()
        segments = np.flatnonzero(np.asarray(hits))
        if not len(segments):
            return None
        values = take(scores, segments, SEGMENT)
        row, column = np.nonzero(values >= bound)
        first, second = tiles.pair_rows(tile, segments[row] * SEGMENT + column)
        return PairsFound(first, second, values[row, column])

    for number, tile in enumerate(tiles.tiles):
        bounds = tiles.bounds(tile)
        scores = tiles.product(tile, number % len(tiles.devices))
        if bounds is None:
            _, hits = count_all(scores, edges, weights)
        else:
            _, hits, scores = count_different(scores, bounds, edges, weights)
        queue.append(_Submitted(tile, scores, hits))
        if len(queue) > _TILES_IN_FLIGHT * len(tiles.devices) and (found := received()):
            yield found
    while queue:
        if found := received():
            yield found
