"""Arrays in files of their own beside a data set, saved whole and mapped to memory.

They are npy files. Reading compares the file's header with the one that saving such an array
writes, and parses none: whatever else stands in the file, there is no array in it.
"""

import io
import os
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np

from uniface_jax.files.atomic import replacing
from uniface_jax.files.reading import open_regular


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a contiguous `array` to `path`, atomically.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "sizes.npy"
        ...     save_array(file, np.array([3, 5], np.int64))
        ...     map_array(file, np.dtype(np.int64), length=2).tolist()
        [3, 5]
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def map_array(path: Path, dtype: np.dtype, length: int) -> np.ndarray | None:
    """Return the array [length] that save_array has written to `path`, read-only and not yet read.

    None where there is no such file, or something else in it. A file that others may cut short
    while it is mapped is asked about by is_cut_short before it is touched.
    """
    header = _header(dtype, length)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(header)) != header or size != len(header) + length * dtype.itemsize:
                return None
            mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
    except OSError:
        return None
    return np.frombuffer(mapped, dtype, length, len(header))


def is_cut_short(array: np.ndarray) -> bool:
    """Return True where an array of map_array, or a part of one, has lost the end of its file.

    Touching what is gone would end the process by a signal (SIGBUS), which nothing can catch.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "sizes.npy"
        ...     save_array(file, np.arange(1000))
        ...     sizes = map_array(file, np.dtype(np.int64), length=1000)
        ...     before = is_cut_short(sizes)
        ...     os.truncate(file, 200)
        ...     before, is_cut_short(sizes[:5])
        (False, True)
    """
    owner: object = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return isinstance(owner, mmap) and owner.size() < len(owner)


def create_array(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap:
    """Create an npy file of zeros whose room on disk is taken, and map it for writing.

    A file with holes would end the process by a signal (SIGBUS) where a disk is full when a row is
    written; here a full disk is an OSError of this call, and no half-made file stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = create_array(Path(folder) / "features.npy", (3, 2), np.float32)
        ...     array[1] = 7
        ...     array.flush()
        ...     np.load(Path(folder) / "features.npy").sum()
        np.float32(14.0)
    """
    try:
        array: np.memmap = np.lib.format.open_memmap(path, "w+", dtype, shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as e:
        path.unlink(missing_ok=True)
        raise OSError(e.errno, e.strerror, str(path)) from e
    return array


def _header(dtype: np.dtype, length: int) -> bytes:
    """Return the bytes before the values of an npy file with such an array."""
    written = io.BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        written, {"descr": description, "fortran_order": False, "shape": (length,)}
    )
    return written.getvalue()
