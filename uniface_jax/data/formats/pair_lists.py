"""Pairs of images as text: LFW's pairs.txt, CSVs and other tables of two images and a mark.

A line is NAME, NUMBER, NUMBER (one person), NAME, NUMBER, NAME, NUMBER (two), as LFW writes them,
or two image files and whether they show one person. Fields stand between tabs, commas, semicolons,
or else blanks. CALFW and CPLFW write two lines a pair: an image file, and 0 for two people.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.bin_pairs import FOLDS
from uniface_jax.data.formats.images import SUFFIXES
from uniface_jax.errors import UserError
from uniface_jax.files.text_lines import numbered_lines

EXPECTED = (
    "first,second,same: two image files, and 1 for the same person or 0 (yes/no, true/false, …); "
    "or LFW's NAME N N and NAME N NAME N"
)
MARKS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "same", "match", "genuine"), True),
    **dict.fromkeys(("0", "-1", "false", "f", "no", "n", "different", "mismatch"), False),
    "impostor": False,
}
_MARK_HEADINGS = {"same", "label", "issame", "match", "matched", "target", "flag", "sameperson"}
_SIDE = "(first|second|left|right|one|two|a|b|0|1|2)"
_PATH_HEADING = re.compile(rf"(?=.){_SIDE}?(image|img|path|file|name|face|photo|picture)*{_SIDE}?")
_NUMBER = re.compile("[0-9]{1,9}")
_SEPARATORS = ("\t", ",", ";")
_SUBFOLDERS = 100  # of the list's folder, in which images are looked for


@dataclass(frozen=True, eq=False)
class ListedPairs:
    """Pairs as a list has them.

    Attributes:
        sides: for each pair the two images, each by the paths that it may have, without suffix
            where the list gives none.
        same: bool [P].
        lines: the number of each pair's line.
        folds: contiguous parts of the pairs for cross-validation: as many as LFW's first line says,
            where that is of all pairs, else 10, or fewer where two lines make a pair and few do.
        counts: the numbers of LFW's first line, sets and same pairs in each; () where it has none.
    """

    sides: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]
    same: np.ndarray
    lines: Sequence[int]
    folds: int = FOLDS
    counts: Sequence[int] = ()


def read_pair_lines(file: Path) -> ListedPairs:
    r"""Read a list of pairs; images are not looked for.

    Empty lines and those that begin with # are left out, and so is a heading, or LFW's first line
    of one or two numbers. Of a heading's columns called first, second and same (image1, file_b,
    label, …) these are taken, whatever their order and whatever others are beside them. Pairs of
    two lines come fold by fold, as _in_folds orders them, all others in the list's order.

    Raises:
        UserError: a line is none of the forms, or there is none; the message says which columns
            were assumed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     list_file = Path(folder) / "pairs.csv"
        ...     _ = list_file.write_text("same,first,second\nYes,a/1.png,a/2.png\n")
        ...     read_pair_lines(list_file).sides
        [(('a/1.png',), ('a/2.png',))]
    """
    sides: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    same: list[bool] = []
    lines: list[int] = []
    columns: tuple[int, ...] | None = None
    counts: tuple[int, ...] = ()
    rows = _rows(file)
    for number, cells in rows:
        if not sides and columns is None:
            if len(cells) <= 2 and all(_NUMBER.fullmatch(cell) for cell in cells):
                counts = tuple(map(int, cells))
                continue
            if len(cells) == 2 and _NUMBER.fullmatch(cells[1]):
                return _in_folds(file, chain([(number, cells)], rows))
            columns = _headed(cells)
            if columns is not None or _is_heading(cells):
                continue
        found = _by_columns(cells, columns) if columns else _pair(cells)
        if found is None:
            named = f", by the heading {[c + 1 for c in columns]} of them" if columns else ""
            raise UserError(
                f"{file}: line {number}: {','.join(cells)[:80]!r}; expected {EXPECTED} "
                f"(taken for {len(cells)} columns{named})"
            )
        first, second, mark = found
        sides.append((first, second))
        same.append(mark)
        lines.append(number)
    if not sides:
        raise UserError(f"{file}: no pairs; expected lines of {EXPECTED}")
    whole = len(counts) == 2 and counts[0] > 1 and len(sides) == 2 * counts[0] * counts[1]
    folds = counts[0] if whole else FOLDS
    return ListedPairs(sides, np.array(same, bool), lines, folds, counts)


def _in_folds(file: Path, rows: Iterator[tuple[int, list[str]]]) -> ListedPairs:
    """Return the pairs of a list of two lines a pair, each of an image and 0 for two people.

    The lists have all same pairs first, so that each fold takes its share of both kinds in their
    order, as FaceX-Zoo does: 300 and 300 of 3,000 and 3,000.
    """
    halves: list[tuple[int, str, bool]] = []
    for number, cells in rows:
        if len(cells) != 2 or not cells[0] or not _NUMBER.fullmatch(cells[1]):
            raise UserError(
                f"{file}: line {number}: {' '.join(cells)[:80]!r}; expected an image file and a "
                "whole number, 0 for two people, as in the lines before (two lines a pair)"
            )
        halves.append((number, cells[0], int(cells[1]) > 0))
    if len(halves) % 2:
        number, name, _ = halves[-1]
        raise UserError(f"{file}: line {number}: {name[:80]!r} has no second line; expected two")
    pairs = list(zip(halves[::2], halves[1::2], strict=True))
    for (_, first, mark), (number, second, other) in pairs:
        if mark != other:
            raise UserError(
                f"{file}: line {number}: {second[:80]!r} is marked otherwise than {first[:80]!r} "
                "in the line before; expected 0 in both lines of a pair, or in neither"
            )
    same = np.array([mark for (_, _, mark), _ in pairs], bool)
    kinds = np.flatnonzero(same), np.flatnonzero(~same)
    folds = min(FOLDS, *map(len, kinds))
    if folds < 2:
        folds = FOLDS
    parts = zip(*(np.array_split(kind, folds) for kind in kinds), strict=True)
    order = np.concatenate([rows for both in parts for rows in both])
    sides = [((pairs[i][0][1],), (pairs[i][1][1],)) for i in order]
    return ListedPairs(sides, same[order], [pairs[i][0][0] for i in order], folds)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that is not empty and no comment."""
    separator = None
    for number, line in numbered_lines(file):
        if not line.strip() or line.startswith("#"):
            continue
        if separator is None or separator not in line:
            separator = next((mark for mark in _SEPARATORS if mark in line), None)
        if separator is None:
            yield number, line.split()
            continue
        try:
            rows = csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True)
            cells = [cell.strip() for cell in next(rows)]
        except csv.Error as e:
            raise UserError(
                f"{file}: no CSV that can be read: line {number}: {line[:80]!r} ({e})"
            ) from e
        while cells and not cells[-1]:  # spreadsheets fill rows up
            cells.pop()
        if cells:
            yield number, cells


def _mark(cell: str) -> bool | None:
    """Return the meaning of a mark, None of any other text."""
    text = re.sub(r"^([+-]?\d+)\.0*$", r"\1", cell.strip().lower())
    return MARKS.get(text)


def _headed(cells: Sequence[str]) -> tuple[int, ...] | None:
    """Return the columns of first, second and mark by their headings, None where these say not."""
    names = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in cells]
    marks = [i for i, name in enumerate(names) if name in _MARK_HEADINGS]
    paths = [i for i, name in enumerate(names) if _PATH_HEADING.fullmatch(name)]
    return (*paths, marks[0]) if len(marks) == 1 and len(paths) == 2 else None


def _is_heading(cells: Sequence[str]) -> bool:
    """Return True for a first line that names columns: no number or image in it, and no pair."""
    return len(cells) >= 3 and not any(
        _NUMBER.fullmatch(cell) or "/" in cell or cell.lower().endswith(SUFFIXES) for cell in cells
    )


def _by_columns(
    cells: Sequence[str], columns: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """Return both images and the mark, from three columns that a heading has named."""
    if len(cells) <= max(columns):
        return None
    first, second, mark = (cells[column] for column in columns)
    same = _mark(mark)
    return None if same is None or not first or not second else ((first,), (second,), same)


def _pair(cells: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """Return both images and the mark of a line, None where it is of no known form."""
    numbers = [bool(_NUMBER.fullmatch(cell)) for cell in cells]
    if numbers[1:] == [True, True]:
        return _numbered(cells[0], cells[1]), _numbered(cells[0], cells[2]), True
    if numbers[1:] == [True, False, True]:
        return _numbered(cells[0], cells[1]), _numbered(cells[2], cells[3]), False
    if len(cells) != 3:
        return None
    for columns in ((0, 1, 2), (1, 2, 0)):
        found = _by_columns(cells, columns)
        if found is not None:
            return found
    return None


def _numbered(name: str, number: str) -> tuple[str, ...]:
    """Return where a person's image of a number may lie, LFW's own name first."""
    padded = f"{int(number):04d}"
    plain = (f"{name}/{name}_{padded}", f"{name}/{number}", f"{name}/{padded}")
    return (*plain, f"{name}/{name}_{number}", f"{name}_{padded}", f"{name}_{number}")


class Finder:
    """Finds the image files in the folder `root` that lists mean; a folder is listed once.

    A name is found as it is, in another Unicode form (macOS takes letters apart), and with another
    suffix: align writes 1.png for 1.jpg, and 1.jpg.png where there is a 1.jpeg as well.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, candidates: Sequence[str]) -> str | None:
        """Return the path, relative to `root`, of the first candidate that is a file, or None.

        Raises UserError where several files differ from a candidate in the suffix alone.
        """
        for candidate in candidates:
            found = self._find(candidate)
            if found is None and "\\" in candidate:  # as Windows writes paths
                found = self._find(candidate.replace("\\", "/"))
            if found is not None:
                return found
        return None

    def _find(self, candidate: str) -> str | None:
        path, _, name = candidate.rpartition("/")
        folder = self._folder(path)
        if folder is None:
            return None
        names = self._names(folder)
        key = unicodedata.normalize("NFC", name)
        found = names.get(key) or names.get(f"{key}.png") or self._other_suffix(folder, key)
        path = f"{folder}/{found}" if folder else found or ""
        return path if found and (self.root / path).is_file() else None

    def _folder(self, path: str) -> str | None:
        """Return a folder, as it is called, below root; None where there is none."""
        if path.startswith("/"):
            return path
        folder = ""
        for part in path.split("/"):
            if part in ("", "."):
                continue
            found = part
            if part != "..":
                found = self._names(folder).get(unicodedata.normalize("NFC", part), "")
            if not found:
                return None
            folder = f"{folder}/{found}" if folder else found
        return folder

    def _names(self, folder: str) -> dict[str, str]:
        """Return the names in a folder below root, by their composed form."""
        if folder not in self._listed:
            try:
                names = [path.name for path in (self.root / folder).iterdir()]
            except (OSError, ValueError):
                names = []
            self._listed[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listed[folder]

    def _other_suffix(self, folder: str, name: str) -> str | None:
        """Return the one file that is called `name` up to the suffix of an image, or None."""
        stems = {name}
        if name.lower().endswith(SUFFIXES):
            stems = {name.rpartition(".")[0]}
        names = self._names(folder)
        found = sorted(
            names[f"{stem}{suffix}"]
            for stem in stems
            for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES))
            if f"{stem}{suffix}" in names
        )
        if len(found) > 1:
            raise UserError(
                f"{self.root / folder / name}: {' and '.join(found[:3])} differ in the suffix "
                "alone; the list must say which is meant"
            )
        return found[0] if found else None


def find_images(
    file: Path, listed: ListedPairs, roots: Sequence[Path]
) -> tuple[Path, list[tuple[str, str]]]:
    """Return the folder of a list's images, and for each pair their paths relative to it.

    The folder is the first of `roots` in which the images of the first pair are.

    Raises:
        UserError: they are in none, or others are not there; the message names line and image.
    """
    finder = next(
        (
            finder
            for finder in map(Finder, roots)
            if all(finder.find(side) for side in listed.sides[0])
        ),
        Finder(roots[0]),
    )
    found: list[tuple[str, str]] = []
    for line, sides in zip(listed.lines, listed.sides, strict=True):
        names = []
        for candidates in sides:
            name = finder.find(candidates)
            if name is None:
                looked = f"; looked in {', '.join(map(str, roots[:3]))}" if not found else ""
                raise UserError(
                    f"{file}: line {line}: {finder.root / candidates[0]}: no such image{looked}"
                )
            names.append(name)
        found.append((names[0], names[1]))
    return finder.root, found


def likely_roots(file: Path, others: Sequence[Path] = ()) -> list[Path]:
    """Return where a list's images may lie: in its folder, in `others`, or in a folder beside it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "faces").mkdir()
        ...     found = likely_roots(Path(folder) / "pairs.txt")
        ...     [str(path.relative_to(folder)) for path in found]
        ['.', 'faces']
    """
    here = file.parent
    try:
        beside = sorted(islice((p for p in here.iterdir() if p.is_dir()), _SUBFOLDERS))
    except OSError:
        beside = []
    return [here, *(path for path in others if path.is_dir()), *beside]
