"""LMDB files of training images, as HaiyuWu's programs and Vec2Face's write them, as a source.

Keys are "0", "1", …; a value is msgpack of (encoded image, label), in Vec2Face's sets of (encoded
image, a feature as .npy, label), of which the feature is left out. `__keys__` lists the keys in the
set's order, `__len__` is their number and `__classnum__` that of the classes, all in msgpack.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as formats
from typing_extensions import override

from uniface_jax.data.formats.lmdb_pages import LmdbFile
from uniface_jax.data.sources.base import Item, digest
from uniface_jax.data.sources.folders import MAX_FILE_BYTES
from uniface_jax.data.sources.indexed import Part, SharedSource
from uniface_jax.data.sources.label_index import indexed_labels
from uniface_jax.errors import UserError, extra
from uniface_jax.files.kept_open import KeptOpen
from uniface_jax.files.reading import open_regular

DATA_FILE = "data.mdb"  # in a folder that LMDB has made
_OWN_KEYS = (b"__len__", b"__keys__", b"__classnum__")
_MAX_CLASSES = (1 << 31) - 1  # labels are int32
_MAX_DIGITS = 18
_INDEXED_RECORDS = 1 << 16  # whose classes are wanted at once: those of all will be
_LISTED_BYTES = 32  # of a key in msgpack at most, and of a number
_LAYOUT = 'expected keys "0", "1", …, and __keys__, __len__ and __classnum__'


@dataclass(frozen=True)
class LmdbPart(Part):
    """Records of an LMDB file: key, offset and size of each, int64 [K], among C classes.

    labels: int32 [K], None where they are not known without reading the records.
    """

    files: KeptOpen
    keys: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    num_classes: int
    labels: np.ndarray | None = None

    @override
    def __getitem__(self, index: int) -> Item:
        path, key, size = self.files.paths[0], int(self.keys[index]), int(self.lengths[index])
        try:
            value = self.files.read(0, int(self.offsets[index]), size)
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e
        where = f"{path}: key {key}"
        if len(value) != size:
            raise UserError(f"{where}: the file was cut short while it was read")
        image, label = _record(value, where)
        if not 0 <= label < self.num_classes:
            raise UserError(f"{where}: label {label}, expected 0..{self.num_classes - 1}")
        return Item(image, label, str(key))


class LmdbSource(SharedSource):
    """Records of an LMDB file in the order of its `__keys__`; item names are the keys.

    Opening reads the pages that say where records lie, not the images. Where the classes of many
    are wanted, all records are read, once for this file: labels are kept (label_index).

    Args of the constructor: the file, or LMDB's folder of it; and a .npy of indices, whole numbers
    below `__len__` in one row, of the images to take, in that order, or None for all. Their classes
    stay as they are.

    Raises:
        UserError: the file is damaged, cut short or of another layout, or an index is none; the
            message names file, page or key.
    """

    _images: LmdbPart

    def __init__(self, path: Path | str, mask: Path | str | None = None):
        path = Path(path)
        self.name = str(path)
        file = path / DATA_FILE if path.is_dir() else path
        with extra("containers"):
            import msgpack  # noqa: F401  # missing, it is said now and not of the first record
        keys, offsets, sizes, own = _places(file)
        count, self.num_classes = (_number(file, key, own) for key in ("__len__", "__classnum__"))
        if not 1 <= self.num_classes <= _MAX_CLASSES:
            raise UserError(f"{file}: __classnum__ is {self.num_classes}, expected 1 or more")
        wanted = _listed(file, own[b"__keys__"], len(keys))
        if len(wanted) != count or not count:
            raise UserError(f"{file}: __len__ is {count}, __keys__ has {len(wanted)} keys")
        if mask is not None:
            wanted = wanted[_indices(Path(mask), count)]
            self.name = f"{path}:{Path(mask).name}"  # whose last part a manifest keeps
        order = np.argsort(keys, kind="stable")
        found = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        found = order[found]
        missing = np.flatnonzero(keys[found] != wanted)
        if len(missing):
            raise UserError(f"{file}: key {wanted[missing[0]]}: in __keys__, but has no record")
        lengths = sizes[found]
        if int(lengths.max()) > MAX_FILE_BYTES:
            raise UserError(
                f"{file}: key {wanted[lengths.argmax()]}: {lengths.max()} bytes; a record has at "
                f"most {MAX_FILE_BYTES}"
            )
        self._images = LmdbPart(KeptOpen([file]), wanted, offsets[found], lengths, self.num_classes)

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        images = self._images
        if images.labels is None and len(indices) >= min(_INDEXED_RECORDS, len(images)):
            order = np.argsort(images.offsets)
            labels = indexed_labels(self._content_key(), images, order, self.name)
            self._images = replace(images, labels=labels)
        return super().classes(indices)

    def _content_key(self) -> str:
        """Return what is another of other records, or of a file that was written to since."""
        images, file = self._images, self._images.files.paths[0].stat()
        state = np.array([self.num_classes, file.st_size, file.st_mtime_ns])
        return digest(images.keys, images.offsets, images.lengths, state)

    @override
    def fingerprint(self) -> str:
        # Records of the same lengths are not told apart: no image is read for it.
        return digest(self._images.keys, self._images.lengths, np.array([self.num_classes]))


def open_lmdb(text: str) -> LmdbSource:
    """Open `FILE`, or `FILE:MASK.npy`: what stands behind lmdb: where a source is named."""
    if Path(text).exists():
        return LmdbSource(text)
    path, colon, mask = text.rpartition(":")
    if not colon:
        raise UserError(f"{text}: no such file or folder; expected FILE, or FILE:MASK.npy")
    if not Path(path).exists():
        raise UserError(f"{path}: no such file or folder; expected FILE:MASK.npy")
    return LmdbSource(path, mask)


def _places(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[bytes, bytes]]:
    """Return keys, offsets and sizes of the records, int64 [N], and the set's own values by key."""
    keys: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    own: dict[bytes, tuple[int, int]] = {}  # where each lies
    with LmdbFile(file) as opened:
        for nodes in opened:
            records = np.array([key.isdigit() for key in nodes.keys], bool)
            for place in np.flatnonzero(~records).tolist():
                key, size = nodes.keys[place], int(nodes.sizes[place])
                if key not in _OWN_KEYS:
                    raise UserError(f"{file}: key {key[:40]!r}: {_LAYOUT}")
                own[key] = int(nodes.offsets[place]), size
            keys.append(_numbers(file, [key for key in nodes.keys if key.isdigit()]))
            offsets.append(nodes.offsets[records])
            sizes.append(nodes.sizes[records])
        count = sum(map(len, keys))
        missing = [key.decode() for key in _OWN_KEYS if key not in own]
        if missing or not count:
            raise UserError(f"{file}: no {missing[0] if missing else 'record'}; {_LAYOUT}")
        for key, (_, size) in own.items():
            if size > _LISTED_BYTES * (1 + count):
                raise UserError(f"{file}: {key.decode()}: {size} bytes, of {count} records")
        values = {key: opened.value(*place) for key, place in own.items()}
    return np.concatenate(keys), np.concatenate(offsets), np.concatenate(sizes), values


def _numbers(file: Path, keys: list[bytes]) -> np.ndarray:
    """Return keys of digits as int64; UserError for one that no number is written as."""
    for key in keys:
        if len(key) > _MAX_DIGITS or (key[:1] == b"0" and len(key) > 1) or not key.isdigit():
            raise UserError(f"{file}: key {key[:40]!r}: {_LAYOUT}")
    return np.fromiter(map(int, keys), np.int64, len(keys))


def _listed(file: Path, value: bytes, records: int) -> np.ndarray:
    """Return the keys that `__keys__` lists, int64, of a set of so many records."""

    def key(found: Any) -> bytes:
        if not isinstance(found, bytes):
            raise UserError(f"{file}: __keys__: a {type(found).__name__}; {_LAYOUT}")
        return found

    keys = list(map(key, _items(file, value, records)))
    return _numbers(file, keys)


def _items(file: Path, value: bytes, most: int) -> Iterator[Any]:
    """Yield the items of a list in msgpack, of which there are `most` at most."""
    import msgpack

    reader = msgpack.Unpacker(raw=True, max_buffer_size=len(value), max_array_len=0, max_map_len=0)
    try:
        reader.feed(value)
        count = reader.read_array_header()
        if count > most:
            raise UserError(f"{file}: __keys__: {count} keys of {most} records")
        for _ in range(count):
            yield reader.unpack()
    except UserError:
        raise
    except (ValueError, msgpack.UnpackException, msgpack.exceptions.BufferFull) as e:
        raise UserError(f"{file}: __keys__: not msgpack ({str(e)[:80]})") from e


def _number(file: Path, key: str, own: dict[bytes, bytes]) -> int:
    """Return the whole number that a value of the set's own holds."""
    found = _unpacked(own[key.encode()], f"{file}: {key}")
    if type(found) is not int:
        raise UserError(f"{file}: {key}: a {type(found).__name__}, expected a whole number")
    return found


def _record(value: bytes, where: str) -> tuple[bytes, int]:
    """Return the image and the label of a record."""
    found = _unpacked(value, where)
    if isinstance(found, tuple) and len(found) in (2, 3):
        image, label = found[0], found[-1]
        if isinstance(image, bytes) and type(label) is int:
            return image, label
    raise UserError(f"{where}: expected (image, label) or (image, feature, label)")


def _unpacked(value: bytes, where: str) -> Any:
    """Return a value in msgpack: a number, bytes, or a tuple of three such at most."""
    import msgpack

    try:
        return msgpack.unpackb(
            value, raw=True, use_list=False, max_array_len=3, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException, msgpack.exceptions.ExtraData) as e:
        raise UserError(f"{where}: not msgpack ({' '.join(str(e).split())[:80]})") from e


def _indices(mask: Path, count: int) -> np.ndarray:
    """Return the indices of a .npy, int64 [K]; UserError where they are none of 0..count-1."""
    try:
        with open_regular(mask) as file:
            major, _ = formats.read_magic(file)
            header = {1: formats.read_array_header_1_0, 2: formats.read_array_header_2_0}[major]
            shape, _, dtype = header(file)
            left = os.fstat(file.fileno()).st_size - file.tell()
            if len(shape) != 1 or dtype.kind not in "iu" or shape[0] * dtype.itemsize != left:
                raise UserError(
                    f"{mask}: {dtype} {shape} in {left} bytes, expected whole numbers in one row"
                )
            array = np.frombuffer(file.read(left), dtype)
    except UserError:
        raise
    except OSError as e:
        raise UserError(f"{mask}: cannot be read ({e.strerror})") from e
    except Exception as e:  # NumPy raises whatever its header's parser stumbles over
        raise UserError(f"{mask}: not a .npy of indices ({' '.join(str(e).split())[:80]})") from e
    if not len(array):
        raise UserError(f"{mask}: no index in it")
    if int(array.min()) < 0 or int(array.max()) >= count:
        worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise UserError(f"{mask}: index {worst}, expected 0..{count - 1}")
    return array.astype(np.int64)
