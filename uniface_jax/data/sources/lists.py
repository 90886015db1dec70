"""Text lists of images as a source: `path label` a line, or im2rec's `key <tab> label <tab> path`.

Paths are relative to the list's folder, or absolute. Labels are whole numbers or names; separated
by a tab, or else by the last blank of the line. Lines that are empty or begin with # are left out.
"""

from array import array
from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.data.sources.folders import FilePart, file_sizes, read_image_file
from uniface_jax.data.sources.labels import classes_of
from uniface_jax.data.sources.names import Names
from uniface_jax.errors import UserError

_SNIFFED_BYTES = 4096
_MAX_LINE_BYTES = 8192
_MAX_PATH_LENGTH = 1024  # far more than data sets have; it is shown in messages


def looks_like_list(path: Path) -> bool:
    """Return True where the file begins with a line of a list: text of two or three columns."""
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if b"\0" in head:
        return False
    for line in head.decode("utf-8", "replace").splitlines():
        if line.strip() and not line.startswith("#"):
            return len(line.split("\t")) in (2, 3) or len(line.split()) >= 2
    return False


class ListSource(Source):
    r"""Images that a list names, in its order; item names are the paths as listed.

    Whole-number labels that are not 0..C-1 are mapped by ascending value, names by natural order;
    class_names then holds the labels as listed. Images are read only when asked for.

    Raises:
        UserError: a line has no two columns or no label, the text is not UTF-8, or no image is
            listed; the message names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "list.txt"
        ...     _ = file.write_text("a/1.jpg ann\nb/1.jpg bob\n")
        ...     source = ListSource(file)
        >>> len(source), source.class_names
        (2, ['ann', 'bob'])
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.name = str(path)
        self.notes: list[str] = []
        self._paths = Names()
        listed = array("i")  # each line's label, by the order in which labels came up
        codes: dict[str, int] = {}
        number = 0
        try:
            with self.path.open("rb") as file:
                while encoded := file.readline(_MAX_LINE_BYTES):
                    number += 1
                    if len(encoded) == _MAX_LINE_BYTES:
                        raise UserError(
                            f"{path}: line {number}: longer than {_MAX_LINE_BYTES} bytes"
                        )
                    line = encoded.decode("utf-8")
                    if line.strip() and not line.startswith("#"):
                        image, label = self._columns(line.rstrip("\r\n"), number)
                        self._paths.append(image)
                        listed.append(codes.setdefault(label, len(codes)))
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e
        except UnicodeDecodeError as e:
            raise UserError(f"{path}: line {number}: not UTF-8 text") from e
        if not listed:
            raise UserError(f"{path}: an empty list; expected lines of a path and a label")
        self._labels, self.class_names, self.num_classes = classes_of(
            list(codes), np.frombuffer(listed, np.int32)
        )

    def _columns(self, line: str, number: int) -> tuple[str, str]:
        """Return the path and the label of a line."""
        columns = line.split("\t") if "\t" in line else line.rsplit(None, 1)
        if len(columns) == 3:  # im2rec: key, label, path
            columns = [columns[2], columns[1]]
        image, label = (columns[0].strip(), columns[1].strip()) if len(columns) == 2 else ("", "")
        if not image or not label or "\0" in image or len(image) > _MAX_PATH_LENGTH:
            raise UserError(
                f"{self.path}: line {number}: {line[:80]!r}, expected a path and a label, or "
                "key, label and path separated by tabs"
            )
        return image, label

    @override
    def __len__(self) -> int:
        return len(self._paths)

    @override
    def __getitem__(self, index: int) -> Item:
        name = self._paths[index]
        return Item(read_image_file(self.path.parent / name), int(self._labels[index]), name)

    @override
    def part(self, indices: np.ndarray) -> FilePart:
        names = [self._paths[i] for i in indices.tolist()]
        return FilePart(self.path.parent, names, self._labels[indices])

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return file_sizes(self.path.parent, (self._paths[i] for i in indices.tolist()))

    @override
    def fingerprint(self) -> str:
        return digest(*self._paths.arrays(), self._labels)
