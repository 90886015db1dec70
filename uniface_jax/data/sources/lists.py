"""Text lists of images as a source: lines of a path and a label, im2rec's or insightface's .lst.

Paths are relative to the list's folder, or absolute. Labels are whole numbers or names. A heading
and lines that are empty or begin with # are left out; list_columns.py tells the columns.
"""

from array import array
from bisect import bisect_right
from itertools import islice
from pathlib import Path

import numpy as np
from typing_extensions import override

from uniface_jax.data.sources.base import Item, Source, digest
from uniface_jax.data.sources.folders import file_sizes, read_image_file
from uniface_jax.data.sources.labels import classes_of
from uniface_jax.data.sources.list_columns import Columns, find_columns, forms
from uniface_jax.data.sources.names import Names
from uniface_jax.errors import UserError
from uniface_jax.files.paths import there
from uniface_jax.files.text_lines import numbered_lines

_MAX_PATH_LENGTH = 1024  # far more than data sets have; it is shown in messages
_EXPECTED = (
    "a path and a label, or key, label and path as im2rec has them, or index, path and label as "
    "insightface has them, separated by tabs, blanks or commas"
)
_NOTES = {
    "landmarks": (
        "box and landmarks are left out, images are taken as they are; python -m "
        "uniface_jax.align moves faces to the template"
    ),
    "labels": "of several labels in a line the first is the class",
}


def looks_like_list(path: Path) -> bool:
    """Return True where the file begins with a line of a list: text of two columns or more."""
    try:
        line = next((line for _, line in numbered_lines(path) if _counts(line)), "")
    except UserError:
        return False
    return len(line.split("\t")) >= 2 or len(line.split()) >= 2 or "," in line


def _counts(line: str) -> bool:
    """Return False for an empty line and a comment."""
    return bool(line.strip()) and not line.startswith("#")


class ListSource(Source):
    r"""Images that a list names, in its order; item names are the paths as listed.

    Whole-number labels that are not 0..C-1 are mapped by ascending value, names by natural order;
    class_names then holds the labels as listed. Images are read only when asked for.

    Raises:
        UserError: a line is of another form than the first, or no image is listed; the message
            names file and line, and the columns that were assumed.

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
        # Where line numbers leave the images' own: from which image on, and by how much.
        self._gaps, self._shifts = array("q"), array("q")
        begin = list(islice((row for row in numbered_lines(self.path) if _counts(row[1])), 2))
        if not begin:
            raise UserError(f"{path}: an empty list; expected lines of a path and a label")
        self._columns, headings = find_columns([line for _, line in begin], self._exists)
        if headings:
            self.notes.append(f"{path}: line {begin[0][0]}: {begin[0][1][:80]!r} is a heading")
        if self._columns is not None and self._columns.extra:
            self.notes.append(f"{path}: {self._columns.words}: {_NOTES[self._columns.extra]}")
        listed = array("i")  # each line's label, by the order in which labels came up
        codes: dict[str, int] = {}
        for number, line in numbered_lines(self.path):
            if not _counts(line) or headings:
                headings -= _counts(line)
                continue
            image, label = self._parsed(line, number)
            shift = number - len(self._paths)
            if not self._shifts or self._shifts[-1] != shift:
                self._gaps.append(len(self._paths))
                self._shifts.append(shift)
            self._paths.append(image)
            listed.append(codes.setdefault(label, len(codes)))
        if not listed:
            raise UserError(f"{path}: an empty list; expected lines of a path and a label")
        self._labels, self.class_names, self.num_classes = classes_of(
            list(codes), np.frombuffer(listed, np.int32)
        )

    def _exists(self, name: str) -> bool:
        """Return True where a path of the list is a file."""
        try:
            return there(self.path.parent / name).is_file()
        except (OSError, ValueError):
            return False

    def _parsed(self, line: str, number: int) -> tuple[str, str]:
        """Return the path and the label of a line."""
        columns = self._columns
        found = columns.split(line) if columns else None
        if columns and found is None:  # of another separator than the first one, but as many
            others = (other for other in forms(line) if other.kind == columns.kind)
            found = next(filter(None, (other.split(line) for other in others)), None)
        if found is None or len(found[0]) > _MAX_PATH_LENGTH:
            taken = f"; the first line has {columns.words}" if columns else ""
            raise UserError(
                f"{self.path}: line {number}: {line[:80]!r}, expected {_EXPECTED}{taken}"
            )
        return found

    @override
    def __len__(self) -> int:
        return len(self._paths)

    @override
    def __getitem__(self, index: int) -> Item:
        return self.part(np.array([index]))[0]

    @override
    def classes(self, indices: np.ndarray) -> np.ndarray:
        return np.take(self._labels, indices)

    @override
    def part(self, indices: np.ndarray) -> "ListPart":
        places = indices.tolist()
        lines = [i + self._shifts[bisect_right(self._gaps, i) - 1] for i in places]
        assert self._columns is not None  # of a list with a line
        names = [self._paths[i] for i in places]
        return ListPart(self.path, self._columns, names, lines, self._labels[indices])

    @override
    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return file_sizes(self.path.parent, (self._paths[i] for i in indices.tolist()))

    @override
    def fingerprint(self) -> str:
        return digest(*self._paths.arrays(), self._labels)


class ListPart:
    """Images `names`[i] of a list, of the classes `labels`: int32 [K]; errors name their lines."""

    def __init__(
        self, path: Path, columns: Columns, names: list[str], lines: list[int], labels: np.ndarray
    ):
        self._path, self._columns = path, columns
        self._names, self._lines, self._labels = names, lines, labels

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Item:
        name = self._names[index]
        try:
            image = read_image_file(self._path.parent / name)
        except UserError as e:
            raise UserError(
                f"{self._path}: line {self._lines[index]}, taken for {self._columns.words}: {e}"
            ) from e
        return Item(image, int(self._labels[index]), name)
