"""Millions of short texts in little memory: one block of bytes and where each text ends."""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np


class Names:
    """A growing sequence of texts; 8 bytes each beyond their UTF-8, where a list takes 70.

    Texts may hold what os.fsdecode makes of file names that are not UTF-8.

    Example:
        >>> names = Names(["ann", "bob"])
        >>> names.append("cem")
        >>> len(names), names[2]
        (3, 'cem')
    """

    def __init__(self, names: Iterable[str] = ()):
        self._text: bytearray | memoryview = bytearray()
        self._ends: array[int] | memoryview = array("q", [0])
        for name in names:
            self.append(name)

    @classmethod
    def of_arrays(cls, text: np.ndarray, ends: np.ndarray) -> "Names":
        """Return the texts whose `arrays` these are; none can be added."""
        names = cls()
        names._text, names._ends = text.data, ends.data
        return names

    def append(self, name: str) -> None:
        """Add a text at the end."""
        assert isinstance(self._text, bytearray)
        assert isinstance(self._ends, array)
        self._text += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))

    def take(self, indices: np.ndarray) -> "Names":
        """Return the texts at `indices`, int64 [K], as an array's own take does."""
        return Names(self[i] for i in indices.tolist())

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        begin, end = self._ends[index], self._ends[index + 1]
        return bytes(self._text[begin:end]).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the texts' bytes, uint8, and their ends, int64 [N + 1]: for a digest of them."""
        return np.frombuffer(self._text, np.uint8), np.frombuffer(self._ends, np.int64)
