"""What every source of training images looks like: a length, and items by position."""

import hashlib
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


class Item(NamedTuple):
    """One training image as its source holds it.

    image: the encoded bytes (JPEG, PNG, …), untouched. label: the class, 0..num_classes-1.
    name: where it is from, for messages and for finding it again (a path, a record's key).
    """

    image: bytes
    label: int
    name: str


@runtime_checkable
class Items(Protocol):
    """Images by position, safe to read from several threads; reading may raise UserError."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...


@runtime_checkable
class Source(Items, Protocol):
    """Images of people, by position. Reading an item may raise UserError naming the file.

    name: what messages call the source. num_classes: C. class_names: C names in label order, or
    None where the source has none. notes: what was odd but no error, a line each, for the user.
    Safe to read from several threads, and can be pickled to another process.
    """

    name: str
    num_classes: int
    class_names: list[str] | None
    notes: list[str]

    def part(self, indices: np.ndarray) -> Items:
        """The items at `indices`, int64 [K], alone: little to send to another process."""

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """What the encoded images at `indices` take at most, in bytes, unread: int64 [K]."""

    def fingerprint(self) -> str:
        """Differs between sources that would be converted differently; no image is read for it."""


def digest(*arrays: np.ndarray) -> str:
    """A fingerprint of arrays, with their types and shapes."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        if array.size:
            state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()[:32]
