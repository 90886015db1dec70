"""One run a workdir: a lock that the operating system releases with its process."""

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import parse_json
from uniface_jax.files.reading import read_regular
from uniface_jax.files.writing import PRIVATE, open_again

LOCK_FILE = "lock"
_MAX_BYTES = 1 << 16
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems


@contextmanager
def hold(workdir: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold workdir/lock until the block ends, or the process, in whatever way.

    Raises UserError, saying who holds it, where another process does. On a file system without
    locks the block runs unprotected, after a warning.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK_FILE
    try:
        descriptor = open_again(path, mode=PRIVATE)
    except OSError as e:
        raise UserError(f"{path}: cannot be locked ({e.strerror}); use another --workdir") from e
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f"{workdir}: in use by {_holder(path)}; wait for it, stop it, or use another "
                "--workdir"
            ) from e
        except OSError as e:
            if e.errno not in WITHOUT_LOCKS:
                raise
            warn(f"{path}: this file system has no locks ({e.strerror}); see that no other run is")
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_myself()).encode(), 0)
        except OSError as e:
            raise UserError(f"{path}: cannot be written ({e.strerror})") from e
        yield
    finally:
        os.close(descriptor)


def _myself() -> dict[str, str | int]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(sys.argv)[:500],
    }


def _holder(path: Path) -> str:
    try:
        record = parse_json(read_regular(path, _MAX_BYTES))
        return (
            f"process {record['pid']} on {record['host']} since {record['since']} "
            f"({record['command']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not written its name yet
