"""Keeps changes of a gallery apart: a lock, and files that no state of it names."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.arrays import map_array, save_array
from uniface_jax.files.writing import open_again
from uniface_jax.gallery.manifest import Manifest
from uniface_jax.gallery.segment import StaleError, file_digest, new_stem

LOCK_FILE, REMOVED = "lock", "removed"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the one that changes the gallery, after any other, until the block or the process ends."""
    lock = open_again(folder / LOCK_FILE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove the files of former states, and of writers that were killed."""
    stems = manifest.stems()
    for path in folder.iterdir():
        stem = path.name.removeprefix(".").partition(".")[0]
        if len(stem) == 33 and stem[0] in "sr" and stem not in stems:
            path.unlink(missing_ok=True)


def read_removed(folder: Path, manifest: Manifest) -> np.ndarray:
    """Return the ids of removed rows, rising, int64; StaleError where their file is gone."""
    if manifest.removed is None:
        return np.zeros(0, np.int64)
    stem, count, digest = manifest.removed
    file = folder / f"{stem}.{REMOVED}"
    found = map_array(file, np.dtype(np.int64), count)
    if found is None or file_digest(file) != digest:
        if not file.exists():
            raise StaleError(str(file))
        raise UserError(f"{file}: damaged: it is not what was written; build the gallery again")
    return found


def write_removed(folder: Path, ids: np.ndarray) -> tuple[str, int, int]:
    """Write the ids of removed rows, rising, int64, and return their entry for the manifest."""
    stem = new_stem("r")
    file = folder / f"{stem}.{REMOVED}"
    save_array(file, ids)
    return stem, len(ids), file_digest(file)
