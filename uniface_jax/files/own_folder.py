"""Folder of what this user's own programs have found out, and that nobody else can write to."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

VARIABLE = "UNIFACE_OWN_FOLDER"


def own_folder(name: str) -> Path:
    """Return the folder `name` of what this user's programs know; it is made where it is missing.

    It lies in $UNIFACE_OWN_FOLDER, else in uniface_jax/known of $XDG_CACHE_HOME, else of ~/.cache.

    Raises:
        OSError: there is no home folder, it cannot be made, or others own it or may write to it:
            what stands there is then nobody's word. The strerror says which.
    """
    given = os.environ.get(VARIABLE)
    if given:
        known = Path(given)
    else:
        cache = os.environ.get("XDG_CACHE_HOME")
        try:
            known = (Path(cache) if cache else Path.home() / ".cache") / "uniface_jax" / "known"
        except RuntimeError as e:
            raise OSError(errno.ENOENT, "no home folder", "~") from e
    known.parent.mkdir(parents=True, exist_ok=True)
    for path in (known, known / name):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "another user owns it", str(path))
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(errno.EPERM, "others may write to it", str(path))
    return known / name


def own_folder_if_trusted(name: str, tell: Callable[[str], None] = lambda why: None) -> Path | None:
    """Return own_folder(name); None where there is none to be trusted, and tell why."""
    try:
        return own_folder(name)
    except OSError as e:
        tell(f"{e.filename}: {e.strerror}")
        return None


class KnownDigests:
    """Digests, as hexadecimal text, that were found to be right: empty files of these names.

    folder: None knows nothing and keeps nothing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     KnownDigests(Path(folder) / "features").add("ab12")
        ...     again = KnownDigests(Path(folder) / "features")
        ...     "ab12" in again, "cd34" in again
        (True, False)
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def __contains__(self, digest: str) -> bool:
        return self._folder is not None and (self._folder / digest).is_file()

    def add(self, digest: str) -> None:
        """Note a digest; where that cannot be written, it stays unknown."""
        if self._folder is not None:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self._folder / digest).touch()
            except OSError:
                return

    def discard(self, digest: str) -> None:
        """Forget a digest; "" is none."""
        if self._folder is not None and digest:
            try:
                (self._folder / digest).unlink(missing_ok=True)
            except OSError:
                return
