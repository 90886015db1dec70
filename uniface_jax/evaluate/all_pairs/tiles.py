"""Pairs of one set of features, or of two, as tiles of a score matrix that is never held.

Rows are sorted by identity, so that same pairs lie in few tiles and all the others need no mask.
Every pair belongs to one tile and every tile is one product of the same shape by the same compiled
program: gone through again, it gives the same bits again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.verification import normalize

SEGMENT = 128  # neighboring columns that are counted together; at most 255, see _counts
EDGES = 4  # counters in one 32-bit word: edges come in multiples of it
_SAMPLE_BLOCK = 1024  # rows and columns
_CPU_BLOCK, _GPU_BLOCK = 1024, 8192  # rows: 4 MB stay in a core's cache; GPUs want more

Tile = tuple[int, int]  # numbers of the row's and the column's block


class Bounds(NamedTuple):
    """Columns of a tile that are pairs: first, same_from, same_to int32 [rows].

    In a row, pairs are the columns from `first` on and below `end`, same pairs those from same_from
    and below same_to.
    """

    first: np.ndarray
    same_from: np.ndarray
    same_to: np.ndarray
    end: int


@dataclass(frozen=True, eq=False)
class LabeledFeatures:
    """Features of images, and whose faces they are.

    features: [N, D] of any float type; a np.memmap will do. labels: [N] numbers or strings, equal
    for images of one person; None for a second set that shows nobody of the first.
    """

    features: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Tiling:
    """Form in which the scores of pairs are computed.

    normalized: the features have length 1 already; otherwise they are brought to it, block by
    block. block: at most so many rows and columns of a tile; None fits the device. devices: None
    for all of this process.
    """

    normalized: bool = False
    block: int | None = None
    devices: Sequence[jax.Device] | None = None


class _Spans(NamedTuple):
    """Sorted columns that pair with each sorted row, int [n] each.

    Pairs are the columns from `first` on, same pairs those from same_from and below same_to.
    """

    first: np.ndarray
    same_from: np.ndarray
    same_to: np.ndarray


class PairTiles:
    """Tiles of the pairs i < j of one set of images, or of every pair of one of each of two sets.

    positives, negatives: how many pairs have the same label and different ones. row_order [n],
    column_order [m]: the row of the given array at each sorted position. tiles: row and column
    block of each tile that holds a pair; shape: rows and columns of a tile.
    """

    def __init__(
        self,
        images: LabeledFeatures,
        others: LabeledFeatures | None = None,
        tiling: Tiling = Tiling(),
    ) -> None:
        self.devices = list(tiling.devices or jax.local_devices())
        largest = tiling.block or (_CPU_BLOCK if self.devices[0].platform == "cpu" else _GPU_BLOCK)
        codes, other_codes = _codes(images, others)
        self.row_order, self._codes = _sorted(codes)
        rows = _block_size(len(codes), largest)
        row_blocks = _blocks(images.features, self.row_order, rows, "image", tiling.normalized)
        self._rows = [jax.device_put(row_blocks, device) for device in self.devices]
        if others is None:
            self.column_order = self.row_order
            self._other_codes: np.ndarray | None = self._codes
            self._spans = _spans_within(self._codes)
            columns, column_blocks, self._columns = rows, row_blocks, self._rows
        else:
            self._other_codes = None
            self.column_order = np.arange(len(others.features))
            if other_codes is not None:
                self.column_order, self._other_codes = _sorted(other_codes)
            self._spans = _spans_between(self._codes, self._other_codes)
            columns = _block_size(len(others.features), largest)
            column_blocks = _blocks(
                others.features, self.column_order, columns, "other image", tiling.normalized
            )
            self._columns = [jax.device_put(column_blocks, device) for device in self.devices]
        self.shape = rows, columns
        self.positives = int(np.sum(self._spans.same_to - self._spans.same_from))
        pairs = int(np.sum(len(self.column_order) - self._spans.first))
        self.negatives = pairs - self.positives
        self.tiles: list[Tile] = [
            (i, j)
            for i in range(len(row_blocks))
            for j in range(i if others is None else 0, len(column_blocks))
        ]
        other_features = images.features if others is None else others.features
        self._sources = (images.features, other_features, tiling.normalized)

    def product(self, tile: Tile, device: int) -> jax.Array:
        """Return the scores of a tile, float32 `shape`, on devices[device]; padding scores 0."""
        scores: jax.Array = _product(self._rows[device][tile[0]], self._columns[device][tile[1]])
        return scores

    def bounds(self, tile: Tile) -> Bounds | None:
        """Return the columns of a tile that are pairs; None where all of it are different ones."""
        (i, j), (height, width) = tile, self.shape
        rows = slice(i * height, (i + 1) * height)
        start, end = j * width, len(self.column_order) - j * width
        first, same_from, same_to = (
            np.clip(x[rows] - start, 0, width).astype(np.int32) for x in self._spans
        )
        full = len(first) == height and end >= width
        if full and not first.any() and not np.any(same_to > same_from):
            return None
        padding = (0, height - len(first))
        return Bounds(
            np.pad(first, padding, constant_values=width),
            np.pad(same_from, padding, constant_values=width),
            np.pad(same_to, padding, constant_values=width),
            min(end, width),
        )

    def sample_different(self, pairs: int, seed: int = 0) -> np.ndarray:
        """Return the scores of different pairs among about `pairs` random ones, falling.

        They are float32. Random images are taken against random images, block by block: no random
        access to single pairs.
        """
        rng = np.random.default_rng(seed)
        size = [min(_SAMPLE_BLOCK, len(self.row_order)), min(_SAMPLE_BLOCK, len(self.column_order))]
        rounds = -(-pairs // (size[0] * size[1]))
        rounds = min(
            rounds, -(-len(self.row_order) * len(self.column_order) // (size[0] * size[1]))
        )
        samples = [self._random_different(rng, size) for _ in range(rounds)]
        return np.sort(np.concatenate(samples))[::-1]

    def _random_different(self, rng: np.random.Generator, size: list[int]) -> np.ndarray:
        features, others, normalized = self._sources
        rows, columns = (
            rng.choice(len(order), count, replace=False)
            for order, count in zip((self.row_order, self.column_order), size, strict=True)
        )
        # Padded to a block's size, so that few shapes compile.
        sides = (
            _blocks(source, order[chosen], _block_size(count, _SAMPLE_BLOCK), "image", normalized)
            for source, order, chosen, count in zip(
                (features, others),
                (self.row_order, self.column_order),
                (rows, columns),
                size,
                strict=True,
            )
        )
        scores = np.asarray(_product(*(side[0] for side in sides)))[: size[0], : size[1]]
        if self._other_codes is None:
            return scores.reshape(-1)
        different = self._codes[rows][:, None] != self._other_codes[columns][None]
        found: np.ndarray = scores[different]
        return found

    def pair_rows(self, tile: Tile, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows in the given arrays, int [K] each, of flat positions [K] in a tile."""
        row, column = np.divmod(position, self.shape[1])
        return (
            self.row_order[tile[0] * self.shape[0] + row],
            self.column_order[tile[1] * self.shape[1] + column],
        )


def same_positions(same_from: np.ndarray, same_to: np.ndarray, width: int) -> np.ndarray:
    """Return the flat positions, int [K], of a tile's same pairs; see Bounds."""
    lengths = np.maximum(same_to - same_from, 0).astype(np.int64)
    starts = np.arange(len(lengths)) * width + same_from
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


@jax.jit
def _product(rows: jax.Array, columns: jax.Array) -> jax.Array:
    # Full float32: with TF32 a threshold would be good to three digits.
    return jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def count_all(
    scores: jax.Array, edges: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Count the scores of a tile full of different pairs.

    scores: float32 [rows, columns]; edges: float32 [E], E a multiple of EDGES; weights: int32 [E].
    Returns the scores >= each edge, int32 [E], and for each segment of SEGMENT columns the
    weighted sum of its counts, int32 [rows * columns / SEGMENT].
    """
    return _counts(scores, edges, weights)


@jax.jit
def count_different(
    scores: jax.Array,
    bounds: Bounds,
    edges: jax.Array,
    weights: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Count as count_all, of different pairs alone; third, the scores with all others at -inf."""
    first, same_from, same_to, end = bounds
    column = jnp.arange(scores.shape[1], dtype=jnp.int32)[None]
    counted = (column >= first[:, None]) & (column < end)
    same = (column >= same_from[:, None]) & (column < same_to[:, None])
    masked = jnp.where(counted & ~same, scores, -jnp.inf)
    return *_counts(masked, edges, weights), masked


def _counts(scores: jax.Array, edges: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Four counters of 8 bits ride in one integer sum, the only reduction over single scores; an
    # integer sum is also one that compilers reorder and so vectorise.
    segments = scores.reshape(scores.shape[0], -1, SEGMENT)
    totals, hits = [], jnp.zeros(segments.shape[:2], jnp.int32)
    for start in range(0, len(edges), EDGES):
        ones = [(segments >= edges[start + k]).astype(jnp.uint32) << (8 * k) for k in range(EDGES)]
        packed = jnp.sum(ones[0] + ones[1] + ones[2] + ones[3], axis=-1, dtype=jnp.uint32)
        for k in range(EDGES):
            count = ((packed >> (8 * k)) & 255).astype(jnp.int32)
            totals.append(jnp.sum(count))
            hits += weights[start + k] * count
    return jnp.stack(totals), hits.reshape(-1)


def take(scores: jax.Array, position: np.ndarray, width: int) -> np.ndarray:
    """Return scores.reshape(-1, width)[position], on the host: float32 [K, width]."""
    if next(iter(scores.devices())).platform == "cpu":
        chosen: np.ndarray = np.asarray(scores).reshape(-1, width)[position]  # reads no others
        return chosen
    padded = np.zeros(1 << max(len(position) - 1, 0).bit_length(), np.int32)  # few shapes compile
    padded[: len(position)] = position
    return np.asarray(_take(scores, padded, width))[: len(position)]


@partial(jax.jit, static_argnames="width")
def _take(scores: jax.Array, position: jax.Array, width: int) -> jax.Array:
    return scores.reshape(-1, width)[position]


def _checked(images: LabeledFeatures, which: str) -> LabeledFeatures:
    features, labels = images.features, images.labels
    if features.ndim != 2 or (labels is not None and np.asarray(labels).ndim != 1):
        raise ValueError(
            f"{which}features {features.shape} and labels of {np.asarray(labels).ndim} axes; "
            "expected [N, D], [N]"
        )
    if len(features) == 0:
        raise UserError(f"no {which}images; expected at least one")
    if labels is not None and len(labels) != len(features):
        raise UserError(f"{len(labels)} labels for {len(features)} {which}images; expected as many")
    return images


def _codes(
    images: LabeledFeatures, others: LabeledFeatures | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the labels of both sets as numbers in common, int [n] and [m]; None without labels."""
    labels = _checked(images, "").labels
    if labels is None:
        raise ValueError("no labels of the first set; expected [N]")
    if others is None:
        return np.unique(labels, return_inverse=True)[1], None
    _checked(others, "other ")
    widths = images.features.shape[1], others.features.shape[1]
    if widths[0] != widths[1]:
        raise UserError(
            f"features of {widths[0]} and of {widths[1]} dimensions; "
            "expected both sets from one model"
        )
    if others.labels is None:
        return np.unique(labels, return_inverse=True)[1], None
    both = np.concatenate([np.asarray(labels), np.asarray(others.labels)])
    codes = np.unique(both, return_inverse=True)[1]
    return codes[: len(labels)], codes[len(labels) :]


def _sorted(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(codes, kind="stable")
    return order, codes[order]


def _spans_within(codes: np.ndarray) -> _Spans:
    """Return the spans of one set: its sorted codes [n] against themselves, i < j."""
    after = np.arange(1, len(codes) + 1)
    return _Spans(after, after, np.searchsorted(codes, codes, side="right"))


def _spans_between(codes: np.ndarray, others: np.ndarray | None) -> _Spans:
    """Return the spans of two sets: sorted codes [n] and [m], or None for those of nobody."""
    start = np.zeros(len(codes), np.int64)
    if others is None:
        return _Spans(start, start, start)
    left, right = (np.searchsorted(others, codes, side=side) for side in ("left", "right"))
    return _Spans(start, left, right)


def _block_size(rows: int, largest: int) -> int:
    """Return the rows of a block: a multiple of SEGMENT, at most `largest` or what there is."""
    return SEGMENT * max(1, min(largest // SEGMENT, -(-rows // SEGMENT)))


def _blocks(
    features: np.ndarray, order: np.ndarray, size: int, kind: str, normalized: bool
) -> list[np.ndarray]:
    """Return the sorted features in float32 blocks [size, D] of unit rows; padding rows are 0."""
    blocks = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        block = np.zeros((size, features.shape[1]), np.float32)
        unit = features[rows] if normalized else normalize(features[rows], kind, rows)
        if normalized and not np.isfinite(unit).all():
            row = rows[int(np.argmin(np.isfinite(unit).all(axis=1)))]
            raise UserError(f"the feature of {kind} {row} is not finite; expected finite numbers")
        block[: len(rows)] = unit
        blocks.append(block)
    return blocks
