"""Records of TFRecord shards, read at random: where each one lies, and its bytes.

`record_index.npy` beside the shards holds the place of every record; it is this project's own, and
is rebuilt from the shards where it is missing or stale. Opening compares it with the files' sizes,
so that a data set cut short is refused before training starts.
"""

import bisect
import contextlib
import os
import struct
import weakref
from array import array
from pathlib import Path

import google_crc32c
import numpy as np

from uniface_jax.data.formats.tfrecord_info import DatasetInfo
from uniface_jax.errors import UserError
from uniface_jax.files.arrays import is_cut_short, map_array, save_array
from uniface_jax.files.kept_open import allow_open_files
from uniface_jax.files.reading import open_descriptor, read_at

INDEX_FILE = "record_index.npy"
HEADER_BYTES, FOOTER_BYTES = 12, 4  # u64 length, u32 CRC of it | the record | u32 CRC of the record
_FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
_BOUND_DTYPE = np.dtype(np.uint64)
_MAX_CUT_BYTES = 1 << 28  # a thousand times what a part of a batch has


def framed(record: bytes) -> bytes:
    """Return a serialized record as a TFRecord file holds it: length and record, with CRC-32C.

    Example:
        >>> check_frame(framed(b"a record"), "an example")
        b'a record'
    """
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked(length), record, _masked(record)))


def check_frame(frame: bytes, where: str) -> bytes:
    """Return the record in a frame.

    Raises:
        UserError: length or checksums do not agree; the message names `where`.
    """
    length, record = frame[:8], frame[HEADER_BYTES:-FOOTER_BYTES]
    if (
        struct.pack("<Q", len(record)) != length
        or frame[8:HEADER_BYTES] != _masked(length)
        or frame[-FOOTER_BYTES:] != _masked(record)
    ):
        raise UserError(f"{where}: its checksum is not that of its bytes: the shard is corrupt")
    return record


def _masked(content: bytes) -> bytes:
    """Return TFRecord's checksum: CRC-32C, rotated and shifted: a CRC of CRCs keeps its use."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class RecordReader:
    """Serialized records of a data set by index, read from its open shards.

    Shards are read and not mapped: of a shard that is cut short while it is in use, a map would
    end the process by a signal (SIGBUS), where reading says which one it is.

    Raises:
        UserError: the files do not agree with the metadata (see record_bounds), a record is not
            where the index says, or not of its checksums, or cannot be read; the message names file
            and record.
    """

    def __init__(self, info: DatasetInfo):
        self.info = info
        self._starts = np.cumsum([0] + [count for _, count in info.shards])
        self._first: list[int] = self._starts.tolist()  # bisect is ten times searchsorted's speed
        self.bounds = record_bounds(info)
        self._shards: list[int] = []
        allow_open_files(len(info.shards))
        weakref.finalize(self, _close_all, self._shards)
        for shard, _ in info.shards:
            self._shards.append(_opened(shard))

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """Return the bytes that the records at `indices`, int64 [K], take: int64 [K]."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        sizes = np.empty(len(indices), np.int64)
        for shard in np.unique(shards).tolist():
            chosen = shards == shard
            sizes[chosen] = np.diff(self.bounds[shard])[indices[chosen] - self._starts[shard]]
        return sizes

    def cuts(self, indices: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> list[bytes]:
        """Return the bytes begins .. begins + sizes of the shards with the records at `indices`.

        indices, begins, sizes: integers [K]. Bytes beyond the end of a shard are left out, and all
        where one cannot be read or all are more than _MAX_CUT_BYTES: reading the records one by one
        says which it is, and takes no more memory than they have bytes.
        """
        if sizes.sum(dtype=np.int64) > _MAX_CUT_BYTES:
            return [b""] * len(indices)
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        files = self._shards
        cuts = zip(shards.tolist(), begins.tolist(), sizes.tolist(), strict=True)
        try:
            return [os.pread(files[shard], size, begin) for shard, begin, size in cuts]
        except (OSError, OverflowError):
            return [b""] * len(indices)

    def __getitem__(self, index: int) -> bytes:
        shard = bisect.bisect_right(self._first, index) - 1
        place = index - self._first[shard]
        if is_cut_short(self.bounds[shard]):
            raise UserError(f"{self.info.path / INDEX_FILE}: cut short while it was read")
        begin, end = self.bounds[shard][place : place + 2].tolist()
        where = f"{self.info.shards[shard][0]}: record {place}"
        whole = int(self.bounds[shard][-1])  # bytes of the shard, however large the index says
        begins, ends = min(begin, whole), min(end, whole)
        frame = read_at(self._shards[shard], begins, max(ends - begins, 0), where)
        length, indexed = int.from_bytes(frame[:8], "little"), end - begin - _FRAME_BYTES
        if length != indexed or len(frame) != end - begin:
            raise UserError(
                f"{where} has {length} bytes by its header and {indexed} by {INDEX_FILE}: the "
                "shard is corrupt or not of this data set"
            )
        return check_frame(frame, where)


def _close_all(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _opened(shard: Path) -> int:
    try:
        return open_descriptor(shard)
    except OSError as e:
        raise UserError(f"{shard}: cannot be read ({e.strerror})") from e


def record_bounds(info: DatasetInfo) -> list[np.ndarray]:
    """Return for each shard where its records begin, and its end: uint64 [records + 1].

    Comes from the index file, memory-mapped, when that fits the shards' sizes; otherwise the shards
    are walked and the index is written again where the folder allows it.

    Raises:
        UserError: a shard is cut short, or holds another number of records than the metadata says.
    """
    total = info.num_examples + len(info.shards)
    file = info.path / INDEX_FILE
    bounds = _read_index(file, info, total)
    if bounds is None:
        bounds = [walk_shard(shard, count) for shard, count in info.shards]
        with contextlib.suppress(OSError):  # a read-only folder: walked again next time
            write_index(info.path, bounds)
    return bounds


def _read_index(file: Path, info: DatasetInfo, total: int) -> list[np.ndarray] | None:
    """Return the bounds by the index file; None where it does not fit the shards."""
    index = map_array(file, _BOUND_DTYPE, total)
    if index is None:
        return None
    ends = np.cumsum([count + 1 for _, count in info.shards])
    bounds = np.split(index, ends[:-1])
    for (shard, _), offsets in zip(info.shards, bounds, strict=True):
        if int(offsets[-1]) != shard.stat().st_size or int(offsets[0]) != 0:
            return None
    return bounds


def write_index(path: Path, bounds: list[np.ndarray]) -> None:
    """Write the index of the data set in folder `path` from its shards' bounds, atomically."""
    save_array(path / INDEX_FILE, np.concatenate(bounds).astype(_BOUND_DTYPE))


def walk_shard(shard: Path, expected: int) -> np.ndarray:
    """Return the bounds of a TFRecord file's records, from their headers: uint64 [expected + 1].

    Raises:
        UserError: the file is cut short, or holds another number of records.
    """
    offsets, file = array("Q", [0]), _opened(shard)
    try:
        size = os.fstat(file).st_size
        while offsets[-1] + HEADER_BYTES <= size and len(offsets) <= expected:
            head = read_at(file, offsets[-1], 8, f"{shard}: record {len(offsets) - 1}")
            end = offsets[-1] + HEADER_BYTES + int.from_bytes(head, "little") + FOOTER_BYTES
            if end > size:
                break
            offsets.append(end)
    finally:
        os.close(file)
    if len(offsets) - 1 != expected or offsets[-1] != size:
        rest = size - offsets[-1]
        raise UserError(
            f"{shard}: {len(offsets) - 1} whole records and {rest} bytes after them, "
            f"expected {expected} records: the file is cut short or not of this data set"
        )
    return np.array(offsets, np.uint64)
