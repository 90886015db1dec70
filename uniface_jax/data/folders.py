"""Identity folders as a source: one sub-folder a person, the photographs in it."""

import os
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from uniface_jax.data.images import SUFFIXES
from uniface_jax.data.items import Item
from uniface_jax.errors import UserError

MAX_FILE_BYTES = 1 << 28


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts s2 before s10; names that differ only in leading zeros keep a fixed order."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), "") if i % 2 else (0, 0, part) for i, part in enumerate(parts)], name


class FolderSource:
    """`path`/<identity>/<image>, sorted naturally (s2 < s10); labels follow that order.

    identities: only these sub-folders; None is all. suffixes: of image files, in lower case. Other
    files are left out and listed in `skipped`; names that begin with a dot are ignored. Item names,
    and those in `skipped`, are relative to `path`.

    Raises UserError, naming the folder, when there are no identity folders, when one holds no
    image, or when one holds further folders.
    """

    def __init__(
        self,
        path: Path,
        *,
        identities: Collection[str] | None = None,
        suffixes: tuple[str, ...] = SUFFIXES,
    ):
        self.path = Path(path)
        self._suffixes = suffixes
        self.name = str(path)
        self.skipped: list[str] = []
        self.class_names: list[str] | None = []
        self._files: list[str] = []  # file names only: at 42 million, whole paths would not fit
        counts = []
        for identity in _visible(self.path, folders=True):
            if identities is not None and identity not in identities:
                continue
            images = self._images_of(identity)
            self.class_names.append(identity)
            self._files.extend(images)
            counts.append(len(images))
        self.skipped += _visible(self.path, folders=False)
        if not counts:
            raise UserError(
                f"{path}: no identity folders; expected one sub-folder a person, with its images"
            )
        self.notes = [
            f"{path / name}: skipped, not an image by its suffix" for name in self.skipped
        ]
        self.num_classes = len(counts)
        self._labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def _images_of(self, identity: str) -> list[str]:
        folder = self.path / identity
        nested = _visible(folder, folders=True)
        if nested:
            raise UserError(f"{folder / nested[0]}: a folder inside an identity folder")
        names = _visible(folder, folders=False)
        images = [name for name in names if name.lower().endswith(self._suffixes)]
        self.skipped += [f"{identity}/{name}" for name in names if name not in set(images)]
        if not images:
            raise UserError(
                f"{folder}: an identity folder without an image ({', '.join(self._suffixes)})"
            )
        return images

    def __len__(self) -> int:
        return len(self._files)

    def item_name(self, index: int) -> str:
        """The item's path relative to the source, without reading the file."""
        assert self.class_names is not None
        return f"{self.class_names[self._labels[index]]}/{self._files[index]}"

    def __getitem__(self, index: int) -> Item:
        name = self.item_name(index)
        return Item(read_image_file(self.path / name), int(self._labels[index]), name)


def read_image_file(path: Path) -> bytes:
    """The bytes of an image file; UserError when it cannot be read or is over 256 MiB."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError(f"{path}: {size} bytes; an image file has at most {MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e


def _visible(folder: Path, *, folders: bool) -> list[str]:
    """The names in `folder` that do not begin with a dot: its folders, or its files; sorted."""
    try:
        with os.scandir(folder) as entries:
            found = [
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir() == folders
            ]
    except OSError as e:
        raise UserError(f"{folder}: cannot be listed ({e.strerror})") from e
    return sorted(found, key=natural_key)
