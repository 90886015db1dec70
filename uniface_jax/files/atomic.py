"""Files that are written whole: a half-written one is never seen under its final name."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uniface_jax.files.writing import create


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` when the block ends well.

    The folder of `path` is made. The data is on disk before the rename, so that a power cut leaves
    the old file or the new one. On an exception the temporary file is removed, and `path` stays as
    it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "notes.txt"
        ...     with replacing(file) as temporary:
        ...         _ = temporary.write_text("done")
        ...     file.read_text()
        'done'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write `content` to `path`, atomically; mode: of the file, less the process's umask."""
    with replacing(path) as temporary, os.fdopen(create(temporary, mode), "wb") as file:
        file.write(content)
