"""Bytes of open files that others may change meanwhile: read, never mapped."""

import os

from uniface_jax.errors import UserError


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
