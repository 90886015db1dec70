"""Memory for batches that is used again once nobody looks at it.

Fresh memory of the size of a batch costs page faults, and memory that is not aligned to 64 bytes is
copied once more by JAX on the CPU, which otherwise uses it in place.

Every array that is given out has an owner of its own, a _Loan. NumPy puts the owner, which is no
array, into the array's `base` and never looks through it: views of views, memoryviews, DLPack
capsules and JAX arrays hold the array or a view of it, and so the owner. The memory is free when
the owner's end is reported by weakref.finalize. Nothing is counted, so it does not matter which
references an interpreter counts, nor when it collects; an owner that something still refers to has
not ended. The garbage collector, which reports an end before it runs the finalizers of a cycle,
does not look into arrays either: an array in a cycle is a reference from outside to it.
"""

import collections
import mmap
import os
import threading
import weakref
from typing import NamedTuple

import numpy as np
from typing_extensions import override

ALIGNMENT = 64  # bytes; what XLA's CPU backend asks of memory that it uses in place


class _Memory(NamedTuple):
    """Writable bytes that `owner` keeps, from `address` on."""

    owner: np.ndarray
    address: int


class _Loan:
    """Owner of one array: one use of a piece of memory, over when nothing refers to it."""

    __slots__ = ("__array_interface__", "__weakref__", "_memory")

    def __init__(self, memory: _Memory, shape: tuple[int, ...]):
        self._memory = memory
        self.__array_interface__ = {
            "version": 3,
            "data": (memory.address, False),  # writable
            "shape": shape,
            "typestr": "|u1",
        }


class Buffers:
    """Arrays uint8 of one shape in memory that is used again. Safe to use by several threads.

    An array's memory is given out again when the array and everything that views its memory are
    gone, never before.

    Example:
        >>> buffers = Buffers((4, 3))
        >>> batch = buffers.take()
        >>> batch[:] = 7
        >>> row, batch = batch[1], None
        >>> buffers.take()[:] = 0  # the row is still there: this is other memory
        >>> row
        array([7, 7, 7], dtype=uint8)
    """

    def __init__(self, shape: tuple[int, ...]):
        self._shape = shape
        self._bytes = int(np.prod(shape))
        # A deque, whose append and pop are atomic, and no lock: the end of a loan may be reported
        # in the middle of anything that this thread does, also of take().
        self._free: collections.deque[_Memory] = collections.deque()

    def take(self) -> np.ndarray:
        """Return an array of any content, whose memory nothing else looks at."""
        try:
            memory = self._free.pop()  # what was given back last is the likeliest to be in a cache
        except IndexError:
            memory = self._allocate()
        loan = _Loan(memory, self._shape)
        weakref.finalize(loan, self._free.append, memory).atexit = False
        return np.asarray(loan)

    def _allocate(self) -> _Memory:
        """Return memory that was not there before."""
        owner = np.empty(self._bytes + ALIGNMENT, np.uint8)
        return _Memory(owner, owner.ctypes.data + -owner.ctypes.data % ALIGNMENT)


class SharedBuffers(Buffers):
    """Buffers in a file without a name, which other processes that are given `file` write to.

    The memory is gone when the last of the processes has ended, however it ends.
    """

    def __init__(self, shape: tuple[int, ...]):
        super().__init__(shape)
        self.file = os.memfd_create("batches")  # not in /dev/shm, which containers make small
        self._growing = threading.Lock()
        self._offsets: dict[int, int] = {}  # of each array in the file, by its address

    def offset(self, array: np.ndarray) -> int:
        """Return where in the file an array that take() gave begins, in bytes."""
        return self._offsets[array.ctypes.data]

    def close(self) -> None:
        """Close the file: arrays stay as they are, and no new memory can be had (OSError)."""
        with self._growing:
            os.close(self.file)
            self.file = -1  # the number may soon be that of another file

    @override
    def _allocate(self) -> _Memory:
        pages = -(-self._bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        with self._growing:
            offset = len(self._offsets) * pages
            os.ftruncate(self.file, offset + pages)
            owner = np.frombuffer(mmap.mmap(self.file, pages, offset=offset), np.uint8)
            self._offsets[owner.ctypes.data] = offset
        return _Memory(owner, owner.ctypes.data)
