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

    None where there is no such file, or something else in it.
    """
    header = _header(dtype, length)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(header)) != header or size != len(header) + length * dtype.itemsize:
                return None
            mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
    except OSError:
        return None
    return np.frombuffer(mapped, dtype, length, len(header))


def _header(dtype: np.dtype, length: int) -> bytes:
    """Return the bytes before the values of an npy file with such an array."""
    written = io.BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        written, {"descr": description, "fortran_order": False, "shape": (length,)}
    )
    return written.getvalue()
