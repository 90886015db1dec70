"""Images of a verification .bin as a source, so that they can be looked at and converted."""

from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.bin_pairs import PairSet, read_pairs
from uniface_jax.data.sources.base import Item, Source, digest


class PairSource(Source):
    """Different images of a verification set, in the order in which its pairs name them.

    Pairs say who is the same, not who it is: a class is the images that pairs of the same person
    connect, in the order of their first image. One person may so be several classes. Item names are
    `image 0`, … by the images' first numbers in the file. All images are in memory.

    Args of the constructor: the file; and its pairs, which read_pairs reads, with what that raises,
    where they are not given.
    """

    def __init__(self, path: Path | str, pairs: PairSet | None = None):
        pairs = pairs or read_pairs(path)
        self.name = str(path)
        self.class_names: list[str] | None = None
        self._images, self._numbers = pairs.images, pairs.numbers
        self._labels = _components(
            len(pairs.images), pairs.first[pairs.same], pairs.second[pairs.same]
        )
        self.num_classes = int(self._labels.max()) + 1
        self.notes = [
            f"{path}: pairs do not name people: the {self.num_classes} classes are the groups of "
            "images that pairs of the same person connect"
        ]

    @override
    def __len__(self) -> int:
        return len(self._images)

    @override
    def __getitem__(self, index: int) -> Item:
        number = index if self._numbers is None else int(self._numbers[index])
        return Item(self._images[index], int(self._labels[index]), f"image {number}")

    @override
    def part(self, indices: np.ndarray) -> list[Item]:
        return [self[i] for i in indices.tolist()]

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return np.array([len(self._images[i]) for i in indices.tolist()], np.int64)

    @override
    def fingerprint(self) -> str:
        return digest(self.sizes(np.arange(len(self))), self._labels)


def _components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return each node's connected component, int32 [count], by edges first[i] to second[i]."""
    parents = list(range(count))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((root(a), root(b)))
        parents[high] = low  # the earlier image stays the root, so that roots are in order
    roots = np.array([root(node) for node in range(count)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)
