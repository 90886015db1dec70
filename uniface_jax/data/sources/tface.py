"""TFace's TFRecord files with an index as text, as a source.

A line of the index is NAME, SHARD, OFFSET and LABEL between tabs: the record that begins at byte
OFFSET of NAME/NAME-SHARD.tfrecord. Its Example has the encoded image alone; labels are the index's,
so that a set is cleaned by lines taken out.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.tf_example import parse_image
from uniface_jax.data.formats.tfrecord_shards import FOOTER_BYTES, HEADER_BYTES, check_frame
from uniface_jax.data.sources.base import Item, digest
from uniface_jax.data.sources.indexed import Part, SharedSource
from uniface_jax.data.sources.labels import classes_of
from uniface_jax.data.sources.names import Names
from uniface_jax.errors import UserError
from uniface_jax.files.kept_open import KeptOpen
from uniface_jax.files.text_lines import numbered_lines

_LINE = "expected NAME, SHARD, OFFSET and LABEL between tabs"
_COLUMNS = 4
_MAX_NAME_LENGTH = 200
_MAX_RECORD_BYTES = 1 << 28


@dataclass(frozen=True)
class TfacePart(Part):
    """Records of TFace's files: shard, offset and class of each, [K]."""

    files: KeptOpen
    shards: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    @override
    def __getitem__(self, index: int) -> Item:
        shard, offset = int(self.shards[index]), int(self.offsets[index])
        path = self.files.paths[shard]
        where = f"{path}: record at byte {offset}"
        try:
            size = self._size(index)
            frame = self.files.read(shard, offset, size) if size else b""
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e
        if not size or len(frame) != size:
            raise UserError(f"{where}: the file ends before it does: cut short, or not a record")
        try:
            image = parse_image(check_frame(frame, where))
        except UserError:
            raise
        except ValueError as e:
            raise UserError(f"{where}: not an example of an image ({e})") from e
        return Item(image, int(self.labels[index]), f"{path.name}/{offset}")

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return np.fromiter(map(self._size_or_none, indices.tolist()), np.int64, len(indices))

    def _size_or_none(self, index: int) -> int:
        try:
            return self._size(index)
        except OSError:
            return 0

    def _size(self, index: int) -> int:
        """Return the bytes of a record with its frame, 0 of what is none; OSError as read."""
        head = self.files.read(int(self.shards[index]), int(self.offsets[index]), 8)
        length = int.from_bytes(head, "little")
        whole = len(head) == 8 and length <= _MAX_RECORD_BYTES
        return HEADER_BYTES + length + FOOTER_BYTES if whole else 0


class TfaceSource(SharedSource):
    """Records that an index lists, in its order; item names are shard/offset.

    Opening reads the index alone.

    Raises:
        UserError: a line of the index is of another form, or a file that it names is not there; the
            message names index and line.
    """

    _images: TfacePart

    def __init__(self, index: Path | str, folder: Path | None = None):
        """Read an index; folder: of the folders NAME, None for one near the index."""
        index = Path(index)
        self.name = str(index)
        self.class_names: list[str] | None = None
        numbers: dict[tuple[str, int], int] = {}  # of the shards, by name and number
        codes: dict[str, int] = {}
        shards, offsets, labels = array("i"), array("q"), array("i")
        paths: list[Path] = []
        for number, line in numbered_lines(index):
            if not line.strip():
                continue
            found = _parsed(line)
            if found is None:
                raise UserError(f"{index}: line {number}: {line[:80]!r}; {_LINE}")
            name, shard, offset, label = found
            if (name, shard) not in numbers:
                numbers[name, shard] = len(paths)
                paths.append(_shard_file(index, folder, name, shard, number))
            shards.append(numbers[name, shard])
            offsets.append(offset)
            labels.append(codes.setdefault(label, len(codes)))
        if not shards:
            raise UserError(f"{index}: an empty index; {_LINE}")
        classes, self.class_names, self.num_classes = classes_of(
            list(codes), np.frombuffer(labels, np.int32)
        )
        self._images = TfacePart(
            KeptOpen(paths),
            np.frombuffer(shards, np.int32),
            np.frombuffer(offsets, np.int64),
            classes,
        )

    @override
    def fingerprint(self) -> str:
        records = self._images
        names = Names(path.name for path in records.files.paths)
        return digest(*names.arrays(), records.shards, records.offsets, records.labels)


def looks_like_index(path: Path) -> bool:
    """Return True where a file begins with a line of an index whose shard is near it."""
    try:
        line = next((line for _, line in numbered_lines(path) if line.strip()), "")
        found = _parsed(line)
        return found is not None and bool(_near(path, found[0], found[1]))
    except UserError:
        return False


def open_tface(text: str) -> TfaceSource:
    """Open `FOLDER:INDEX`: what stands behind tface: where a source is named."""
    folder, colon, index = text.rpartition(":")
    if not colon or not Path(folder).is_dir():
        raise UserError(f"{text}: expected FOLDER:INDEX, the folder of the .tfrecord folders")
    return TfaceSource(index, Path(folder))


def _parsed(line: str) -> tuple[str, int, int, str] | None:
    """Return name, shard, offset and label of a line; None for one of another form."""
    cells = line.rstrip("\r").split("\t")
    if len(cells) != _COLUMNS:
        return None
    name, shard, offset, label = (cell.strip() for cell in cells)
    numbers = shard.isdecimal() and len(shard) <= 5 and offset.isdecimal() and len(offset) <= 18
    plain = name.isprintable() and "/" not in name and 0 < len(name) <= _MAX_NAME_LENGTH
    if not numbers or not plain or name in (".", "..") or not label.isdecimal() or len(label) > 15:
        return None
    return name, int(shard), int(offset), label


def _near(index: Path, name: str, shard: int) -> list[Path]:
    """Return where a shard lies near an index: below it, beside it, or in the folder above."""
    file = f"{name}-{shard:05d}.tfrecord"
    places = (index.parent / name, index.parent, index.parent.parent / name)
    return [place / file for place in places if (place / file).is_file()]


def _shard_file(index: Path, folder: Path | None, name: str, shard: int, line: int) -> Path:
    """Return the file of a shard; UserError naming the line where it is not there."""
    file = f"{name}/{name}-{shard:05d}.tfrecord"
    if folder is not None:
        found: Sequence[Path] = [folder / file] if (folder / file).is_file() else []
    else:
        found = _near(index, name, shard)
    if not found:
        near = folder or index.parent
        raise UserError(
            f"{index}: line {line}: {near / file}: no such file (tface:FOLDER:INDEX says where)"
        )
    return found[0]
