"""Files that others may have put there, or change meanwhile: regular ones, read and never mapped.

A path that a user gives, or that stands in a list, an archive or a folder from elsewhere, may lead
to a FIFO or a device, whose reader waits or reads for ever. open_regular is the one door: it looks
at what was opened, and not at what the path named a moment before.
"""

import errno
import io
import os
import stat
from pathlib import Path

from uniface_jax.errors import UserError

_CHUNK_BYTES = 1 << 16
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegularError(OSError):
    """A FIFO, a socket, a device or a folder where a file is expected; strerror says which."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open the regular file `path` for reading its bytes; links to one are followed.

    Never waits: a FIFO without a writer, a socket, a device and a folder are an OSError whose
    strerror says so, as for a file that is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.mkfifo(Path(folder) / "list.txt")
        ...     try:
        ...         open_regular(Path(folder) / "list.txt")
        ...     except OSError as e:
        ...         print(e.strerror)
        a FIFO, not a regular file
    """
    return os.fdopen(open_descriptor(path), "rb")


def open_descriptor(path: Path) -> int:
    """Open the regular file `path` as open_regular does, and return its descriptor."""
    return open_with(path, os.O_RDONLY)


def open_with(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open the regular file `path` by os.open's flags and mode, without waiting; its descriptor."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    try:
        check_regular(descriptor, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(descriptor: int, path: Path) -> None:
    """Raise an OSError that names `path` unless what was opened is a regular file."""
    _check(os.fstat(descriptor).st_mode, path)


def expect_regular(path: Path) -> None:
    """Raise an OSError unless `path` is a regular file; for libraries that open it themselves."""
    _check(path.stat().st_mode, path)


def _check(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise NotRegularError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotRegularError(errno.EINVAL, f"{kind}, not a regular file", str(path))


def read_lines(path: Path, max_bytes: int) -> list[str]:
    r"""Return the lines of a regular text file; bytes that are no UTF-8 become surrogates.

    Those are os.fsdecode's, by which no such line is taken for another one. Lines end at \n and
    \r\n alone, not at the other marks at which str.splitlines does. Raises OSError as read_regular
    does.
    """
    text = read_regular(path, max_bytes).decode("utf-8", "surrogateescape").removesuffix("\n")
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []


def read_regular(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the bytes of the regular file `path`.

    Raises OSError as open_regular does, and for a file of more than `max_bytes`, of which no more
    than those are read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b""
        if max_bytes is None or size <= max_bytes:
            content = file.read(size + 1)  # and no more room than that
            while len(content) > size and (max_bytes is None or len(content) <= max_bytes):
                more = file.read(_CHUNK_BYTES)  # of a file that grows, or is made while it is read
                if not more:
                    return content
                content += more
    if max_bytes is not None and max(size, len(content)) > max_bytes:
        told = f"{max(size, len(content))} bytes; at most {max_bytes} are read"
        raise OSError(errno.EFBIG, told, str(path))
    return content


def read_at(descriptor: int, offset: int, size: int, where: str) -> bytes:
    """Return `size` bytes of an open file from byte `offset` on.

    where: what messages call the place, a file and perhaps a record.

    Raises:
        UserError: the file cannot be read, or ends before; the message begins with `where`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryFile() as file:
        ...     _ = file.write(b"one two")
        ...     file.flush()
        ...     read_at(file.fileno(), 4, 3, "words")
        b'two'
    """
    try:
        content = os.pread(descriptor, size, offset)
        while len(content) < size:  # one call reads 2 GB at most, and less on a signal
            more = os.pread(descriptor, size - len(content), offset + len(content))
            if not more:
                raise UserError(f"{where}: the file was cut short while it was read")
            content += more
    except OSError as e:
        raise UserError(f"{where}: cannot be read ({e.strerror})") from e
    return content
