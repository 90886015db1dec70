"""Files that are written where others may write too: no link that they planted is followed."""

import os
import tempfile
from pathlib import Path

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_with

PRIVATE = 0o600  # of files that hold a command line, which may hold what is nobody else's business


def create(path: Path, mode: int = 0o666) -> int:
    """Create a file that is not there yet and return its descriptor, for writing.

    Raises FileExistsError for whatever is there, a link to nowhere as well.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def open_again(path: Path, flags: int = 0, mode: int = 0o666) -> int:
    """Open a file of a known name, or create it, and return its descriptor, to read and write.

    flags: more of them, as os.O_APPEND. Nothing in the file is changed.

    Raises OSError where the path is a link, a FIFO, a device or a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "lock").symlink_to("/etc/passwd")
        ...     try:
        ...         open_again(Path(folder) / "lock")
        ...     except OSError as e:
        ...         print(e.strerror)
        Too many levels of symbolic links
    """
    return open_with(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, mode)


def expect_writable(path: Path) -> None:
    """Raise UserError where no file or folder `path` could be made; for the time before work.

    It is tried in the folder that is there already, with a file that has no name; nothing is left.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror} in {folder})") from e
