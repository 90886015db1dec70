"""People: the groups among a label's images, the images far from them, and labels of one person.

All scores are mean cosines of pairs: of an image with a person's images, or of two people's. Their
expectation does not depend on how many images there are, so one threshold fits all people.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from uniface_jax.evaluate.all_pairs.above import PairsFound
from uniface_jax.evaluate.metrics.verification import normalize

MAX_CLUSTERED = 1024  # images of a person whose pairs are all compared; others join what they find


@dataclass(frozen=True, eq=False)
class People:
    """C people and their N images.

    Attributes:
        group: int32 [N], which group of its label an image is in: 0 is the largest.
        sizes: int64 [C], images in each label's group 0; 0 for a label without images.
        centers: float32 [C, D], the mean of the unit features of group 0.
        own: float32 [N], the mean cosine of an image with the others of group 0, nan where there
            is no other.
    """

    group: np.ndarray
    sizes: np.ndarray
    centers: np.ndarray
    own: np.ndarray


def groups_of(units: np.ndarray, threshold: float) -> np.ndarray:
    """Return the group of each image of one label, int [n]: the largest is 0.

    units: unit features [n, D]. Average linkage: groups are joined while the mean cosine between
    them is at least `threshold`. Of equally large groups the one of the greater mean cosine comes
    first.

    >>> groups_of(np.array([[1.0, 0], [0, 1], [0.8, 0.6], [0.6, 0.8]]), 0.4).tolist()
    [0, 0, 0, 0]
    >>> groups_of(np.array([[0, 1], [1.0, 0], [0.96, 0.28]]), 0.5).tolist()
    [1, 0, 0]
    """
    count = len(units)
    if count == 1:
        return np.zeros(1, np.int64)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_CLUSTERED)).astype(int))
    some = np.asarray(units[chosen], np.float64)
    distances = 1 - some @ some.T
    condensed = np.clip(distances[np.triu_indices(len(some), 1)], 0, None)
    found = fcluster(linkage(condensed, "average"), 1 - threshold, "distance") - 1
    sums = np.zeros((found.max() + 1, units.shape[1]))
    np.add.at(sums, found, some)
    sizes = np.bincount(found)
    group = np.empty(count, np.int64)
    group[chosen] = found
    rest = np.setdiff1d(np.arange(count), chosen)
    if len(rest):
        scores = units[rest] @ (sums / sizes[:, None]).T
        best = scores.argmax(axis=1)
        alone = scores[np.arange(len(rest)), best] < threshold
        best[alone] = len(sizes) + np.arange(alone.sum())
        group[rest] = best
        sizes = np.bincount(group)
    coherence = np.zeros(len(sizes))
    lengths = (sums**2).sum(1)
    in_sums = np.bincount(found, minlength=len(sums))
    coherence[: len(sums)] = (lengths - in_sums) / np.maximum(in_sums * (in_sums - 1), 1)
    ranks = np.empty(len(sizes), np.int64)
    ranks[np.lexsort((-coherence, -sizes))] = np.arange(len(sizes))
    ranked: np.ndarray = ranks[group]
    return ranked


def group_people(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    threshold: float,
    tick: Callable[[int], object] = lambda images: None,
) -> People:
    """Return the people of features [N, D], perhaps memory-mapped, by labels, int [N].

    One person's features are in memory at a time, beside the C centers. tick: is called with the
    number of images done. Raises UserError for a feature that is zero or not finite.
    """
    group = np.zeros(len(labels), np.int32)
    own = np.full(len(labels), np.nan, np.float32)
    sizes = np.zeros(num_classes, np.int64)
    centers = np.zeros((num_classes, features.shape[1]), np.float32)
    for label, rows in rows_by_label(labels):
        units = normalize(features[rows], "image", rows)
        found = groups_of(units, threshold)
        main = units[found == 0]
        total = main.sum(0)
        group[rows], sizes[label], centers[label] = found, len(main), total / len(main)
        others = len(main) - (found == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = (units @ total - (found == 0)) / others
        own[rows] = np.where(others > 0, scores, np.nan)
        tick(len(rows))
    return People(group, sizes, centers, own)


def rows_by_label(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each label that has images, and their rows, int64 rising."""
    order = np.argsort(labels, kind="stable")
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    for rows in np.split(order, ends):
        if len(rows):
            yield int(labels[rows[0]]), rows


def best_others(
    found: Iterator[PairsFound], labels: np.ndarray, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the other person most like each of `images` queries, int64, and the score, float32.

    found: pairs of queries and people; labels: int [images], each query's own. -1 and -inf where
    no other person is among the pairs.
    """
    person, score = np.full(images, -1, np.int64), np.full(images, -np.inf, np.float32)
    for pairs in found:
        other = pairs.second != labels[pairs.first]
        first, second, scores = (column[other] for column in pairs)
        order = np.lexsort((second, -scores, first))
        first, begins = np.unique(first[order], return_index=True)
        second, scores = second[order][begins], scores[order][begins]
        better = scores > score[first]
        person[first[better]], score[first[better]] = second[better], scores[better]
    return person, score
