"""Columns of a list of images: which are the path and the label, told by its first lines.

    PATH LABEL              LABEL PATH
    KEY LABEL … PATH        im2rec's; of several labels the first
    INDEX PATH LABEL …      insightface's; its box and landmarks are left out

Columns stand between tabs, commas or blanks. What the lines have in common decides: the files that
are there, and else the suffixes of images.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from uniface_jax.data.formats.images import SUFFIXES

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SEPARATORS = {"\t": "tabs", " ": "blanks", ",": "commas"}
_GEOMETRY = (4, 10, 14)  # numbers of a box, of five landmarks, of both
_WORDS = {
    "path label": "path, label",
    "label path": "label, path",
    "im2rec": "key, label, path",
    "insightface": "index, path, label",
}


@dataclass(frozen=True)
class Columns:
    """Form of a list's lines.

    Attributes:
        kind: one of `path label`, `label path`, `im2rec` and `insightface`.
        separator: a tab, a blank (any number of them) or a comma.
        count: of the columns.
    """

    kind: str
    separator: str
    count: int

    @property
    def words(self) -> str:
        """Return the form in words, for errors and notes."""
        more = f" and {self._surplus} more" if self._surplus else ""
        return f"{_WORDS[self.kind]}{more}, separated by {_SEPARATORS[self.separator]}"

    @property
    def extra(self) -> str:
        """Return what the columns beyond path and label are: "" or landmarks or labels."""
        if not self._surplus:
            return ""
        geometry = self.kind == "insightface" and self._surplus in _GEOMETRY
        return "landmarks" if geometry else "labels"

    @property
    def _surplus(self) -> int:
        return self.count - _WORDS[self.kind].count(",") - 1

    def split(self, line: str) -> tuple[str, str] | None:
        """Return the path and the label of a line; None where it is of another form."""
        cells = self._cells(line)
        if cells is None or len(cells) != self.count or not all(cells):
            return None
        if self.kind == "path label":
            return cells[0], cells[1]
        if self.kind == "label path":
            return cells[1], cells[0]
        if self.kind == "im2rec":
            numbers = cells[1:-1] if self.count > 3 or self.separator == " " else ()
            path, label = cells[-1], cells[1]
        else:
            numbers = (cells[0], *cells[3:], *(cells[2:3] if self.count > 3 else ()))
            path, label = cells[1], cells[2]
        return (path, label) if all(map(_NUMBER.fullmatch, numbers)) else None

    def _cells(self, line: str) -> list[str] | None:
        """Return the columns of a line; a path between blanks may hold blanks itself."""
        if self.separator == ",":
            return _of_commas(line)
        if self.separator == "\t":
            return [cell.strip() for cell in line.split("\t")]
        if self.kind == "path label":
            return line.rsplit(None, 1)
        if self.kind != "insightface":
            return line.split(None, self.count - 1)
        first, *rest = line.split(None, 1)
        return [first, *rest[0].rsplit(None, self.count - 2)] if rest else None


def find_columns(lines: Sequence[str], exists: Callable[[str], bool]) -> tuple[Columns | None, int]:
    r"""Return the columns of a list, and how many of its first lines are a heading: 0 or 1.

    Args:
        lines: the first ones that are not empty, at least one.
        exists: tells whether a path of the list is a file.

    Returns:
        The columns, None where the lines have none of the forms.

    Example:
        >>> find_columns(["1\ta/0.png\t7"], lambda path: False)[0].words
        'index, path, label, separated by tabs'
    """
    first = _ranked(lines[0], exists)
    if len(lines) > 1 and (not first or first[0][0] == _UNKNOWN):
        second = _ranked(lines[1], exists)
        if second and second[0][0] != _UNKNOWN:  # the first line has no image, the second has
            return second[0][1], 1
    return (first[0][1], 0) if first else (None, 0)


_THERE, _SUFFIX, _UNKNOWN = range(3)


def _ranked(line: str, exists: Callable[[str], bool]) -> list[tuple[int, Columns]]:
    """Return the forms that a line may have, the likeliest first, with what speaks for each."""
    found = []
    for columns in forms(line):
        parts = columns.split(line)
        if parts is not None:
            image = parts[0].lower().endswith(SUFFIXES)
            rank = _THERE if exists(parts[0]) else _SUFFIX if image else _UNKNOWN
            if rank != _UNKNOWN or not columns.extra:
                found.append((rank, columns))
    return sorted(found, key=lambda pair: pair[0])  # stable: else the order of forms


def forms(line: str) -> Iterator[Columns]:
    """Yield every form that a line's number of columns allows."""
    if "\t" in line:
        count = line.count("\t") + 1
        yield from _of_count("\t", count)
        return
    cells = line.split()
    if len(cells) >= 2:
        leading = _leading(cells)
        if leading >= 2 and len(cells) > leading:
            yield Columns("im2rec", " ", leading + 1)
        trailing = _leading(cells[::-1])
        for count in range(3, min(trailing, len(cells) - 2) + 3):
            if _INTEGER.fullmatch(cells[0]) and (count == 3 or count - 3 in _GEOMETRY):
                yield Columns("insightface", " ", count)
        yield Columns("path label", " ", 2)
        yield Columns("label path", " ", 2)
    if "," in line:
        yield from _of_count(",", len(_of_commas(line)))


def _of_count(separator: str, count: int) -> Iterator[Columns]:
    if count == 2:
        yield Columns("path label", separator, 2)
        yield Columns("label path", separator, 2)
    elif count >= 3:
        yield Columns("im2rec", separator, count)
        yield Columns("insightface", separator, count)


def _of_commas(line: str) -> list[str]:
    """Return the columns of a line of a CSV; one of other quotes is split at every comma."""
    try:
        cells = next(csv.reader([line], skipinitialspace=True, strict=True))
    except csv.Error:
        cells = line.split(",")
    return [cell.strip() for cell in cells]


def _leading(cells: Sequence[str]) -> int:
    """Return how many numbers stand first."""
    count = 0
    while count < len(cells) and _NUMBER.fullmatch(cells[count]):
        count += 1
    return count
