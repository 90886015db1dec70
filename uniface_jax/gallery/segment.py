"""Rows of a gallery that were added together, in files that never change once they are written.

A stem, s and 32 hexadecimal digits, has the files .features (float32 [N, D], as they were given),
.codes, .scales and .errors (native/nearest.py), .ids (int64 [N], rising), .digests (a CRC-32C for
each row of features), and those of Labels. They are npy of one dimension, mapped and not read.
"""

import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from uniface_jax.data.sources.names import Names
from uniface_jax.errors import UserError
from uniface_jax.files.arrays import create_array, map_array, save_array
from uniface_jax.files.reading import open_regular
from uniface_jax.gallery.manifest import SegmentEntry
from uniface_jax.inference.feature_rows import FeatureRows
from uniface_jax.native import nearest

FEATURES = "features"
_BLOCK = 1 << 14  # rows that are coded at a time; a multiple of nearest.BLOCK_ROWS
_CHUNK_BYTES = 1 << 24


class StaleError(Exception):
    """A file that the manifest names is gone: there is a newer manifest."""


@dataclass(frozen=True)
class Labels:
    """Columns of N rows beside their features; see FeatureRows.

    A person who is not known is "".
    """

    names: Names
    people: Names
    photographs: np.ndarray
    faces: np.ndarray
    boxes: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return them as arrays of one dimension, by suffix."""
        names, people = self.names.arrays(), self.people.arrays()
        return {
            "names": names[0],
            "name_ends": names[1],
            "people": people[0],
            "people_ends": people[1],
            "photographs": self.photographs,
            "faces": self.faces,
            "boxes": self.boxes.reshape(-1),
        }


@dataclass(frozen=True)
class Segment:
    """A segment that is open: its arrays, mapped.

    features: float32 [N, D]. codes: nearest.Codes, of which errors are nan for removed rows. ids:
    int64 [N]. digests: uint32 [N]. labels: of the rows.
    """

    folder: Path
    entry: SegmentEntry
    features: np.ndarray
    codes: nearest.Codes
    ids: np.ndarray
    digests: np.ndarray
    labels: Labels

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the features at `places`, int64 [K], each held against its digest."""
        found = np.asarray(self.features[places])
        digests = [google_crc32c.value(row.tobytes()) for row in found]
        if digests != self.digests[places].tolist():
            raise _damaged(_file(self.folder, self.entry.stem, FEATURES))
        return found


def new_stem(letter: str) -> str:
    """Return a stem that nobody else has."""
    return f"{letter}{uuid.uuid4().hex}"


def write_segment(
    folder: Path, blocks: Iterable[tuple[FeatureRows, np.ndarray]], count: int, source: str
) -> SegmentEntry:
    """Write the files of a segment, and return its entry for the manifest.

    Args:
        folder: of the gallery.
        blocks: rows and their ids, rising, int64.
        count: of all rows, one or more.
        source: see SegmentEntry.
    """
    stem, writer = new_stem("s"), None
    for rows, ids in blocks:
        writer = writer or _Writer(folder, stem, (count, rows.features.shape[1]))
        writer.append(rows, ids)
    assert writer is not None
    digests, texts = writer.finish()
    return SegmentEntry(stem, count, texts, digests, source)


class _Writer:
    """Files of a segment while rows come in."""

    def __init__(self, folder: Path, stem: str, shape: tuple[int, int]) -> None:
        self._folder, self._stem, self._done = folder, stem, 0
        count, width = shape
        padded = -(-count // nearest.BLOCK_ROWS) * nearest.BLOCK_ROWS
        groups = -(-width // nearest.GROUP)
        flat = create_array(self._file(FEATURES), (count * width,), np.float32)
        codes = create_array(self._file("codes"), (padded * groups * nearest.GROUP,), np.uint8)
        self._mapped = {FEATURES: flat, "codes": codes}
        self._features = flat.reshape(count, width)
        self._codes = codes.reshape(-1, groups, nearest.BLOCK_ROWS, nearest.GROUP)
        self._scales = np.zeros(padded, np.float32)
        self._errors = np.full(padded, np.nan, np.float32)
        self._ids, self._digests = np.zeros(count, np.int64), np.zeros(count, np.uint32)
        self._labels = Labels(
            Names(),
            Names(),
            self._ids.copy(),
            np.zeros(count, np.int32),
            np.zeros((count, 4), np.float32),
        )

    def append(self, rows: FeatureRows, ids: np.ndarray) -> None:
        """Put rows behind those that are there; their codes follow by whole blocks."""
        start, end = self._done, self._done + len(rows)
        features = np.ascontiguousarray(rows.features, np.float32)
        self._features[start:end] = features
        self._ids[start:end] = ids
        self._digests[start:end] = [google_crc32c.value(row.tobytes()) for row in features]
        for name, person in zip(rows.names, rows.people, strict=True):
            self._labels.names.append(name)
            self._labels.people.append(person or "")
        self._labels.photographs[start:end] = rows.photographs
        self._labels.faces[start:end] = rows.faces
        self._labels.boxes[start:end] = rows.boxes
        for first in range(start // _BLOCK * _BLOCK, end, _BLOCK):
            if first + _BLOCK <= end or end == len(self._ids):
                self._code(first, min(first + _BLOCK, end))
        self._done = end

    def finish(self) -> tuple[dict[str, int], tuple[int, int]]:
        """Bring all to disk; return the digest of each file by suffix, and the texts' bytes."""
        assert self._done == len(self._ids)
        for suffix, mapped in self._mapped.items():
            mapped.flush()
            with open_regular(self._file(suffix)) as file:
                os.fsync(file.fileno())
        labels = self._labels.arrays()
        arrays: dict[str, np.ndarray] = {
            "scales": self._scales,
            "errors": self._errors,
            "ids": self._ids,
            "digests": self._digests,
            **labels,
        }
        for suffix, values in arrays.items():
            save_array(self._file(suffix), values)
        digests = {suffix: file_digest(self._file(suffix)) for suffix in ("codes", *arrays)}
        return digests, (len(labels["names"]), len(labels["people"]))

    def _file(self, suffix: str) -> Path:
        return _file(self._folder, self._stem, suffix)

    def _code(self, start: int, end: int) -> None:
        features = np.asarray(self._features[start:end], np.float64)
        units = features / np.linalg.norm(features, axis=1, keepdims=True)
        codes, self._scales[start:end], self._errors[start:end] = nearest.coded(units)
        size = nearest.BLOCK_ROWS
        self._codes[start // size : -(-end // size)] = nearest.packed(codes)


def open_segment(folder: Path, entry: SegmentEntry, width: int, removed: np.ndarray) -> Segment:
    """Map the files of a segment, and hold all but the features against their digests.

    Those are held against theirs row by row, when they are read. removed: rising ids, int64.

    Raises:
        StaleError: a file is gone.
        UserError: one is damaged.
    """
    rows, groups = entry.rows, -(-width // nearest.GROUP)
    found = {
        suffix: _mapped(folder, entry, suffix, wanted)
        for suffix, wanted in _lengths(entry, width).items()
    }
    errors = found["errors"]
    if len(removed):
        places = np.minimum(np.searchsorted(found["ids"], removed), rows - 1)
        errors = errors.copy()
        errors[places[found["ids"][places] == removed]] = np.nan
    shape = (-1, groups, nearest.BLOCK_ROWS, nearest.GROUP)
    labels = Labels(
        Names.of_arrays(found["names"], found["name_ends"]),
        Names.of_arrays(found["people"], found["people_ends"]),
        found["photographs"],
        found["faces"],
        found["boxes"].reshape(rows, 4),
    )
    return Segment(
        folder,
        entry,
        found[FEATURES].reshape(rows, width),
        nearest.Codes(found["codes"].reshape(shape), found["scales"], errors),
        found["ids"],
        found["digests"],
        labels,
    )


def _lengths(entry: SegmentEntry, width: int) -> dict[str, tuple[type[np.generic], int]]:
    """Return the type and the length of each file of a segment."""
    rows = entry.rows
    padded = -(-rows // nearest.BLOCK_ROWS) * nearest.BLOCK_ROWS
    return {
        FEATURES: (np.float32, rows * width),
        "codes": (np.uint8, padded * -(-width // nearest.GROUP) * nearest.GROUP),
        "scales": (np.float32, padded),
        "errors": (np.float32, padded),
        "ids": (np.int64, rows),
        "digests": (np.uint32, rows),
        "names": (np.uint8, entry.texts[0]),
        "name_ends": (np.int64, rows + 1),
        "people": (np.uint8, entry.texts[1]),
        "people_ends": (np.int64, rows + 1),
        "photographs": (np.int64, rows),
        "faces": (np.int32, rows),
        "boxes": (np.float32, 4 * rows),
    }


def _mapped(
    folder: Path, entry: SegmentEntry, suffix: str, wanted: tuple[type[np.generic], int]
) -> np.ndarray:
    file, (dtype, length) = _file(folder, entry.stem, suffix), wanted
    array = map_array(file, np.dtype(dtype), length)
    if array is None:
        raise _damaged(file) if file.exists() else StaleError(str(file))
    if suffix != FEATURES and file_digest(file) != entry.digests.get(suffix):
        raise _damaged(file)
    return array


def file_digest(path: Path) -> int:
    """Return the CRC-32C of a file."""
    crc = 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = google_crc32c.extend(crc, chunk)
    return crc


def _file(folder: Path, stem: str, suffix: str) -> Path:
    return folder / f"{stem}.{suffix}"


def _damaged(file: Path) -> UserError:
    return UserError(f"{file}: damaged: it is not what was written; build the gallery again")
