"""Sets of aligned faces: what an evaluation needs of images, wherever they lie."""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm
from typing_extensions import override

from uniface_jax.data.faces.align_folders import REPORT_FILE
from uniface_jax.data.faces.landmark_tables import LandmarkTable
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import MAX_BYTES, parse_json
from uniface_jax.files.reading import open_regular, read_regular
from uniface_jax.inference.extract import checked_pixels

Digest = Callable[[Path, Sequence[str]], str]
_MEMORY_FILE = "digests.json"
_BLOCK_FILES = 1024  # hashed at a time
_CLOCK_NANOSECONDS = 20_000_000  # a file system's clock goes in steps of up to ten milliseconds


LANDMARKS_FILE = "landmarks.csv"  # in the folder of a set's images
WAYS_OUT = (
    f"they stand in {REPORT_FILE} (of align) or {LANDMARKS_FILE} in the images' folder, or in "
    "NAME.landmarks.csv beside NAME.bin; landmarks=template takes those of the template for all"
)


class Beside:
    """A table of landmarks beside images, the first of `files` that is there, read when needed."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._table: LandmarkTable | None = None

    def read(self) -> LandmarkTable | None:
        """Return the table; None where there is no file. Raises UserError as LandmarkTable."""
        with self._lock:
            if self._table is None:
                file = next((file for file in self._files if file.is_file()), None)
                self._table = None if file is None else LandmarkTable(file)
            return self._table


class ImageSet(Protocol):
    """N images in a fixed order. name: a file name without suffix, unique in an evaluation."""

    name: str

    def __len__(self) -> int: ...

    def label(self, index: int) -> str:
        """Return the name of an image in errors and below pictures."""
        ...

    def pixels(self, index: int) -> np.ndarray:
        """Return uint8 RGB [112, 112, 3], or raise UserError by name; several threads call it."""
        ...

    def landmarks(self, index: int) -> np.ndarray:
        """Return the landmarks of an image, float32 [5, 2]; several threads call it.

        Raises UserError, the default, where there are none, naming the set and the ways out.
        """
        raise UserError(f"{self.label(index)}: no landmarks, which the network takes; {WAYS_OUT}")

    def digest(self, files: Digest) -> str:
        """Return the SHA-256, hexadecimal, of all that features depend on; `files` is of files.

        Not of landmarks, which not all models take.
        """
        ...


class EncodedImages(ImageSet):
    """Images of a .bin file, or any others that are in memory.

    Args of the constructor: a name; the images; what errors call their file; what they call one,
    behind the file; the files in one folder that hold them, where `file` is not the one; and their
    numbers in the file, by which landmarks beside it are found.
    """

    def __init__(
        self,
        name: str,
        images: Sequence[bytes],
        file: Path,
        label: Callable[[int], str] = "image {}".format,
        files: Sequence[Path] = (),
        numbers: np.ndarray | None = None,
    ) -> None:
        self.name = name
        self.file = file
        self._images = images
        self._label = label
        self._files = files or [file]
        self._numbers = np.arange(len(images)) if numbers is None else numbers
        self._table = Beside(file.with_suffix(".landmarks.csv"))

    @override
    def __len__(self) -> int:
        return len(self._images)

    @override
    def label(self, index: int) -> str:
        return f"{self.file}: {self._label(index)}"

    @override
    def pixels(self, index: int) -> np.ndarray:
        return checked_pixels(self._images[index], self.label(index))

    @override
    def landmarks(self, index: int) -> np.ndarray:
        if (table := self._table.read()) is None:
            return super().landmarks(index)
        number = int(self._numbers[index])
        return table.of(number, lambda: str(number))

    @override
    def digest(self, files: Digest) -> str:
        return files(self._files[0].parent, [file.name for file in self._files])


class ImageFiles(ImageSet):
    """Image files `names` relative to the folder `root`.

    whole: they are all that lie there, in order of their names, so that a table of landmarks may
    find them by position.
    """

    def __init__(self, name: str, root: Path, names: Sequence[str], whole: bool = True) -> None:
        self.name = name
        self.whole = whole
        self.root = root
        self.names = names
        self._table = Beside(root / REPORT_FILE, root / LANDMARKS_FILE)

    @override
    def __len__(self) -> int:
        return len(self.names)

    @override
    def label(self, index: int) -> str:
        return str(self.root / self.names[index])

    @override
    def pixels(self, index: int) -> np.ndarray:
        path = self.root / self.names[index]
        return checked_pixels(read_image_file(path), str(path))

    @override
    def landmarks(self, index: int) -> np.ndarray:
        if (table := self._table.read()) is None:
            return super().landmarks(index)
        if table.is_by_position and not self.whole:
            raise UserError(
                f"{table.file}: finds landmarks by position, which {self.label(index)}, of a list, "
                "has none of; expected a table by name"
            )
        return table.of(index, lambda: self.names[index])

    @override
    def digest(self, files: Digest) -> str:
        return files(self.root, self.names)


class FileDigests:
    """SHA-256 of files by name and content; what was read once is known by its inodes and times.

    memory: a folder of this user alone for digests.json, which keeps that knowledge between runs;
    None keeps nothing.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory / _MEMORY_FILE if memory else None
        self._known: dict[str, str] = {}
        if self._memory is not None and self._memory.is_file():
            try:
                known = parse_json(read_regular(self._memory, MAX_BYTES))
                self._known = {str(k): str(v) for k, v in known.items()}
            except (OSError, ValueError, AttributeError):
                self._known = {}  # a damaged memory costs one more reading

    def __call__(self, root: Path, names: Sequence[str]) -> str:
        """Return the digest of the files `names` in the folder `root`, in that order.

        Where `root` lies does not count. A terminal shows a progress bar. Raises UserError naming
        the file that cannot be read.
        """
        fingerprint = _fingerprint(root, names)
        if fingerprint in self._known:
            return self._known[fingerprint]
        digest = _content_digest(root, names)
        if _fingerprint(root, names) == fingerprint:  # else a file changed while it was read
            self._known[fingerprint] = digest
            if self._memory is not None:
                content = json.dumps(self._known, indent=1) + "\n"
                write_bytes(self._memory, content.encode())
        return digest


def _fingerprint(root: Path, names: Sequence[str]) -> str:
    """Return a digest of what changes when files do, without reading them.

    The time of an inode's change cannot be set, as the one of its content can: a copy with the
    times of another file, of the same size, differs. A change that follows at once has a later
    time, since it is waited for.
    """
    total, newest = hashlib.sha256(), 0
    for name in names:
        try:
            found = (root / name).stat()
        except OSError as e:
            raise UserError(f"{root / name}: cannot be read ({e.strerror})") from e
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        total.update(os.fsencode(name) + b"\0%d\0%d\0%d\0%d\0%d\0" % identity)
        newest = max(newest, found.st_ctime_ns)
    wait = (newest + _CLOCK_NANOSECONDS - time.time_ns()) / 1e9
    if 0 < wait <= _CLOCK_NANOSECONDS / 1e9:
        time.sleep(wait)
    return total.hexdigest()


def _content_digest(root: Path, names: Sequence[str]) -> str:
    def one(name: str) -> bytes:
        try:
            with open_regular(root / name) as opened:
                content = hashlib.file_digest(opened, "sha256").digest()
        except OSError as e:
            raise UserError(f"{root / name}: cannot be read ({e.strerror})") from e
        return os.fsencode(name) + b"\0" + content

    if len(names) == 1:  # so that a single file has the digest that sha256sum prints
        return one(names[0])[-32:].hex()
    total = hashlib.sha256()
    shown = sys.stderr.isatty() and len(names) > _BLOCK_FILES
    bar = tqdm(total=len(names), desc=f"{root}: hash", unit=" files", disable=not shown)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), _BLOCK_FILES):
            block = names[start : start + _BLOCK_FILES]
            for digest in pool.map(one, block):
                total.update(digest)
            bar.update(len(block))
    return total.hexdigest()
