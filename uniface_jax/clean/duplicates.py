"""Duplicates: images of the same bytes, and the same photograph cropped or brightened anew.

Equal features do not tell a second photograph of a smiling minister from the same one. So features
name candidates, and pixels decide: the middle of one image is looked for in the other, at several
sizes, by a correlation that brightness and contrast do not change.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from uniface_jax.evaluate.all_pairs.above import PairsFound

NEIGHBORS = 2  # candidates an image may have as the nearest
SAME_PHOTOGRAPH = 0.95  # correlation from which two images are one photograph
_PATCH_PIXELS = 64  # side of the middle that is looked for
_SIZES = (0.84, 0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.13, 1.18)  # of it in the other image
_BUFFERED_PAIRS = 1 << 22
_BLOCK_PAIRS = 1024  # whose images are read at a time


def exact_originals(hashes: np.ndarray) -> np.ndarray:
    """Return for each image the first with the same hash, int64 [N]; hashes: uint8 [N, H].

    >>> exact_originals(np.array([[1, 1], [0, 2], [1, 1]], np.uint8)).tolist()
    [0, 1, 0]
    """
    keys = np.ascontiguousarray(hashes).view(f"V{hashes.shape[1]}").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    originals: np.ndarray = first[inverse]
    return originals


def nearest_pairs(found: Iterable[PairsFound], images: int, keep: int = NEIGHBORS) -> PairsFound:
    """Return the pairs that are among the `keep` nearest of either of their images.

    found: the pairs, each once. Memory is that of keep · N pairs and a buffer, however many come.
    Pairs are sorted by their rows, first < second.
    """
    held = PairsFound(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    waiting: list[PairsFound] = []
    size = 0
    for pairs in found:
        waiting.append(pairs)
        size += len(pairs.scores)
        if size > _BUFFERED_PAIRS + keep * images:
            held, waiting, size = _nearest([held, *waiting], keep), [], 0
    return _nearest([held, *waiting], keep)


def _nearest(parts: list[PairsFound], keep: int) -> PairsFound:
    first, second, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    first, second = np.minimum(first, second), np.maximum(first, second)
    image, pair = np.concatenate([first, second]), np.tile(np.arange(len(scores)), 2)
    # Equal scores: the pair that comes first by its rows.
    order = np.lexsort((second[pair], first[pair], -scores[pair], image))
    in_order = image[order]
    rank = np.arange(len(order)) - np.searchsorted(in_order, in_order, side="left")
    kept = np.zeros(len(scores), bool)
    kept[pair[order[rank < keep]]] = True
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((second[rows], first[rows]))]
    return PairsFound(first[rows], second[rows], scores[rows])


def photograph_likeness(image: np.ndarray, other: np.ndarray) -> float:
    """Return how much two images are one photograph, -1..1, though cropped or brightened.

    Images are uint8 RGB of one size. It is the greater of both directions of the correlation of one
    image's middle with the best place in the other, at the best of several sizes.

    >>> image = np.random.default_rng(0).integers(0, 200, (112, 112, 3), np.uint8)
    >>> photograph_likeness(image, image + 40) > 0.99
    True
    """
    gray = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (image, other)]
    return max(_found_in(gray[0], gray[1]), _found_in(gray[1], gray[0]))


def _found_in(image: np.ndarray, other: np.ndarray) -> float:
    top, left = ((side - _PATCH_PIXELS) // 2 for side in image.shape)
    patch = image[top : top + _PATCH_PIXELS, left : left + _PATCH_PIXELS]
    if patch.std() < 1:  # of one color: it is everywhere, or nowhere
        return 0.0
    best = -1.0
    for size in _SIZES:
        side = round(_PATCH_PIXELS * size)
        scaled = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
        best = max(best, float(cv2.matchTemplate(other, scaled, cv2.TM_CCOEFF_NORMED).max()))
    return best


def same_photographs(
    pairs: PairsFound,
    pixels: Callable[[int], np.ndarray],
    threshold: float = SAME_PHOTOGRAPH,
    tick: Callable[[int], object] = lambda pairs: None,
) -> PairsFound:
    """Return the pairs whose images are one photograph; `scores` are then their likeness.

    pixels: maps a row to uint8 RGB [112, 112, 3]; several threads call it. tick: is called with
    the number of pairs done.
    """
    likeness = np.zeros(len(pairs.scores), np.float32)

    def compare(number: int) -> None:
        first, second = int(pairs.first[number]), int(pairs.second[number])
        likeness[number] = photograph_likeness(pixels(first), pixels(second))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(likeness), _BLOCK_PAIRS):
            block = range(start, min(start + _BLOCK_PAIRS, len(likeness)))
            for _ in pool.map(compare, block):
                tick(1)
    kept = likeness >= threshold
    return PairsFound(pairs.first[kept], pairs.second[kept], likeness[kept])
