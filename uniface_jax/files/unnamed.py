"""Temporary files without a name: room on disk that is free again however a process ends."""

import errno
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_regular

SPARE_BYTES = 1 << 28  # that are left free on the disk
_ALIGNMENT = 64


class UnnamedFile:
    """A growing file in the folder for temporary files (TMPDIR), which no folder lists.

    Its room is free again when the last process that has it open ends, even by SIGKILL. `path`
    opens it in this process and in others of this user, while this object lives.

    Raises:
        UserError: there is no such folder, or its disk is full; the message names what the file is
            for.

    Example:
        >>> from uniface_jax.files.reading import open_regular
        >>> file = UnnamedFile("an example")
        >>> file.write(b"one two")
        >>> with open_regular(file.path) as opened:
        ...     opened.read(), file.size
        (b'one two', 7)
    """

    def __init__(self, purpose: str):
        self._purpose, self.size = purpose, 0
        try:
            descriptor, name = tempfile.mkstemp(prefix="uniface-")
        except OSError as e:
            raise UserError(f"{purpose}: no temporary file can be made ({e.strerror})") from e
        self._descriptor = descriptor
        self.path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        if self.path.exists():
            Path(name).unlink()
            weakref.finalize(self, os.close, descriptor)
        else:  # a system without /proc: the name stays as long as the object
            self.path = Path(name)
            weakref.finalize(self, _remove, descriptor, self.path)

    def write(self, content: bytes | memoryview) -> None:
        """Add bytes at the end."""
        view = memoryview(content)
        self._expect_room(len(view))
        try:
            while view:
                written = os.pwrite(self._descriptor, view, self.size)
                self.size += written
                view = view[written:]
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise self._full() from e
            raise UserError(f"{self._purpose}: {e.strerror}") from e

    def _expect_room(self, size: int) -> None:
        """Raise UserError where `size` bytes more would fill the disk."""
        disk = os.fstatvfs(self._descriptor)
        if disk.f_bavail * disk.f_frsize < size + SPARE_BYTES:
            raise self._full()

    def _full(self) -> UserError:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        return UserError(
            f"{self._purpose}: {self.size / 2**20:.0f} MiB are unpacked in {folder}, whose disk is "
            f"then full ({free / 2**20:.0f} MiB free); TMPDIR=FOLDER names one with more room"
        )


class SharedArrays:
    """Arrays of one dimension that another process maps instead of getting a copy of its own.

    Pickled and opened again, while this object lives, it is the list of the arrays, read-only.

    Example:
        >>> import pickle
        >>> shared = SharedArrays([np.arange(3), np.zeros(0, np.uint8)])
        >>> pickle.loads(pickle.dumps(shared))[0].tolist()
        [0, 1, 2]
    """

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._file = UnnamedFile("the places of images")
        self._places: list[tuple[str, int, int]] = []
        for array in arrays:
            self._file.write(bytes(-self._file.size % _ALIGNMENT))
            self._places.append((array.dtype.str, len(array), self._file.size))
            if len(array):
                self._file.write(np.ascontiguousarray(array).view(np.uint8).data)

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self._file.path, self._places)


def _mapped(path: Path, places: Sequence[tuple[str, int, int]]) -> list[np.ndarray]:
    """Return the arrays in a file that nobody else can cut short, since it has no name."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    return [np.frombuffer(content, dtype, length, place) for dtype, length, place in places]


def _remove(descriptor: int, path: Path) -> None:
    os.close(descriptor)
    path.unlink(missing_ok=True)
