"""MXNet's RecordIO files, read through a memory map without MXNet.

A .rec is records of `u32 magic | u32 flag and length | payload | padding to 4 bytes`, all little
endian. The writer splits a payload wherever the magic stands in it at a 4-byte boundary and drops
the magic there; the upper three bits of the second word say which part it is: 0 whole, 1 first, 2
middle, 3 last. The .idx beside it is text, `key <tab> byte offset` a line, keys in any order.
"""

import mmap
import os
import struct
import sys
import weakref
from array import array
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_regular, read_at, read_regular

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH_BITS = 29
HEADER_BYTES = 8
_MAX_INDEX_LINE_BYTES = 40  # two int64, a tab and a line's end
_MAX_MAPPED_BYTES = 1 << 26  # of a walk, before its pages are let go


class RecordFile:
    """A .rec file: payloads by byte offset, and the offsets of all records.

    Safe for use by several threads, and can be pickled to another process.

    Raises:
        UserError: the file cannot be opened or is empty, a record is malformed, or the file ends
            inside it; the message names the file, and the record's offset.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            with open_regular(self.path) as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._descriptor = os.dup(file.fileno())
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e
        except ValueError as e:
            raise UserError(f"{path}: empty, expected RecordIO records") from e
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[type["RecordFile"], tuple[Path]]:
        return RecordFile, (self.path,)

    def __len__(self) -> int:
        return len(self.data)

    def payload(self, offset: int, size: int = 0) -> bytes:
        """Return the payload of the record at byte `offset`, its parts joined.

        size: of the whole record where it is known, which saves a second read. The file is read and
        not the map of it, which would count as memory in use.
        """
        if not 0 <= offset <= len(self.data) - HEADER_BYTES:
            raise self._error(offset, "the file ends before it: cut short")
        head = self._read(offset, min(max(size, HEADER_BYTES), len(self.data) - offset))
        magic, word = struct.unpack_from("<II", head)
        if magic == MAGIC and word <= len(head) - HEADER_BYTES:  # not in parts, and all of it read
            return head[HEADER_BYTES : HEADER_BYTES + word]
        parts, _ = self.parts(offset)
        return MAGIC_BYTES.join([self._read(begin, end - begin) for begin, end in parts])

    def _read(self, offset: int, size: int) -> bytes:
        return read_at(self._descriptor, offset, size, f"{self.path}: record at byte {offset}")

    def check_whole(self, offset: int) -> None:
        """Raise UserError where the file was cut short after it was opened.

        To be asked before `data` is touched: it is a map, and what is gone from it would end the
        process by a signal. offset: of the record that is wanted, for the message.
        """
        if self.data.size() < len(self.data):
            raise self._error(offset, "the file was cut short while it was read")

    def parts(self, offset: int) -> tuple[list[tuple[int, int]], int]:
        """Return (begin, end) of each part of a payload, and where the next record begins."""
        self.check_whole(offset)
        parts: list[tuple[int, int]] = []
        place, allowed = offset, (0, 1)
        while True:
            if not 0 <= place <= len(self.data) - HEADER_BYTES:
                raise self._error(offset, "the file ends before it: cut short")
            magic, word = struct.unpack_from("<II", self.data, place)
            flag, length = word >> LENGTH_BITS, word & ((1 << LENGTH_BITS) - 1)
            begin, following = place + HEADER_BYTES, place + HEADER_BYTES + (length + 3) // 4 * 4
            if magic != MAGIC:
                raise self._error(offset, f"magic {magic:#010x}, expected {MAGIC:#010x}")
            if flag not in allowed:
                raise self._error(offset, f"part flag {flag}, expected one of {allowed}")
            if following > len(self.data):
                raise self._error(
                    offset, f"{length} bytes long, {len(self.data) - begin} are left: cut short"
                )
            parts.append((begin, begin + length))
            place, allowed = following, (2, 3)
            if flag in (0, 3):
                return parts, place

    def unmap(self, begin: int, end: int) -> None:
        """Let go of the memory pages that were read through `data` in bytes begin..end."""
        begin -= begin % mmap.PAGESIZE
        self.data.madvise(mmap.MADV_DONTNEED, begin, min(end, len(self.data)) - begin)

    def offsets(self) -> np.ndarray:
        """Return the offset of every record, by walking the whole file: int64 [records]."""
        found = array("q")
        place = mapped = 0
        progress = tqdm(
            total=len(self),
            unit="B",
            unit_scale=True,
            desc=f"index {self.path.name}",
            disable=len(self) < 1 << 30 or not sys.stderr.isatty(),
        )
        with progress:
            while place < len(self):
                found.append(place)
                _, following = self.parts(place)
                progress.update(following - place)
                place = following
                if place - mapped > _MAX_MAPPED_BYTES:
                    self.unmap(mapped, place)
                    mapped = place
        return np.frombuffer(found, np.int64)

    def _error(self, offset: int, what: str) -> UserError:
        return UserError(f"{self.path}: record at byte {offset}: {what}")


def read_index(path: Path, size: int) -> tuple[np.ndarray, np.ndarray] | str:
    """Return keys and offsets, int64 [N] each and sorted by offset, of the .idx file at `path`.

    An index can be rebuilt, so that its faults are no error: instead of keys and offsets, a text
    says why it cannot be used (missing, malformed, offsets outside of the file, keys twice).

    Args:
        path: the .idx file.
        size: of the .rec, bytes.
    """
    try:
        # A line stands for a record of 8 bytes at least: a larger file is no index of this .rec.
        if path.stat().st_size > (size // HEADER_BYTES + 1) * _MAX_INDEX_LINE_BYTES:
            return "is longer than the .rec allows"
        text = read_regular(path)
    except OSError as e:
        return f"cannot be read ({e.strerror})"
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if text.translate(None, b"0123456789\t \r\n"):
        return "holds something else than keys and offsets"
    numbers = np.fromstring(text, np.int64, sep=" ")  # out of range becomes the largest: refused
    if not text or len(numbers) != 2 * lines:
        return "is not two numbers a line"
    keys, offsets = numbers.reshape(-1, 2).T
    order = np.argsort(offsets, kind="stable")
    keys, offsets = keys[order], offsets[order]
    if offsets[0] != 0 or offsets[-1] > size - HEADER_BYTES or (offsets % 4).any():
        return "holds offsets that are not in the .rec"
    if (np.diff(offsets) <= 0).any() or (np.diff(np.sort(keys)) == 0).any():
        return "holds a key or an offset twice"
    return keys, offsets
