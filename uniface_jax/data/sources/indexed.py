"""Base of sources that know at opening where each image lies, in columns of arrays."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from typing_extensions import override

from uniface_jax.data.sources.base import Item, Items, Source
from uniface_jax.data.sources.names import Names
from uniface_jax.files.unnamed import SharedArrays, UnnamedFile

_Own = TypeVar("_Own", bound="Part")


class Part(Items):
    """Some images of an indexed source, and all that reading them takes.

    A subclass is a frozen dataclass that defines `__getitem__`. Its fields that are arrays or Names
    are columns, of an entry for each of the K images; all images share its other fields.

    Attributes:
        lengths: a column: what each image takes at most, in bytes, int64 [K].
    """

    lengths: np.ndarray

    def columns(self) -> dict[str, np.ndarray | Names]:
        """Return the columns by name."""
        return {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray | Names)
        }

    @override
    def __len__(self) -> int:
        return len(next(iter(self.columns().values())))

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """Return what the images at `indices` take, as Source.sizes does."""
        return np.take(self.lengths, indices)

    def take(self: _Own, indices: np.ndarray) -> _Own:
        """Return the images at `indices`, int64 [K], alone."""
        return self.replaced({name: each.take(indices) for name, each in self.columns().items()})

    def replaced(self: _Own, columns: dict[str, np.ndarray | Names]) -> _Own:
        """Return the same with other columns."""
        return type(self)(**{**vars(self), **columns})


class IndexedSource(Source):
    """Source whose constructor sets `_images`, a Part of all its images."""

    _images: Part

    @override
    def __len__(self) -> int:
        return len(self._images)

    @override
    def __getitem__(self, index: int) -> Item:
        return self._images[index]

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        known = self._images.columns().get("labels")
        return (
            np.take(known, indices) if isinstance(known, np.ndarray) else super().classes(indices)
        )

    @override
    def part(self, indices: np.ndarray) -> Part:
        return self._images.take(indices)

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return self._images.sizes(indices)


class SharedSource(IndexedSource):
    """Indexed source whose pickled copies map its columns, while it lives, and copy none.

    `_unpacked` are the temporary files in which images lie. Another process opens them by their
    paths; their room is this process's, and free when nothing here refers to them.
    """

    reopens_quickly = True
    _unpacked: Sequence[UnnamedFile] = ()
    _shared: SharedArrays | None = None

    def __getstate__(self) -> dict[str, object]:
        columns = self._images.columns().values()
        self._shared = self._shared or SharedArrays([a for each in columns for a in _arrays(each)])
        bare = self._images.take(np.zeros(0, np.int64))
        return {**self.__dict__, "_unpacked": (), "_images": bare, "_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays: Iterator[np.ndarray] = iter(state["_shared"])
        columns: dict[str, np.ndarray | Names] = {
            name: Names.of_arrays(next(arrays), next(arrays))
            if isinstance(empty, Names)
            else next(arrays)
            for name, empty in state["_images"].columns().items()
        }
        self.__dict__.update(state, _images=state["_images"].replaced(columns), _shared=None)


def _arrays(column: np.ndarray | Names) -> tuple[np.ndarray, ...]:
    return column.arrays() if isinstance(column, Names) else (column,)
