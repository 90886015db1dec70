"""Training images in a RecordIO file: insightface's layout and im2rec's, told apart by content.

A payload is `u32 flag | f32 label | u64 id | u64 id2`, then `flag` float32 labels where flag > 0
(the first is the class), then the encoded image. insightface adds records without an image: key 0
with labels [N+1, N+1+C], and one for each of the C identities; the images have the keys 1..N.
"""

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm
from typing_extensions import override

from uniface_jax.data.formats.recordio import (
    HEADER_BYTES,
    LENGTH_BITS,
    MAGIC,
    RecordFile,
    read_index,
)
from uniface_jax.data.sources.base import Item, digest
from uniface_jax.data.sources.indexed import IndexedSource, Part
from uniface_jax.data.sources.labels import contiguous
from uniface_jax.errors import UserError

IMAGE_HEADER_BYTES = 24
EXACT_LABELS = 1 << 24  # below it float32 has every whole number
_CHUNK_RECORDS = 1 << 14  # records at a time, so that little of the file is mapped at once


@dataclass
class _Records:
    """All records in the order of the file: key, offset, class or first label, has an image."""

    keys: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    has_image: np.ndarray


@dataclass(frozen=True)
class RecordIOPart(Part):
    """Images of a .rec file: key, offset and length of their records, int64, class, int32; [K]."""

    file: RecordFile
    keys: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray  # of records, headers included
    labels: np.ndarray

    @override
    def __getitem__(self, index: int) -> Item:
        payload = self.file.payload(int(self.offsets[index]), int(self.lengths[index]))
        (flag,) = struct.unpack_from("<I", payload)
        image = payload[IMAGE_HEADER_BYTES + 4 * flag :]
        return Item(image, int(self.labels[index]), str(self.keys[index]))


class RecordIOSource(IndexedSource):
    """Images of a .rec file, by ascending key; item names are the keys.

    The .idx beside it gives the keys. Where it is missing or does not fit the .rec, the file is
    walked and the keys are the ids in the image headers; `notes` says so. Every record's header is
    read when opening, its image never. Labels that are not 0..C-1 are mapped by ascending value,
    and class_names then holds the values.

    Raises:
        UserError: the file is malformed or cut short, a label is no class, a record of im2rec's
            layout has no image, or the number of images is not the one that insightface's key 0
            declares; the message names file and record.
    """

    _images: RecordIOPart

    def __init__(self, path: Path | str):
        self.name = str(path)
        self.notes: list[str] = []
        self._file = RecordFile(path)
        records = self._indexed()
        chosen, declared = self._layout(records)
        order = np.argsort(records.keys, kind="stable")
        order = order[chosen[order]]
        keys, offsets = records.keys[order], records.offsets[order]
        if not len(order):
            raise UserError(f"{path}: no image in {len(records.keys)} records")
        ends = np.append(records.offsets[1:], len(self._file))
        lengths = ends[order] - offsets
        labels = records.labels[order]
        valid = (labels >= 0) & (labels == np.floor(labels)) & (labels < 2**31)
        if not valid.all():
            worst = int(np.argmin(valid))
            raise UserError(
                f"{path}: key {keys[worst]}: label {labels[worst]:g}, expected a class number"
            )
        if labels.max() >= EXACT_LABELS:
            self.notes.append(
                f"{path}: labels up to {labels.max():.0f} are float32 in RecordIO, in which some "
                f"numbers from {EXACT_LABELS} on are one: people may have merged"
            )
        labels, self.num_classes, self.class_names = contiguous(labels.astype(np.int64), declared)
        self._images = RecordIOPart(self._file, keys, offsets, lengths, labels)

    @override
    def fingerprint(self) -> str:
        return digest(self._images.keys, self._images.lengths, self._images.labels)

    def _indexed(self) -> _Records:
        """Return the records by the .idx, or by walking the file where the two do not agree."""
        index_file = self._file.path.with_suffix(".idx")
        index = read_index(index_file, len(self._file))
        if not isinstance(index, str):
            keys, offsets = index
            records = self._scan(offsets, follows=True)
            if records is not None:
                records.keys = keys
                return records
            index = f"does not fit {self._file.path.name}"
        self.notes.append(f"{index_file} {index}: the records were indexed anew")
        records = self._scan(self._file.offsets(), follows=False)
        assert records is not None
        if len(np.unique(records.keys)) != len(records.keys):
            self.notes.append(f"{self.name}: ids in it are not unique, items are named by position")
            records.keys = np.arange(len(records.keys))
        return records

    def _scan(self, offsets: np.ndarray, *, follows: bool) -> _Records | None:
        """Read the image header of every record, in the order of the file.

        follows: check first that each record ends where the next one begins, and the last one with
        the file; None where that is not so.
        """
        count = len(offsets)
        ends = np.append(offsets[1:], len(self._file))
        keys, labels = np.empty(count, np.int64), np.empty(count, np.float32)
        has_image = np.empty(count, bool)
        words = np.frombuffer(self._file.data, "<u4", len(self._file) // 4)
        progress = tqdm(
            total=count,
            unit=" records",
            desc=f"read {self._file.path.name}",
            disable=count < _CHUNK_RECORDS or not sys.stderr.isatty(),
        )
        with progress:
            for start in range(0, count, _CHUNK_RECORDS):
                part = slice(start, start + _CHUNK_RECORDS)
                self._file.check_whole(int(offsets[start]))
                if follows and not self._each_follows(words, offsets[part], ends[part]):
                    return None
                keys[part], labels[part], has_image[part] = self._headers(words, offsets[part])
                self._file.unmap(int(offsets[part][0]), int(ends[part][-1]))
                progress.update(len(offsets[part]))
        return _Records(keys, offsets, labels, has_image)

    def _each_follows(self, words: np.ndarray, offsets: np.ndarray, ends: np.ndarray) -> bool:
        """Return True where each record at `offsets` is whole and ends at its entry of `ends`."""
        places = offsets // 4
        lengths = (words[places + 1] & np.uint32((1 << LENGTH_BITS) - 1)).astype(np.int64)
        parts = words[places + 1] >> np.uint32(LENGTH_BITS)
        fits = offsets + HEADER_BYTES + (lengths + 3) // 4 * 4 == ends
        for i in np.flatnonzero(parts == 1):  # rare: the magic stood in a payload
            try:
                fits[i] = self._file.parts(int(offsets[i]))[1] == ends[i]
            except UserError:
                return False
        return bool(((words[places] == MAGIC) & fits & (parts <= 1)).all())

    def _headers(
        self, words: np.ndarray, offsets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids, labels and has-image of the records at `offsets`, whose framing is right."""
        places = offsets // 4
        lengths = (words[places + 1] & np.uint32((1 << LENGTH_BITS) - 1)).astype(np.int64)
        # Past the end of the file nothing is read; such records are too short and refused below.
        columns = [words[np.minimum(places + i, len(words) - 1)] for i in (2, 3, 4, 5, 8)]
        flags, label, low, high, first = columns
        ids = (low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)).astype(np.int64)
        labels = np.where(flags > 0, first, label).view("<f4")
        images_at = IMAGE_HEADER_BYTES + 4 * flags.astype(np.int64)
        for i in np.flatnonzero(words[places + 1] >> np.uint32(LENGTH_BITS) == 1):
            payload = self._file.payload(int(offsets[i]))
            lengths[i] = len(payload)
            if lengths[i] < IMAGE_HEADER_BYTES:
                continue
            flag, labels[i], ids[i], _ = struct.unpack_from("<IfqQ", payload)
            images_at[i] = IMAGE_HEADER_BYTES + 4 * flag
            if flag and images_at[i] <= lengths[i]:
                (labels[i],) = struct.unpack_from("<f", payload, IMAGE_HEADER_BYTES)
        short = images_at > lengths
        if short.any():
            worst = int(np.argmax(short))
            raise UserError(
                f"{self.name}: record at byte {offsets[worst]}: {lengths[worst]} bytes, "
                f"expected an image header of {images_at[worst]} and an image"
            )
        return ids, labels, images_at < lengths

    def _layout(self, records: _Records) -> tuple[np.ndarray, int | None]:
        """Return which records are images, bool [N], and the number of classes where declared."""
        bare = ~records.has_image
        if not bare.any():
            return records.has_image, None
        zero = np.flatnonzero(bare & (records.keys == 0))
        payload = self._file.payload(int(records.offsets[zero[0]])) if len(zero) else b""
        if len(payload) != IMAGE_HEADER_BYTES + 8:
            raise UserError(
                f"{self.name}: key {records.keys[np.argmax(bare)]} holds no image, and there is no "
                "key 0 of insightface's layout that would explain it"
            )
        first, end = struct.unpack_from("<ff", payload, IMAGE_HEADER_BYTES)
        chosen = records.has_image & (records.keys >= 1) & (records.keys < first)
        count, classes = int(chosen.sum()), int(bare.sum()) - 1
        # The declared number is a float32, rounded from 2^24 on: the count is rounded like it.
        if np.float32(count + 1) != first:
            raise UserError(
                f"{self.name}: key 0 declares {first - 1:.0f} images, there are {count}"
            )
        if np.float32(first + classes) != end:
            self.notes.append(
                f"{self.name}: key 0 declares {end - first:.0f} identities, there are records of "
                f"{classes}: classes are counted by the images' labels"
            )
            return chosen, None
        return chosen, classes
