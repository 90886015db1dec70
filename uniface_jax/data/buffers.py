"""Memory for batches that is used again once nobody looks at it.

Fresh memory of the size of a batch costs page faults, and memory that is not aligned to 64 bytes is
copied once more by JAX on the CPU, which otherwise uses it in place.
"""

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
        self._memory.append(np.empty(self._size + ALIGNMENT, np.uint8))
        return self._aligned(self._memory[-1])

    def _aligned(self, memory: np.ndarray) -> np.ndarray:
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + self._size].reshape(self._shape)
