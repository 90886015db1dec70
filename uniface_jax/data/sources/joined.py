"""Several sets as one: the records of the first, then those of the second, and their people.

People are kept apart, so that the classes of a set follow those of the sets before it, or they are
joined by their names (class_names): one person of two sets is one class then. The first set's
classes keep their numbers either way.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.landmarks import POINTS
from uniface_jax.data.sources.base import Item, Items, Source, digest
from uniface_jax.errors import UserError

APART, BY_NAME = "apart", "by_name"
PEOPLE = (APART, BY_NAME)


class JoinedSource(Source):
    """Several sources as one. Item names begin with the last part of their set's name.

    Args of the constructor: the sources, two or more; and one of PEOPLE.

    Raises:
        UserError: a set stands there twice, sets have images of different sizes, or people are to
            be joined by name where a set has no names, or one name twice.

    Example:
        >>> from uniface_jax.data.sources.synthetic import SyntheticSource
        >>> both = JoinedSource([SyntheticSource(2, 6), SyntheticSource(3, 3)])
        >>> len(both), both.num_classes
        (9, 5)
        >>> both[7].label, both[7].name  # of the second set: image 1 of class 1
        (3, 'synthetic:3:3/1')
    """

    def __init__(self, sources: Sequence[Source], people: str = APART):
        self.sources, self.people = list(sources), people
        self.name = ",".join(source.name for source in sources)
        _check_different(self.sources)
        self.image_shape = _common_shape(self.sources)
        self._prefixes = _prefixes(self.sources)
        self.begins = np.cumsum([0, *map(len, sources)])
        self.notes = [note for source in sources for note in source.notes]
        self.has_landmarks = all(source.has_landmarks for source in sources)
        self.reopens_quickly = all(source.reopens_quickly for source in sources)
        if people == BY_NAME:
            self.class_maps, self.class_names = _joined_by_name(self.sources)
            self.num_classes = len(self.class_names)
            if all(name.isdecimal() for name in self.class_names):
                self.notes.append(
                    f"{self.name}: people are joined by names that are all numbers, which different"
                    " sets give to different people; people=apart keeps them apart"
                )
        else:
            ends = np.cumsum([0, *(source.num_classes for source in sources)])
            self.class_maps = [
                np.arange(begin, begin + source.num_classes, dtype=np.int32)
                for begin, source in zip(ends, sources, strict=False)
            ]
            self.class_names, self.num_classes = self._names_apart(), int(ends[-1])

    def _names_apart(self) -> list[str] | None:
        """Return SET/PERSON of all people, a number where a set has no names; None without any."""
        if all(source.class_names is None for source in self.sources):
            return None
        return [
            f"{prefix}/{name}"
            for prefix, source in zip(self._prefixes, self.sources, strict=True)
            for name in (source.class_names or map(str, range(source.num_classes)))
        ]

    def _place(self, index: int) -> tuple[int, int]:
        """Return which set a record is of, and where it is there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.begins, index, side="right")) - 1
        return number, index - int(self.begins[number])

    def _labels_of(self, number: int, labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Return the classes of a set's labels; UserError naming the record of one out of range."""
        known = self.class_maps[number]
        wrong = np.flatnonzero((labels < 0) | (labels >= len(known)))
        if len(wrong):
            raise UserError(
                f"{self.sources[number].name}: record {indices[wrong[0]]} has the label "
                f"{labels[wrong[0]]}, expected 0..{len(known) - 1}"
            )
        classes: np.ndarray = known[labels]
        return classes

    @override
    def __len__(self) -> int:
        return int(self.begins[-1])

    @override
    def __getitem__(self, index: int) -> Item:
        number, place = self._place(index)
        return self._named(number, place, self.sources[number][place])

    def _named(self, number: int, place: int, item: Item) -> Item:
        """Return an item of a set as one of all."""
        label = self._labels_of(number, np.array([item.label]), np.array([place]))
        return Item(item.image, int(label[0]), f"{self._prefixes[number]}/{item.name}")

    @override
    def item_name(self, index: int) -> str:
        number, place = self._place(index)
        return f"{self._prefixes[number]}/{self.sources[number].item_name(place)}"

    def _split(self, indices: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Return of each set that `indices` has: its number, where in `indices`, and its own."""
        numbers = np.searchsorted(self.begins, indices, side="right") - 1
        return [
            (number, at, indices[at] - self.begins[number])
            for number in np.unique(numbers).tolist()
            for at in [np.flatnonzero(numbers == number)]
        ]

    @override
    def landmarks(self, indices: np.ndarray) -> np.ndarray:
        found = np.empty((len(indices), POINTS, 2), np.float32)
        if not len(indices):  # which a source without any refuses too
            for source in self.sources:
                source.landmarks(indices)
        for number, at, own in self._split(indices):
            found[at] = self.sources[number].landmarks(own)
        return found

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        found = np.empty(len(indices), np.int64)
        for number, at, own in self._split(indices):
            found[at] = self._labels_of(number, self.sources[number].classes(own), own)
        return found

    @override
    def part(self, indices: np.ndarray) -> "JoinedPart":
        split = self._split(indices)
        numbers, places = np.empty(len(indices), np.int64), np.empty(len(indices), np.int64)
        for number, at, _ in split:
            numbers[at], places[at] = number, np.arange(len(at))
        parts = {number: self.sources[number].part(own) for number, _, own in split}
        maps = {number: self.class_maps[number] for number in parts}
        prefixes = dict(enumerate(self._prefixes))
        return JoinedPart(parts, maps, prefixes, numbers, places)

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        found = np.empty(len(indices), np.int64)
        for number, at, own in self._split(indices):
            found[at] = self.sources[number].sizes(own)
        return found

    @override
    def fingerprint(self) -> str:
        text = " ".join(source.fingerprint() for source in self.sources)
        return digest(np.frombuffer(text.encode(), np.uint8), *self.class_maps)

    @override
    def images(self, indices: np.ndarray) -> tuple[Sequence[bytes | memoryview], np.ndarray] | None:
        split = self._split(indices)
        encoded: list[bytes | memoryview] = [b""] * len(indices)
        labels = np.empty(len(indices), np.int64)
        for number, at, own in split:
            source = self.sources[number]
            found = source.images(own)
            items = [] if found else [source[index] for index in own.tolist()]
            images = found[0] if found else [item.image for item in items]
            given = found[1] if found else np.array([item.label for item in items], np.int64)
            labels[at] = self._labels_of(number, np.asarray(given), own)
            for place, image in zip(at.tolist(), images, strict=True):
                encoded[place] = image
        return encoded, labels

    def map_sources(self, change: Callable[[Source], Source]) -> "JoinedSource":
        """Return the same of changed sources, of the same images and people each."""
        return JoinedSource([change(source) for source in self.sources], self.people)


class JoinedPart:
    """Some items of several sources.

    Args of the constructor: the parts of each source, its classes and the beginning of its names,
    by the source's number; and of each of the K items, int64 [K], the number of its source and its
    place in that one's part.
    """

    def __init__(
        self,
        parts: dict[int, Items],
        maps: dict[int, np.ndarray],
        prefixes: dict[int, str],
        numbers: np.ndarray,
        places: np.ndarray,
    ):
        self._parts, self._maps, self._prefixes = parts, maps, prefixes
        self._numbers, self._places = numbers, places

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Item:
        number = int(self._numbers[index])
        image, label, name = self._parts[number][int(self._places[index])]
        known = self._maps[number]
        joined = int(known[label]) if 0 <= label < len(known) else -1  # which is refused
        return Item(image, joined, f"{self._prefixes[number]}/{name}")


def members(source: Source) -> list[Source]:
    """Return the sets of a source: those that are joined, or itself."""
    return source.sources if isinstance(source, JoinedSource) else [source]


def quick_fingerprint(source: Source) -> str:
    """Return a source's fingerprint; "" where every image would have to be read for it."""
    return "" if type(source).fingerprint is Source.fingerprint else source.fingerprint()


def _prefixes(sources: Sequence[Source]) -> list[str]:
    """Return the last part of each set's name, with its number where two are the same."""
    last = [Path(source.name).name for source in sources]
    return [
        name if last.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(last, 1)
    ]


def _check_different(sources: Sequence[Source]) -> None:
    """Raise UserError for a set that stands there twice, under another path too."""
    seen: dict[tuple[int, int], list[Source]] = {}
    for source in sources:
        alike = seen.setdefault((len(source), source.num_classes), [])
        for other in alike:
            found = quick_fingerprint(source)
            if source.name == other.name or (found and found == quick_fingerprint(other)):
                raise UserError(
                    f"{source.name}: the same set as {other.name}; name each set once, "
                    "config.data.ratios says how often its images are seen"
                )
        alike.append(source)


def _common_shape(sources: Sequence[Source]) -> tuple[int, int, int] | None:
    """Return the shape of all images, None where one is unknown; UserError where they differ."""
    known = [source for source in sources if source.image_shape is not None]
    for source in known:
        if source.image_shape != known[0].image_shape:
            raise UserError(
                f"{source.name}: images of {source.image_shape}, but {known[0].name} has "
                f"{known[0].image_shape}; sets of one run have images of one size"
            )
    return known[0].image_shape if len(known) == len(sources) else None


def _joined_by_name(sources: Sequence[Source]) -> tuple[list[np.ndarray], list[str]]:
    """Return of each set the joined class of each of its classes, int32 [C], and their names.

    Names are the same in any Unicode form.
    """
    joined: dict[str, int] = {}
    maps = []
    for source in sources:
        if source.class_names is None:
            raise UserError(
                f"{source.name}: has no names of its people, by which they are to be joined; "
                "people=apart keeps each set's people apart"
            )
        keys = [unicodedata.normalize("NFC", name) for name in source.class_names]
        if len(set(keys)) != len(keys):
            twice = Counter(keys).most_common(1)[0][0]
            raise UserError(
                f"{source.name}: has two people called {twice!r}; to join people by name, names "
                "have to tell them apart"
            )
        maps.append(np.array([joined.setdefault(key, len(joined)) for key in keys], np.int32))
    return maps, list(joined)
