"""Many files that are read at random, opened at first use and kept open."""

import os
import resource
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_descriptor

_SPARE_FILES = 256  # open files beyond these
_CHECKED_BYTES = 1 << 16


class KeptOpen:
    """Files by position. Safe for use by several threads, and can be pickled to another process.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a").write_bytes(b"one two")
        ...     KeptOpen([Path(folder) / "a"]).read(0, offset=4, size=9)
        b'two'
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self._opened: dict[int, int] = {}
        self._opening = threading.Lock()
        weakref.finalize(self, _close_all, self._opened)

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptOpen, (self.paths,)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Return bytes of file `number`: fewer where it ends before.

        Raises OSError as files.reading.open_regular does, and where reading fails.
        """
        descriptor = self._opened.get(number)
        if descriptor is None:
            descriptor = self._open(number)
        if size > _CHECKED_BYTES:  # as much memory is taken at once, whatever the file has
            size = max(min(size, os.fstat(descriptor).st_size - offset), 0)
        return os.pread(descriptor, size, offset)

    def _open(self, number: int) -> int:
        """Open a file, once."""
        with self._opening:
            if number not in self._opened:
                if not self._opened:
                    allow_open_files(len(self.paths))
                self._opened[number] = open_descriptor(self.paths[number])
            return self._opened[number]


def _close_all(opened: dict[int, int]) -> None:
    for descriptor in opened.values():
        os.close(descriptor)


def allow_open_files(count: int) -> None:
    """Raise this process's soft limit of open files where `count` more would not fit into it.

    Raises:
        UserError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise UserError(
                f"{count} shards need {needed} open files, {hard} are allowed: raise `ulimit -Hn`, "
                "or convert again with a larger --shard_size"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
