"""Memory for batches that is used again once nobody looks at it.

Fresh memory of the size of a batch costs page faults, and memory that is not aligned to 64 bytes is
copied once more by JAX on the CPU, which otherwise uses it in place.
"""

import mmap
import os
import sys

import numpy as np

ALIGNMENT = 64  # bytes; what XLA's CPU backend asks of memory that it uses in place
_UNUSED = 3  # references to memory that only the list, a loop variable and getrefcount's hold


class Buffers:
    """Arrays uint8 of one shape. An array, with all its views, must be dropped to be used again.

    JAX arrays that use the memory in place hold a reference to it like everyone else.
    """

    def __init__(self, shape: tuple[int, ...]):
        self._shape = shape
        self._size = int(np.prod(shape))
        self._memory: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """An array of any content that nobody else refers to; not to be called by two threads."""
        for memory in self._memory:
            # A view refers to the memory's owner, never to another view of it.
            if sys.getrefcount(memory) <= _UNUSED:
                return self._aligned(memory)
        self._memory.append(self._allocate(self._size + ALIGNMENT))
        return self._aligned(self._memory[-1])

    def _allocate(self, size: int) -> np.ndarray:
        return np.empty(size, np.uint8)

    def _aligned(self, memory: np.ndarray) -> np.ndarray:
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + self._size].reshape(self._shape)


class SharedBuffers(Buffers):
    """Buffers in a file without a name, which other processes that are given `file` write to.

    The memory is gone when the last of the processes has ended, however it ends.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__(shape)
        self.file = os.memfd_create("batches")  # not in /dev/shm, which containers make small
        self._offsets: dict[int, int] = {}  # of each array in the file, by its address

    def offset(self, array: np.ndarray) -> int:
        """Where in the file an array that take() gave begins, in bytes."""
        return self._offsets[array.ctypes.data]

    def close(self) -> None:
        """Closes the file; arrays stay as they are, and more can not be taken."""
        os.close(self.file)

    def _allocate(self, size: int) -> np.ndarray:
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        offset = len(self._memory) * pages
        os.ftruncate(self.file, offset + pages)
        memory = np.frombuffer(mmap.mmap(self.file, pages, offset=offset), np.uint8)
        self._offsets[memory.ctypes.data] = offset
        return memory
