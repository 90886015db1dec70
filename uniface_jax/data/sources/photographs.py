"""Photographs to be embedded: any source, and those without people: one folder, a list of paths."""

from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.images import SUFFIXES
from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.data.sources.folders import (
    SYSTEM_NAMES,
    FilePart,
    file_sizes,
    read_image_file,
    visible,
)
from uniface_jax.data.sources.names import Names
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.errors import UserError
from uniface_jax.files.paths import expanded, there
from uniface_jax.files.text_lines import numbered_lines

# In a folder with such files they are the data set, and not the picture that lies beside them.
_CONTAINERS = {".rec", ".tar", ".gz", ".parquet", ".arrow", ".mdb"}


class NamedFiles(Source):
    """Files `folder`/name of nobody in particular; all have the label 0, and class_names is None.

    name: of the source, in messages.
    """

    def __init__(self, name: str, folder: Path, names: Names):
        self.name, self._folder, self._names = name, folder, names
        self.num_classes = 1

    @override
    def __len__(self) -> int:
        return len(self._names)

    @override
    def item_name(self, index: int) -> str:
        return self._names[index]

    @override
    def __getitem__(self, index: int) -> Item:
        name = self._names[index]
        return Item(read_image_file(self._folder / name), 0, name)

    @override
    def part(self, indices: np.ndarray) -> FilePart:
        names = [self._names[i] for i in indices.tolist()]
        return FilePart(self._folder, names, np.zeros(len(names), np.int32))

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return file_sizes(self._folder, map(self.item_name, indices.tolist()))

    @override
    def fingerprint(self) -> str:
        return digest(*self._names.arrays())


class FlatFolder(NamedFiles):
    """Photographs that lie in one folder, without people.

    skipped: the files that are no images by their suffix; faults: none, as a FolderSource has them.
    """

    def __init__(self, path: Path):
        self.path, self.faults = path, list[str]()
        names = visible(path, folders=False)
        images = [name for name in names if name.lower().endswith(SUFFIXES)]
        known = {*images, *SYSTEM_NAMES}
        self.skipped = [name for name in names if name not in known]
        super().__init__(str(path), path, Names(images))


def is_flat(path: Path) -> bool:
    """Return True for a folder with images in it and no folders."""
    return (
        path.is_dir()
        and not set(visible(path, folders=True)) - SYSTEM_NAMES
        and any(name.lower().endswith(SUFFIXES) for name in visible(path, folders=False))
    )


def open_images(given: str, options: SourceOptions | None = None) -> Source:
    r"""Open images that need not be of known people, in whatever they lie.

    Args:
        given: what open_source takes; a folder of photographs without folders in it; or a text
            file with a path a line, relative to its folder or absolute.
        options: as open_source.

    Raises:
        UserError: as open_source; and a path of a list that is empty.

    Example:
        >>> import tempfile
        >>> from uniface_jax.data.formats.images import encode_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     black = encode_png(np.zeros((112, 112, 3), np.uint8))
        ...     _ = (Path(folder) / "party.png").write_bytes(black)
        ...     source = open_images(folder)
        ...     _ = (Path(folder) / "list.txt").write_text("party.png\n")
        ...     source[0].name, len(open_images(f"{folder}/list.txt"))
        ('party.png', 1)
    """
    path = Path(expanded(given))
    if is_flat(path) and not set(map(_suffix, visible(path, folders=False))) & _CONTAINERS:
        return FlatFolder(path)
    if path.is_file() and _lists_paths(path):
        return NamedFiles(str(path), path.parent, _listed(path))
    return open_source(given, options)


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _lists_paths(path: Path) -> bool:
    """Return True where the first line of a text file, as a whole, is the path of a file."""
    try:
        line = next((line for _, line in numbered_lines(path) if _counts(line)), "")
        return bool(line) and there(path.parent / line).is_file()
    except (UserError, OSError, ValueError):
        return False


def _listed(path: Path) -> Names:
    return Names(line for _, line in numbered_lines(path) if _counts(line))


def _counts(line: str) -> bool:
    """Return False for an empty line and a comment."""
    return bool(line.strip()) and not line.startswith("#")
