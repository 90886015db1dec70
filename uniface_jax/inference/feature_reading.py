"""Tables of features from wherever they come: those that embed writes, and others of their form."""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uniface_jax.data.formats.tables import TableFile
from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import parse_json, read_json
from uniface_jax.files.reading import open_regular
from uniface_jax.inference.feature_files import COLUMNS, ENDINGS, QUALITY, RECORD_KEY, names_of
from uniface_jax.inference.feature_rows import FeatureRows

_BLOCK = 1 << 12  # rows
_MAX_LINE_BYTES = 1 << 20
_MAX_WIDTH = 1 << 16
# Rows in Parquet, packed: no features become smaller than this share of their bytes.
_MAX_EXPANSION, _MIN_BYTES = 100, 1 << 26
_TYPES = ("<f2", "<f4", "<f8")
_NO_BOX = ("box_x", "box_y", "box_width", "box_height")


@dataclass(frozen=True)
class FeatureTable:
    """A table that is open for reading.

    count, width: N and D. record: what embed has written of it, {} where it says nothing. blocks:
    gives the rows, a block at a time, from the first on, as often as it is called.
    """

    path: Path
    count: int
    width: int
    record: Mapping[str, Any]
    blocks: Callable[[], Iterator[FeatureRows]]

    @property
    def model(self) -> dict[str, str] | None:
        """Return name, sha256 and description of the model, and whether it aligned; None unknown.

        `align` is "yes" or "no".
        """
        found = self.record.get("model")
        if not isinstance(found, dict) or not all(
            isinstance(found.get(key), str) for key in ("name", "sha256", "description")
        ):
            return None
        faces = self.record.get("faces")
        aligned = isinstance(faces, dict) and faces.get("align") is True
        kept = {key: found[key] for key in ("name", "sha256", "description")}
        return {**kept, "align": "yes" if aligned else "no"}

    @property
    def source(self) -> str:
        """Return what embed has read, "" where it is not known."""
        data = self.record.get("data")
        name = data.get("name") if isinstance(data, dict) else None
        return name if isinstance(name, str) else ""


def is_table(path: str | Path) -> bool:
    """Return True for a name that a table of features may have, and a photograph has not."""
    return Path(path).suffix in ENDINGS


def open_features(path: str | Path) -> FeatureTable:
    """Open a table of features by its ending: .parquet, .npy or .csv.

    A .npy may come alone: its rows are then named by their numbers.

    Raises:
        UserError: it is missing, damaged, or of another form; the message names the file. Rows may
            raise it later.
    """
    path = Path(path)
    readers = {".parquet": _open_parquet, ".npy": _open_npy, ".csv": _open_csv}
    if path.suffix not in readers:
        raise UserError(f"{path}: expected features in a file that ends in {', '.join(ENDINGS)}")
    try:
        table = readers[path.suffix](path)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    if not table.count or not 1 <= table.width <= _MAX_WIDTH:
        raise UserError(f"{path}: {table.count} features of {table.width} numbers")
    return table


def _record_beside(path: Path) -> dict[str, Any]:
    """Return the record in FILE.json; {} where there is none."""
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        return {}
    found = read_json(beside, "embed writes it")
    record = found.get("record") if isinstance(found, dict) else None
    return record if isinstance(record, dict) else {}


def _open_parquet(path: Path) -> FeatureTable:
    with TableFile(path) as file:
        schema, count = file.schema, file.count
        if "feature" not in schema.names:
            raise UserError(f"{path}: no column `feature`, only {', '.join(schema.names[:9])}")
        kind = schema.field("feature").type
        width = getattr(kind, "list_size", -1)
        text = (schema.metadata or {}).get(RECORD_KEY)
    if width < 1:
        raise UserError(f"{path}: `feature` is {str(kind)[:60]}; expected lists of one fixed size")
    if count * width * 4 > _MIN_BYTES + _MAX_EXPANSION * path.stat().st_size:
        raise UserError(f"{path}: {count} features of {width} numbers in too few bytes")
    try:
        record = parse_json(text) if text else _record_beside(path)
    except ValueError as e:
        raise UserError(f"{path}: its record is no JSON") from e
    columns = [name for name in (*COLUMNS, QUALITY, "feature") if name in schema.names]
    return FeatureTable(
        path, count, width, record if isinstance(record, dict) else {},
        lambda: _parquet_blocks(path, columns, width),
    )  # fmt: skip


def _parquet_blocks(path: Path, columns: list[str], width: int) -> Iterator[FeatureRows]:
    start = 0
    with TableFile(path) as file:
        for batch in file.rows(columns):
            feature = batch.column("feature")
            if feature.null_count or feature.flatten().null_count:
                raise UserError(f"{path}: row {start} or one after it has no whole feature")
            values = np.asarray(feature.flatten().to_numpy(zero_copy_only=False), np.float32)
            texts = {
                name: batch.column(name).to_pylist()
                for name in columns
                if name not in ("feature", "norm")
            }
            yield _rows(texts, values.reshape(-1, width), start)
            start += len(values) // width


def _open_npy(path: Path) -> FeatureTable:
    with open_regular(path) as file:
        (count, width), dtype, offset = _npy_header(path, file)
    names = names_of(path)

    def blocks() -> Iterator[FeatureRows]:
        texts = _csv_rows(names) if names.is_file() else None
        with open_regular(path) as file:
            file.seek(offset)
            for start in range(0, count, _BLOCK):
                size = min(_BLOCK, count - start)
                content = file.read(size * width * dtype.itemsize)
                if len(content) < size * width * dtype.itemsize:
                    raise UserError(f"{path}: the file was cut short while it was read")
                features = np.frombuffer(content, dtype).reshape(size, width).astype(np.float32)
                yield _rows(_next(texts, size, names), features, start)

    return FeatureTable(path, count, width, _record_beside(path), blocks)


def _npy_header(path: Path, file: BinaryIO) -> tuple[tuple[int, int], np.dtype, int]:
    """Return the shape, the type and where the numbers begin; UserError for other arrays."""
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise UserError(f"{path}: of npy's version {version}; expected 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError as e:
        raise UserError(f"{path}: not an array in npy form") from e
    if len(shape) != 2 or fortran or dtype.str not in _TYPES:
        raise UserError(
            f"{path}: {str(dtype)[:40]} {list(shape)}; expected float32 [N, D], a row a feature"
        )
    size = os.fstat(file.fileno()).st_size - file.tell()
    if size != shape[0] * shape[1] * dtype.itemsize:
        raise UserError(f"{path}: {size} bytes of numbers for an array of {list(shape)}")
    return (shape[0], shape[1]), dtype, file.tell()


def _open_csv(path: Path) -> FeatureTable:
    width = count = 0
    for row in _csv_rows(path):
        width = width or sum(name[:1] == "f" and name[1:].isdigit() for name in row)
        count += 1

    def blocks() -> Iterator[FeatureRows]:
        rows, columns = _csv_rows(path), [f"f{i}" for i in range(width)]
        for start in range(0, count, _BLOCK):
            texts = _next(rows, min(_BLOCK, count - start), path)
            try:
                features = np.array([texts[name] for name in columns], np.float32).T
            except (ValueError, KeyError) as e:
                raise UserError(
                    f"{path}: a row after {start} has other columns or no numbers in f0…"
                ) from e
            yield _rows(texts, np.ascontiguousarray(features), start)

    return FeatureTable(path, count, width, _record_beside(path), blocks)


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV by the names of its first line; memory is that of a line."""
    with open_regular(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")

        def lines() -> Iterator[str]:
            while line := text.readline(_MAX_LINE_BYTES):
                if len(line) == _MAX_LINE_BYTES:
                    raise UserError(f"{path}: a line of {_MAX_LINE_BYTES} letters or more")
                yield line

        try:
            for row in csv.DictReader(lines(), restkey="", restval=""):
                if "" in row:
                    raise UserError(f"{path}: a row of more columns than the first line")
                yield row
        except csv.Error as e:
            raise UserError(f"{path}: not a CSV ({str(e)[:80]})") from e


def _next(rows: Iterator[dict[str, str]] | None, count: int, path: Path) -> dict[str, list[str]]:
    """Return the next `count` rows of a CSV by columns; {} where there is none."""
    if rows is None:
        return {}
    columns: dict[str, list[str]] = {}
    for _ in range(count):
        row = next(rows, None)
        if row is None:
            raise UserError(f"{path}: fewer rows than features")
        for name, value in row.items():
            columns.setdefault(sys.intern(name), []).append(value)
    return columns


def _rows(columns: Mapping[str, list[Any]], features: np.ndarray, start: int) -> FeatureRows:
    """Return rows of which columns may be missing; `start` is the number of the first."""
    count = len(features)
    numbers = list(range(start, start + count))
    people = columns.get("person", [None] * count)
    try:
        return FeatureRows(
            [str(name) for name in columns.get("name", numbers)],
            np.array(columns.get("photograph", numbers), np.int64),
            [str(person) if person not in (None, "") else None for person in people],
            np.array(columns.get("face", [0] * count), np.int32),
            np.stack([_floats(columns.get(name), count) for name in _NO_BOX], axis=1),
            _floats(columns.get("score"), count),
            features,
            _floats(columns[QUALITY], count) if QUALITY in columns else None,
        )
    except (ValueError, TypeError, OverflowError) as e:
        raise UserError(f"row {start} or one after it: no number where one is expected") from e


def _floats(values: list[Any] | None, count: int) -> np.ndarray:
    if values is None:
        return np.full(count, np.nan, np.float32)
    return np.array([np.nan if v in (None, "") else v for v in values], np.float32)
