"""Landmarks of a source's images, from a file beside it: align's report, or a CSV.

A CSV has a line an image: its name, or its position in the source, and the x and y of five points,
0..1 over the aligned face (formats.landmarks). A heading whose first cell is one of POSITION_HEADS
says that lines are found by position, as in the lists that CVLface predicts (idx,ldmk_0,…,ldmk_9);
of any other, or without one, they are found by name.
"""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from typing_extensions import override

from uniface_jax.data.faces.align_folders import REPORT_FILE
from uniface_jax.data.faces.alignment import aligned_landmarks
from uniface_jax.data.formats.landmarks import POINTS, checked
from uniface_jax.data.sources.base import Items, Source, digest
from uniface_jax.data.sources.derived import DerivedSource
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.joined import JoinedSource
from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.text_lines import numbered_lines

POSITION_HEADS = ("idx", "index")
_Key = TypeVar("_Key", int, str)
_KEPT = "aligned by an earlier version, or not by align: align the photographs anew"


class LandmarkTable:
    """Landmarks of images by name or by position: float32 [5, 2] each.

    Raises UserError, which names file and line, for one that is no such table.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        if file.suffix.lower() == ".json":
            self._by_name, self._by_position = _of_alignment(file), None
        else:
            self._by_name, self._by_position = _of_csv(file)

    @property
    def is_by_position(self) -> bool:
        """Return True where lines are found by position, not by name."""
        return self._by_position is not None

    def of(self, position: int, name: Callable[[], str]) -> np.ndarray:
        """Return the landmarks of the image at `position`; UserError where there are none."""
        if self._by_position is not None:
            found, called = self._by_position.get(position), str(position)
        else:
            called = name()
            found = self._by_name.get(called)
        if found is None:
            why = f" ({_KEPT})" if self.file.suffix.lower() == ".json" else ""
            raise UserError(f"{self.file}: no landmarks of {called}{why}")
        return found

    def digest(self) -> str:
        """Return a fingerprint of the whole table."""
        names = [*self._by_name, *map(str, self._by_position or {})]
        keys = "\n".join(names).encode("utf-8", "surrogateescape")
        values = np.array([*self._by_name.values(), *(self._by_position or {}).values()])
        return digest(np.frombuffer(keys, np.uint8), values)


def _of_alignment(file: Path) -> dict[str, np.ndarray]:
    """Return the landmarks in the coordinates of the aligned faces, by the faces' file names."""
    report = read_json(file, f"expected the {REPORT_FILE} that align writes")
    faces = report.get("faces") if isinstance(report, dict) else None
    if not isinstance(faces, dict):
        raise UserError(f"{file}: not the report of an alignment (no faces)")
    found = {}
    for photograph, face in faces.items():
        if not isinstance(face, dict) or not isinstance(face.get("file"), str):
            raise UserError(f"{file}: faces[{photograph[:80]!r}]: expected a face's file")
        if face.get("landmarks") is None:
            continue
        where = f"{file}: faces[{photograph[:80]!r}]"
        try:
            points = np.array(face["landmarks"], np.float64).reshape(POINTS, 2)
            aligned = aligned_landmarks(points)
        except (TypeError, ValueError, np.linalg.LinAlgError) as e:
            raise UserError(f"{where}: landmarks that no face has") from e
        found[face["file"]] = checked(aligned, where)
    return found


def _of_csv(file: Path) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray] | None]:
    """Return the landmarks by name, or by position."""
    by_name: dict[str, np.ndarray] = {}
    by_position: dict[int, np.ndarray] | None = None
    for number, line in numbered_lines(file):
        if not line.strip():
            continue
        where = f"{file}: line {number}"
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
        except csv.Error as e:
            raise UserError(f"{where}: {line[:80]!r}; {e}") from e
        if not by_name and not by_position and _is_heading(cells):
            by_position = {} if cells[0].lower() in POSITION_HEADS else None
            continue
        if len(cells) != 1 + 2 * POINTS:
            raise UserError(f"{where}: {len(cells)} cells; expected a name and x, y of five points")
        points = checked(cells[1:], where)
        if by_position is None:
            _add(by_name, cells[0], points, where)
        elif cells[0].isascii() and cells[0].isdigit() and len(cells[0]) < 19:
            _add(by_position, int(cells[0]), points, where)
        else:
            raise UserError(f"{where}: {cells[0][:80]!r}; expected an image's position, from 0 on")
    if not by_name and not by_position:
        raise UserError(f"{file}: no landmarks; expected lines of a name and x, y of five points")
    return by_name, by_position


def _add(found: dict[_Key, np.ndarray], key: _Key, points: np.ndarray, where: str) -> None:
    """Add an image's landmarks; UserError where the table has others of it already."""
    if not np.array_equal(found.setdefault(key, points), points):
        raise UserError(f"{where}: {str(key)[:80]!r} has other landmarks in a line before")


def _is_heading(cells: list[str]) -> bool:
    """Return True where the second cell is no number."""
    try:
        float(cells[1])
    except (IndexError, ValueError):
        return True
    return False


class LandmarkedSource(DerivedSource):
    r"""A source with the landmarks of its images from a table.

    Example:
        >>> import tempfile
        >>> from uniface_jax.data.sources.synthetic import SyntheticSource
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "points.csv"
        ...     _ = file.write_text("idx,x,y\n0,.3,.4,.7,.4,.5,.6,.4,.8,.6,.8\n")
        ...     source = LandmarkedSource(SyntheticSource(1, 1), LandmarkTable(file))
        >>> source.landmarks(np.array([0]))[0, 2]
        array([0.5, 0.6], dtype=float32)
    """

    def __init__(self, source: Source, table: LandmarkTable) -> None:
        super().__init__(source)
        self.table, self.has_landmarks = table, True
        self.reopens_quickly = False  # a table has a line an image

    @override
    def landmarks(self, indices: np.ndarray) -> np.ndarray:
        found = [self.table.of(i, partial(self.item_name, i)) for i in indices.tolist()]
        return np.array(found, np.float32).reshape(-1, POINTS, 2)

    @override
    def part(self, indices: np.ndarray) -> Items:
        return self.source.part(indices)

    @override
    def fingerprint(self) -> str:
        both = f"{self.source.fingerprint()} {self.table.digest()}"
        return digest(np.frombuffer(both.encode(), np.uint8))


def with_landmarks(source: Source) -> Source:
    """Return `source` with landmarks: its own, or those of align's report in its folder.

    Raises UserError, which says the ways out, where there are none.
    """
    if source.has_landmarks:
        return source
    if isinstance(source, JoinedSource):
        return source.map_sources(with_landmarks)
    if isinstance(source, FolderSource) and (source.path / REPORT_FILE).is_file():
        return LandmarkedSource(source, LandmarkTable(source.path / REPORT_FILE))
    source.landmarks(np.zeros(0, np.int64))  # which says so
    raise AssertionError(f"{source.name}: landmarks without has_landmarks")
