"""Log files that outlive a full disk: bytes that cannot be written now are written later."""

import os
from collections.abc import Callable
from pathlib import Path

from uniface_jax.files.writing import open_again

MAX_KEPT_BYTES = 2**24  # of what could not be written; then the newest is dropped


class Appender:
    r"""A file that bytes are appended to, and that raises no OSError after it was opened.

    Bytes that the disk does not take are kept, in order, and tried again with the next ones, up to
    MAX_KEPT_BYTES and one write more. `warn` is told once when that begins, and once when it ends,
    with how many bytes are missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Appender(Path(folder) / "log.txt", warn=print)
        ...     written = log.write(b"step 1\n")
        ...     log.close()
        ...     (Path(folder) / "log.txt").read_bytes()
        b'step 1\n'
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path, self._warn = path, warn
        self._file = open_again(path, os.O_APPEND)
        self._kept = bytearray()
        self._failing = False
        self._dropped_bytes = 0

    def write(self, content: bytes) -> int:
        """Keep `content` for the next flush, or drop it; return its length."""
        if len(self._kept) < MAX_KEPT_BYTES:
            self._kept += content
        else:
            self._dropped_bytes += len(content)
        return len(content)

    def flush(self) -> None:
        """Hand the kept bytes to the operating system, or keep them for later."""
        try:
            while self._kept:
                written = os.write(self._file, self._kept)
                del self._kept[:written]
        except OSError as e:
            if not self._failing:
                self._warn(f"{self._path}: cannot be written ({e.strerror}); kept in memory")
            self._failing = True
            return
        if self._failing:
            missing = f"{self._dropped_bytes} bytes are" if self._dropped_bytes else "nothing is"
            self._warn(f"{self._path}: written again, {missing} missing")
        self._failing, self._dropped_bytes = False, 0

    def close(self) -> None:
        """Flush once more and close the file."""
        self.flush()
        os.close(self._file)
