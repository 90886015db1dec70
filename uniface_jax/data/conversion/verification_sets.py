"""Verification sets of one's own: pairs drawn among labeled images, written as .bin or as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.data.formats import image_headers
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.formats.pair_lists import find_images, likely_roots, read_pair_lines
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes

FOLDS = 10
_TRIES = 50  # draws a pair of different people that is wanted, before there are too few


@dataclass(frozen=True, eq=False)
class ChosenPairs:
    """P pairs among K images: first, second int [P], indices into `names`; same bool [P]."""

    names: Sequence[str]
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


def draw_pairs(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Draw pairs of images, half of them of one person, no pair twice.

    Where fewer pairs of one kind are there, as many of both kinds are drawn. The kinds take turns,
    so that contiguous folds have equal shares of both.

    Args:
        labels: int [K], who is on each image.
        count: pairs to draw at most, even.
        seed: of the draw.

    Returns:
        first, second: int64 [P], first < second, and same: bool [P].

    Raises:
        UserError: fewer than ten pairs can be drawn.

    Example:
        >>> first, second, same = draw_pairs(np.repeat(np.arange(5), 3), count=20, seed=0)
        >>> len(first), int(same.sum()), same[:2].tolist().count(True)
        (20, 10, 1)
    """
    random = np.random.RandomState(seed)
    by_person = [np.flatnonzero(labels == person) for person in np.unique(labels)]
    counts = np.array([len(images) * (len(images) - 1) // 2 for images in by_person], np.int64)
    all_pairs = len(labels) * (len(labels) - 1) // 2
    half = int(min(count // 2, counts.sum(), all_pairs - counts.sum()))
    if 2 * half < FOLDS:
        raise UserError(
            f"{len(labels)} images of {len(by_person)} people: {counts.sum()} pairs of one person "
            f"and {all_pairs - counts.sum()} of two; {FOLDS} folds need five of each at least"
        )
    places = np.sort(_distinct(random, int(counts.sum()), half))
    ends = np.cumsum(counts)
    people = np.searchsorted(ends, places, side="right")
    same = [
        tuple(by_person[person][list(_pair_of(place - (ends[person] - counts[person])))])
        for person, place in zip(people.tolist(), places.tolist(), strict=True)
    ]
    rows = np.array([*same, *_different(random, labels, half, all_pairs)], np.int64)
    kinds = np.repeat([True, False], half)
    # One of each kind in turn, so that ten contiguous folds have equal shares.
    order = np.arange(2 * half).reshape(2, half)[:, random.permutation(half)].T.ravel()
    return rows[order, 0], rows[order, 1], kinds[order]


def _distinct(random: np.random.RandomState, total: int, count: int) -> np.ndarray:
    """Draw `count` different numbers below `total`, which may be billions."""
    if total <= 1 << 24:
        return random.permutation(total)[:count]
    found = np.unique(random.randint(0, total, 2 * count, dtype=np.int64))
    while len(found) < count:
        found = np.union1d(found, random.randint(0, total, count, dtype=np.int64))
    return random.permutation(found)[:count]


def _pair_of(place: int) -> tuple[int, int]:
    """Return the pair (i, j), i < j, at a place of all pairs, those of smaller j first."""
    second = int((1 + np.sqrt(1 + 8 * place)) // 2)
    while second * (second - 1) // 2 > place:  # of a rounded square root
        second -= 1
    return place - second * (second - 1) // 2, second


def _different(
    random: np.random.RandomState, labels: np.ndarray, count: int, total: int
) -> list[tuple[int, int]]:
    """Draw `count` pairs of different people."""
    if total <= 1 << 20:
        first, second = np.triu_indices(len(labels), 1)
        allowed = np.flatnonzero(labels[first] != labels[second])
        chosen = random.permutation(allowed)[:count]
        return list(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True))
    found: dict[tuple[int, int], None] = {}
    for _ in range(_TRIES):
        rows = random.randint(0, len(labels), (count, 2))
        for a, b in rows[labels[rows[:, 0]] != labels[rows[:, 1]]].tolist():
            if len(found) < count:
                found[min(a, b), max(a, b)] = None
    if len(found) < count:
        raise UserError(f"{len(found)} of {count} pairs of different people: ask for fewer --pairs")
    return list(found)


def of_source(source: Source, count: int, seed: int) -> ChosenPairs:
    """Draw pairs among the images of a source."""
    rows = [(item.label, item.name) for item in (source[i] for i in range(len(source)))]
    first, second, same = draw_pairs(np.array([label for label, _ in rows]), count, seed)
    return ChosenPairs([name for _, name in rows], first, second, same)


def of_list(file: Path, root: Path | None) -> tuple[Path, ChosenPairs]:
    """Read the pairs of a list, and return the folder of their images with them."""
    listed = read_pair_lines(file)
    folder, sides = find_images(file, listed, [root] if root else likely_roots(file))
    numbers: dict[str, int] = {}
    first, second = (
        np.array([numbers.setdefault(side[i], len(numbers)) for side in sides]) for i in range(2)
    )
    return folder, ChosenPairs(list(numbers), first, second, listed.same)


def write_bin(pairs: ChosenPairs, images: Sequence[bytes], destination: Path) -> None:
    """Write pairs as a .bin; UserError naming an image that is not a whole one of 112x112."""
    for number in np.unique(np.concatenate([pairs.first, pairs.second])).tolist():
        name = pairs.names[number]
        _, height, width = image_headers.inspect(images[number], name)
        if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
            raise UserError(
                f"{name}: {width}x{height} pixels, expected {IMAGE_SIZE}x{IMAGE_SIZE}: align the "
                "faces first (python -m uniface_jax.align)"
            )
    write_pairs(destination, images, pairs.first, pairs.second, pairs.same)


def write_csv(pairs: ChosenPairs, destination: Path) -> None:
    """Write pairs as lines of first,second,same under a heading, names as they are."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["first", "second", "same"])
    triples = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True)
    rows.writerows([pairs.names[a], pairs.names[b], int(same)] for a, b, same in triples)
    write_bytes(destination, text.getvalue().encode("utf-8", "surrogateescape"))


def read_images(folder: Path, pairs: ChosenPairs) -> list[bytes]:
    """Read the images of a list's pairs, encoded."""
    return [read_image_file(folder / name) for name in pairs.names]
