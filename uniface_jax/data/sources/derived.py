"""Bases of sources that are made of another one: what they do not change is that one's."""

from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from uniface_jax.data.sources.base import Item, Items, Source, digest


class DerivedSource(Source):
    """The images of a source, in its order, of which a subclass changes something.

    Each subclass defines `fingerprint`, which has to tell it from `source`, and overrides together
    what answers the same: labels in `__getitem__`, `classes` and `images`. `part` is a Subset, of
    its own items; a subclass that leaves these as they are takes the part of `source`.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name, self.num_classes = source.name, source.num_classes
        self.class_names, self.notes = source.class_names, source.notes
        self.image_shape, self.has_landmarks = source.image_shape, source.has_landmarks
        self.reopens_quickly = source.reopens_quickly

    @override
    def __len__(self) -> int:
        return len(self.source)

    @override
    def __getitem__(self, index: int) -> Item:
        return self.source[index]

    @override
    def item_name(self, index: int) -> str:
        return self.source.item_name(index)

    @override
    def landmarks(self, indices: np.ndarray) -> np.ndarray:
        return self.source.landmarks(indices)

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        return self.source.classes(indices)

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return self.source.sizes(indices)

    @override
    def images(self, indices: np.ndarray) -> tuple[Sequence[bytes | memoryview], np.ndarray] | None:
        return self.source.images(indices)


class SelectedSource(DerivedSource):
    """Some images of a source, as other classes.

    Args of the constructor: the source; int64 [M], which images; int64 [M], their new classes; and
    the names of these.

    Example:
        >>> from uniface_jax.data.sources.synthetic import SyntheticSource
        >>> two = np.array([1, 3]), np.array([0, 0])
        >>> selected = SelectedSource(SyntheticSource(num_classes=2, num_images=4), *two, ["ann"])
        >>> [(item.label, item.name) for item in selected]
        [(0, '1'), (0, '3')]
    """

    def __init__(
        self, source: Source, positions: np.ndarray, labels: np.ndarray, class_names: list[str]
    ) -> None:
        super().__init__(source)
        self.class_names, self.num_classes = class_names, len(class_names)
        self.notes, self.reopens_quickly = (), False
        self.positions, self.labels = positions, labels

    @override
    def __len__(self) -> int:
        return len(self.positions)

    @override
    def __getitem__(self, index: int) -> Item:
        item = super().__getitem__(int(self.positions[index]))
        return item._replace(label=int(self.labels[index]))

    @override
    def item_name(self, index: int) -> str:
        return super().item_name(int(self.positions[index]))

    @override
    def landmarks(self, indices: np.ndarray) -> np.ndarray:
        return super().landmarks(self.positions[indices])

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        return np.take(self.labels, indices)

    @override
    def part(self, indices: np.ndarray) -> Items:
        return _Relabeled(self.source.part(self.positions[indices]), self.labels[indices])

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return super().sizes(self.positions[indices])

    @override
    def fingerprint(self) -> str:
        state = np.frombuffer(self.source.fingerprint().encode(), np.uint8)
        return digest(state, self.positions, self.labels)

    @override
    def images(self, indices: np.ndarray) -> tuple[Sequence[bytes | memoryview], np.ndarray] | None:
        found = super().images(self.positions[indices])
        return None if found is None else (found[0], self.labels[indices])


class _Relabeled:
    """Items with other labels, int [K]."""

    def __init__(self, items: Items, labels: np.ndarray) -> None:
        self._items, self._labels = items, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]._replace(label=int(self._labels[index]))
