"""What every source of training images looks like: a length, and items by position."""

from typing import NamedTuple, Protocol, runtime_checkable


class Item(NamedTuple):
    """One training image as its source holds it.

    image: the encoded bytes (JPEG, PNG, …), untouched. label: the class, 0..num_classes-1.
    name: where it is from, for messages and for finding it again (a path, a record's key).
    """

    image: bytes
    label: int
    name: str


@runtime_checkable
class Source(Protocol):
    """Images of people, by position. Reading an item may raise UserError naming the file.

    name: what messages call the source. num_classes: C. class_names: C names in label order, or
    None where the source has none. notes: what was odd but no error, a line each, for the user.
    Safe to read from several threads, and can be pickled to another process.
    """

    name: str
    num_classes: int
    class_names: list[str] | None
    notes: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...
