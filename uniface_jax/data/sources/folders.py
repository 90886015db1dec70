"""Identity folders as a source: one sub-folder a person, the photographs in it."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.images import SUFFIXES
from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.data.sources.labels import natural_key
from uniface_jax.data.sources.names import Names
from uniface_jax.errors import UserError
from uniface_jax.files.paths import there
from uniface_jax.files.reading import NotRegularError, read_regular

MAX_FILE_BYTES = 1 << 28
# Names that macOS, Windows and storage servers write into any folder, beside those with a dot.
SYSTEM_NAMES = frozenset(
    (
        "__MACOSX", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "lost+found",
        "System Volume Information", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r",
    )
)  # fmt: skip
_OWN_FILES = ("alignment.json",)  # of faces.align_folders


class FolderSource(Source):
    """Images in `path`/<identity>/<image>, sorted naturally (s2 < s10); labels follow that order.

    Item names, and those in `skipped`, are relative to `path`. Names that begin with a dot are
    ignored, and so is align's report; the folders that systems put beside files (SYSTEM_NAMES) are
    left out and noted.

    Attributes:
        skipped: the files that are no images by their suffix, and were left out.
        faults: the folders that were left out, with the reason.

    Raises:
        UserError: there are no identity folders, or, unless faults are skipped, one, which the
            message names, holds no image, or further folders.

    Example:
        >>> import tempfile
        >>> from uniface_jax.data.formats.images import encode_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for person in ("ann", "bob"):
        ...         (Path(folder) / person).mkdir()
        ...         black = encode_png(np.zeros((112, 112, 3), np.uint8))
        ...         _ = (Path(folder) / person / "1.png").write_bytes(black)
        ...     source = FolderSource(Path(folder))
        ...     source.class_names, source[1].name, source[1].label
        (['ann', 'bob'], 'bob/1.png', 1)
    """

    def __init__(
        self,
        path: Path,
        *,
        identities: Collection[str] | None = None,
        suffixes: tuple[str, ...] = SUFFIXES,
        skip_faults: bool = False,
    ):
        """Read the names in `path`.

        Args:
            path: the folder of the identity folders.
            identities: only these sub-folders; None is all.
            suffixes: of image files, in lower case.
            skip_faults: leave out empty people and folders inside people, and note them.
        """
        self.path = Path(path)
        self._suffixes, self._skip_faults = suffixes, skip_faults
        self.name = str(path)
        self.skipped: list[str] = []
        self.faults: list[str] = []
        self.class_names: list[str] = []
        self._files = Names()  # file names only: at 42 million, whole paths would not fit
        counts = []
        for identity in self._folders(""):
            if identities is not None and identity not in identities:
                continue
            images = self._images_of(identity)
            if not images:
                continue
            self.class_names.append(identity)
            for image in images:
                self._files.append(image)
            counts.append(len(images))
        names = visible(self.path, folders=False)
        self.skipped += [name for name in names if name not in (*_OWN_FILES, *SYSTEM_NAMES)]
        if not counts:
            raise UserError(
                f"{path}: no identity folders; expected one sub-folder a person, with its images"
            )
        self.notes = self.faults + [
            f"{path / name}: skipped, not an image by its suffix" for name in self.skipped
        ]
        self.num_classes = len(counts)
        self._labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def _images_of(self, identity: str) -> list[str]:
        """Return the names of an identity's images, and note in `skipped` its other files."""
        folder = self.path / identity
        for nested in self._folders(identity):
            self._fault(f"{folder / nested}: a folder inside an identity folder")
        names = [name for name in visible(folder, folders=False) if name not in SYSTEM_NAMES]
        images = [name for name in names if name.lower().endswith(self._suffixes)]
        self.skipped += [f"{identity}/{name}" for name in names if name not in set(images)]
        if not images:
            self._fault(
                f"{folder}: an identity folder without an image ({', '.join(self._suffixes)})"
            )
        return images

    def _folders(self, identity: str) -> list[str]:
        """Return the folders in a person's folder, or in `path`, without those of systems."""
        names = visible(self.path / identity, folders=True)
        theirs = [name for name in names if name in SYSTEM_NAMES]
        self.faults += [
            f"{self.path / identity / name}: left out, a system's folder" for name in theirs
        ]
        return [name for name in names if name not in SYSTEM_NAMES]

    def _fault(self, message: str) -> None:
        """Note a folder that is left out; UserError unless those are skipped."""
        if not self._skip_faults:
            raise UserError(
                f"{message}; --on_error=skip, in training --config.data.on_error=skip, leaves such "
                "out"
            )
        self.faults.append(f"{message}: left out")

    @override
    def __len__(self) -> int:
        return len(self._files)

    @override
    def item_name(self, index: int) -> str:
        return f"{self.class_names[self._labels[index]]}/{self._files[index]}"

    @override
    def __getitem__(self, index: int) -> Item:
        name = self.item_name(index)
        return Item(read_image_file(self.path / name), int(self._labels[index]), name)

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        return np.take(self._labels, indices)

    @override
    def part(self, indices: np.ndarray) -> "FilePart":
        names = [self.item_name(i) for i in indices.tolist()]
        return FilePart(self.path, names, self._labels[indices])

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return file_sizes(self.path, map(self.item_name, indices.tolist()))

    @override
    def fingerprint(self) -> str:
        return digest(*Names(self.class_names).arrays(), *self._files.arrays(), self._labels)


class FilePart:
    """Image files `folder`/`names`[i] of the classes `labels`: int32 [K]."""

    def __init__(self, folder: Path, names: list[str], labels: np.ndarray):
        self._folder, self._names, self._labels = folder, names, labels

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Item:
        name = self._names[index]
        return Item(read_image_file(self._folder / name), int(self._labels[index]), name)


def file_sizes(folder: Path, names: Iterable[str]) -> np.ndarray:
    """Return the bytes of the files `folder`/name: int64; 0 for one that cannot be read."""

    def size(name: str) -> int:
        try:
            return _status(folder / name)[1].st_size
        except (OSError, ValueError):
            return 0

    return np.fromiter(map(size, names), np.int64)


def read_image_file(path: Path) -> bytes:
    """Return the bytes of a file, whose name may be written in another Unicode form.

    Raises:
        UserError: it is no file, cannot be read, or is over 256 MiB.
    """
    try:
        try:
            return read_regular(path, MAX_FILE_BYTES)
        except FileNotFoundError:
            return read_regular(there(path), MAX_FILE_BYTES)
    except NotRegularError as e:
        raise UserError(f"{path}: not a file; expected an image file") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e


def _status(path: Path) -> tuple[Path, os.stat_result]:
    """Return the path by which a file is there, and its status; see files.paths.there."""
    try:
        return path, path.stat()
    except FileNotFoundError:
        path = there(path)
        return path, path.stat()


def visible(folder: Path, *, folders: bool) -> list[str]:
    """Return the names in `folder` that begin with no dot: its folders, or all others; sorted.

    A link is what it leads to; one that leads nowhere, or in a circle, is no folder. Raises
    UserError where `folder` cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and _is_folder(entry) == folders
            ]
    except OSError as e:
        raise UserError(f"{folder}: cannot be listed ({e.strerror})") from e
    return sorted(found, key=natural_key)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False
