"""Base of every source of training images: a length, and items by position."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from uniface_jax.errors import UserError


class Item(NamedTuple):
    """One training image as its source holds it.

    Attributes:
        image: the encoded bytes (JPEG, PNG, …), untouched.
        label: the class, 0..num_classes-1.
        name: where it is from, for messages and for finding it again (a path, a record's key).
    """

    image: bytes
    label: int
    name: str


@runtime_checkable
class Items(Protocol):
    """Images by position, safe to read from several threads; reading may raise UserError."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Item: ...


@runtime_checkable
class Source(Items, Protocol):
    """Images of people, by position, for training, conversion and inspection.

    A source of your own is a subclass that sets `name` and `num_classes` and defines `__len__` and
    `__getitem__`. The other attributes and methods have defaults that are right for any source;
    override those that yours can answer without reading images.

    Reading an item may raise UserError naming the file. A source is safe to read from several
    threads, and can be pickled to another process.

    Attributes:
        name: what messages call the source.
        num_classes: C.
        class_names: C names in label order, or None where the source has none.
        notes: what was odd but no error, a line each, for the user.
        image_shape: (height, width, channels) that all images are known to have, or None.
        has_landmarks: True where every image has five landmarks (formats.landmarks).
        reopens_quickly: True where a pickled copy opens in milliseconds, however many images there
            are, so that processes rather than threads may decode a large source.

    Example:
        >>> from uniface_jax.data.formats.images import encode_png
        >>> class Grays(Source):
        ...     name, num_classes = "grays", 2
        ...     def __len__(self):
        ...         return 6
        ...     def __getitem__(self, index):
        ...         pixels = np.full((112, 112, 3), 40 * index, np.uint8)
        ...         return Item(encode_png(pixels), index % 2, f"gray {index}")
        >>> grays = Grays()
        >>> grays.part(np.array([5, 2]))[0].name
        'gray 5'
        >>> bool((grays.sizes(np.arange(6)) > 0).all())
        True
    """

    name: str
    num_classes: int
    class_names: list[str] | None = None
    notes: Sequence[str] = ()
    image_shape: tuple[int, int, int] | None = None
    has_landmarks: bool = False
    reopens_quickly: bool = False

    def item_name(self, index: int) -> str:
        """Return the name of an item. The default reads the image."""
        return self[index].name

    def landmarks(self, indices: np.ndarray) -> np.ndarray:
        """Return the landmarks of the images at `indices`, int64 [K]: float32 [K, 5, 2].

        Raises UserError, the default, where there are none, naming the source or the image.
        """
        raise UserError(
            f"{self.name}: holds no landmarks of its faces, which the network needs; convert them "
            "with --landmarks=alignment.json (or a CSV), or take those of the template for all, "
            "--config.model.kprpe.landmarks=template"
        )

    def classes(self, indices: np.ndarray) -> np.ndarray:
        """Return the classes of the images at `indices`, int64 [K]: integers [K].

        The default reads the images.
        """
        return np.array([self[index].label for index in indices.tolist()], np.int64)

    def part(self, indices: np.ndarray) -> Items:
        """Return the items at `indices`, int64 [K], alone, for another process.

        The default carries the whole source along; override it where an item takes less.
        """
        return Subset(self, indices)

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """Return what the encoded images at `indices` take at most, in bytes: int64 [K].

        0 stands for an image that cannot be read. The default reads the images.
        """
        return np.array([len(_content(self, index).image) for index in indices.tolist()], np.int64)

    def fingerprint(self) -> str:
        """Return a text that differs between sources that would be converted differently.

        The default reads every image; a source of files tells by their names, for instance.
        """
        state = hashlib.sha256()
        for index in range(len(self)):
            image, label, name = _content(self, index)
            encoded = name.encode("utf-8", "surrogateescape")
            state.update(f"{len(image)} {label} {len(encoded)} ".encode() + image + encoded)
        return state.hexdigest()[:32]

    def images(self, indices: np.ndarray) -> tuple[Sequence[bytes | memoryview], np.ndarray] | None:
        """Return the encoded images at `indices`, int64 [K], and their labels, integers [K].

        None, the default, where that is no faster than reading items. Neither images nor labels
        need be checked: of an image that does not decode, the item is read, which raises.
        """
        return None


class Subset:
    """Some items of a source."""

    def __init__(self, source: Items, indices: np.ndarray):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Item:
        return self._source[int(self._indices[index])]


def digest(*arrays: np.ndarray) -> str:
    """Return a fingerprint of arrays, with their types and shapes."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        if array.size:
            state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()[:32]


def _content(source: Items, index: int) -> Item:
    """Return an item, or one of no bytes and the label -1 where it cannot be read."""
    try:
        return source[index]
    except UserError as e:
        return Item(b"", -1, str(e))
