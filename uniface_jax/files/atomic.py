"""Files that are written whole: a half-written one is never seen under its final name."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uniface_jax.files.writing import create


@contextmanager
def replacing(path: Path, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` when the block ends well.

    The folder of `path` is made. The data is on disk before the rename, so that a power cut leaves
    the old file or the new one; unless `synced` is False, for millions of small files. On an
    exception the temporary file is removed, and `path` stays as it was. An OSError that names no
    file, as of writing to a full disk, or the temporary one, names `path` then.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "notes.txt"
        ...     with replacing(file) as temporary:
        ...         _ = temporary.write_text("done")
        ...     file.read_text()
        'done'
    """
    temporary = _beside(path)
    with _named(path, temporary):
        try:
            yield temporary
            with temporary.open("rb") as written:
                if synced:
                    os.fsync(written.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, whose folder becomes `path` when the block ends well.

    Whatever is made there is removed on an exception; an OSError names `path` as in replacing.
    """
    temporary = _beside(path)
    with _named(path, temporary):
        try:
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Return a name in the folder of `path`, which is made, that nobody can have foreseen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Let an OSError name `path` where it names no file, or the temporary one."""
    try:
        yield
    except OSError as e:
        if e.filename not in (None, str(temporary)):
            raise
        # numpy, where it can write only a part, gives no number.
        reason = e.strerror or f"cannot be written: {e}"
        raise OSError(e.errno or errno.EIO, reason, str(path)) from e


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write `content` to `path`, atomically; mode: of the file, less the process's umask."""
    with replacing(path) as temporary, os.fdopen(create(temporary, mode), "wb") as file:
        file.write(content)
