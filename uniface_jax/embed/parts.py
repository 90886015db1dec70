"""Folder beside a table in which its parts grow, and by which processes share the work.

The photographs are split into chunks. A process locks the byte of a chunk in the file `lock`,
computes it, writes its part whole, and lets go: a lock ends with its process, however that ends, so
that another one takes the chunk. Whoever finds all parts there makes the table of them.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.reading import read_regular
from uniface_jax.files.writing import open_again
from uniface_jax.inference.feature_rows import FeatureRows, from_bytes, to_bytes
from uniface_jax.runtime.ownership import make_private, reason_for_distrust

LOCK_FILE, RUN_FILE = "lock", "run.json"
_ASSEMBLY, _PRESENCE, _FIRST_CHUNK = 0, 1, 2  # bytes of the lock file
_DIGEST_BYTES = 32
_HELD = (errno.EACCES, errno.EAGAIN)
LeftOut = list[tuple[str, str]]


class Parts:
    """Parts of one table, `count` of them, in a folder that is this user's alone.

    Raises:
        UserError: others could have written into the folder, or another run is at work in it.
    """

    def __init__(self, folder: Path, key: str, count: int, say: Callable[[str], None]) -> None:
        """Open the folder, or make it; one that an earlier run of another key left is emptied.

        key: a digest of all that the parts depend on. say: is told of what is thrown away.
        """
        self.folder, self.count = folder, count
        make_private(folder)
        if reason := reason_for_distrust(folder):
            raise UserError(f"{folder}: not used, since others could have written it: {reason}")
        self._lock = open_again(folder / LOCK_FILE, mode=0o600)
        try:
            _lock_byte(self._lock, _ASSEMBLY)  # nobody else opens the folder meanwhile
            if self._key() != key:
                if not _lock_byte(self._lock, _PRESENCE, wait=False):
                    raise UserError(
                        f"{folder}: another run of other options or photographs is at work there; "
                        "wait for it, or give another --output"
                    )
                if self._empty():
                    say(f"{folder}: of other options or photographs; begun anew")
                write_bytes(folder / RUN_FILE, json.dumps({"key": key}).encode())
            _lock_byte(self._lock, _PRESENCE, shared=True)
            _unlock_byte(self._lock, _ASSEMBLY)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def done(self) -> int:
        """Return how many parts are there."""
        return sum(self.file(chunk).is_file() for chunk in range(self.count))

    def file(self, chunk: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"{chunk:08}.part"

    def claimed(self) -> Iterator[int]:
        """Yield the chunks that nobody has computed or works on, each locked for this process."""
        for chunk in range(self.count):
            if self.file(chunk).is_file():
                continue
            if not _lock_byte(self._lock, _FIRST_CHUNK + chunk, wait=False):
                continue
            if self.file(chunk).is_file():  # finished between both looks
                _unlock_byte(self._lock, _FIRST_CHUNK + chunk)
                continue
            yield chunk

    def write(self, chunk: int, rows: FeatureRows, left_out: LeftOut) -> None:
        """Write a part, whole, and let go of its chunk."""
        content = to_bytes(rows, left_out)
        write_bytes(self.file(chunk), content + hashlib.sha256(content).digest(), 0o600)
        _unlock_byte(self._lock, _FIRST_CHUNK + chunk)

    def read(self, chunk: int) -> tuple[FeatureRows, LeftOut]:
        """Return a part; UserError where its file is damaged, which removes it."""
        content = read_regular(self.file(chunk))
        body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            self.file(chunk).unlink(missing_ok=True)
            raise UserError(f"{self.file(chunk)}: was damaged, and is removed; start again")
        return from_bytes(body)

    def assembling(self) -> None:
        """Wait until no other process makes the table; until this one ends none does."""
        _lock_byte(self._lock, _ASSEMBLY)

    def remove(self) -> None:
        """Remove the folder, when the table is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self) -> str | None:
        try:
            found = json.loads(read_regular(self.folder / RUN_FILE, 1 << 12))
            return str(found["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _empty(self) -> bool:
        """Remove the parts of another run; return True where there were any."""
        files = [path for path in self.folder.iterdir() if path.name != LOCK_FILE]
        for path in files:
            path.unlink(missing_ok=True)
        return bool(files)


def _lock_byte(descriptor: int, byte: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock one byte of a file for this process; return False where another has it."""
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.lockf(descriptor, how, 1, byte)
    except OSError as e:
        if e.errno in _HELD and not wait:
            return False
        raise
    return True


def _unlock_byte(descriptor: int, byte: int) -> None:
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)
