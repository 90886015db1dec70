"""Decoding and augmenting a batch's images straight into the batch's memory.

The decoders let go of Python's lock.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from uniface_jax.data.formats import images
from uniface_jax.data.formats.landmarks import mirrored
from uniface_jax.data.input.augment import Augmentation, augment, move_landmarks
from uniface_jax.data.input.geometry import Size
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.errors import UserError

MAX_SKIPPED = 100  # records in a row that cannot be used: more than a few bad files


class Part(NamedTuple):
    """Some images of a batch.

    Attributes:
        records: int64 [K], which ones.
        mirrored: bool [K].
        uniform: float32 [K, N] in [0, 1), the random numbers of the augmentations.
    """

    records: np.ndarray
    mirrored: np.ndarray
    uniform: np.ndarray


class Memory(NamedTuple):
    """Memory of a batch, or of some of its images.

    Attributes:
        pixels: uint8 [K, S, S, 3].
        labels: int32 [K], their classes.
        landmarks: float32 [K, 5, 2], None where none are wanted.
    """

    pixels: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray | None = None

    def at(self, place: slice) -> "Memory":
        """Return the memory of the images at a slice."""
        points = None if self.landmarks is None else self.landmarks[place]
        return Memory(self.pixels[place], self.labels[place], points)


def fill(
    source: Source,
    functions: list[Augmentation],
    part: Part,
    memory: Memory,
    skip: bool = False,
) -> dict[int, int]:
    """Decode and augment `part` into `memory`, landmarks moved as pixels are.

    Args:
        source: where the records are read.
        functions: the augmentations but the mirror.
        part: the records, and the random numbers of each.
        memory: the batch's for them.
        skip: let the next usable record of the source stand in for one that cannot be used.

    Returns:
        The record that was used instead, by its place in `part`; empty without `skip`.

    Raises:
        UserError: an image cannot be read or decoded or has another size, or a label is none; with
            `skip`, MAX_SKIPPED in a row.
    """
    try:
        _fill_all(source, functions, part, memory)
        return {}
    except UserError:
        if not skip:
            raise
    replaced = {}
    for place, record in enumerate(part.records.tolist()):
        one = slice(place, place + 1)
        alone = Part(*(column[one] for column in part))
        used = _fill_one(source, functions, alone, memory.at(one))
        if used != record:
            replaced[place] = used
    return replaced


def _fill_one(source: Source, functions: list[Augmentation], part: Part, memory: Memory) -> int:
    """Fill the one image of `part` from its record, or the next that can be used; return which."""
    first, error = int(part.records[0]), None
    for further in range(min(MAX_SKIPPED, len(source))):
        record = (first + further) % len(source)
        try:
            instead = part._replace(records=np.array([record], np.int64))
            _fill_all(source, functions, instead, memory)
            return record
        except UserError as e:
            error = error or e
    raise UserError(
        f"{error}; from there on {min(MAX_SKIPPED, len(source))} in a row cannot be used"
    )


def _fill_all(source: Source, functions: list[Augmentation], part: Part, memory: Memory) -> None:
    """Fill every image of `part` from its own record, as fill without `skip`."""
    records, uniform = part.records, part.uniform.tolist()
    pixels, labels, landmarks = memory
    if landmarks is not None:
        landmarks[:] = _moved_landmarks(source, functions, part, pixels.shape[1:3])
    found = source.images(records)
    items = [] if found else [source[record] for record in records.tolist()]
    encoded: Sequence[bytes | memoryview] = found[0] if found else [item.image for item in items]
    given = found[1] if found else np.array([item.label for item in items], np.int64)
    labels[:] = _checked_labels(source, records, given)
    # BGR, reversed byte by byte along each row, is the mirror in RGB: a third of what it takes to
    # reverse pixels. All go through a small array: a batch is larger than the processor has cache,
    # and a copy reaches its memory faster than the decoder does row after row. Python's lock is
    # held for every step here, so there are few.
    flat = (*pixels.shape[:2], pixels.shape[2] * 3)
    scratch = np.empty(pixels.shape[1:], np.uint8)
    reversible = scratch.reshape(flat[1:])
    places = zip(encoded, part.mirrored.tolist(), pixels, pixels.reshape(flat), strict=True)
    for place, (image, mirror, out, rows) in enumerate(places):
        if not images.decode_jpeg_into(image, scratch, "BGR" if mirror else "RGB"):
            record = int(records[place])
            item = items[place] if items else source[record]
            labels[place] = item.label
            _decode_any(item, out, mirror, f"{source.name}: record {record} ({item.name})")
        elif mirror:
            cv2.flip(reversible, 1, rows)
        else:
            np.copyto(out, scratch)
        if functions:
            result = augment(out, functions, uniform[place])
            if result is not out:
                np.copyto(out, result)


def _moved_landmarks(
    source: Source, functions: list[Augmentation], part: Part, size: Size
) -> np.ndarray:
    """Return the landmarks of `part` as its pixels are mirrored and augmented: [K, 5, 2]."""
    given = source.landmarks(part.records)
    given = np.where(part.mirrored[:, None, None], mirrored(given), given)
    rows = zip(given, part.uniform.tolist(), strict=True)
    return np.stack([move_landmarks(points, functions, row, size) for points, row in rows])


def _checked_labels(source: Source, records: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the labels; UserError naming the record where one is out of range."""
    wrong = np.flatnonzero((labels < 0) | (labels >= source.num_classes))
    if len(wrong):
        raise UserError(
            f"{source.name}: record {records[wrong[0]]} has the label {labels[wrong[0]]}, "
            f"expected 0..{source.num_classes - 1}"
        )
    return labels


def _decode_any(item: Item, out: np.ndarray, mirror: bool, where: str) -> None:
    """Decode `item` into `out` by the decoder of every format, which names what is wrong."""
    _, height, width = images.header(item.image, where)
    if (height, width) != out.shape[:2]:
        raise UserError(
            f"{where}: {width}x{height} pixels, expected {out.shape[1]}x{out.shape[0]}; "
            "python -m uniface_jax.align makes them"
        )
    pixels = images.decode(item.image, where)
    np.copyto(out, pixels[:, ::-1] if mirror else pixels)
