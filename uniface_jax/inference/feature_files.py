r"""Tables of features: Parquet, .npy with a CSV of names, or one CSV, as the file's ending says.

Whatever the format, the same rows give the same bytes. Names are text: bytes of a file name that
are no UTF-8 are written as \xeb.
"""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.errors import UserError, extra
from uniface_jax.files.atomic import replacing
from uniface_jax.inference.feature_rows import FeatureRows

ENDINGS = (".parquet", ".npy", ".csv")
RECORD_KEY = b"uniface_jax.features"  # in a Parquet file's metadata: what the rows are of
COLUMNS = (
    "name", "photograph", "person", "face", "box_x", "box_y", "box_width", "box_height", "score",
    "norm",
)  # fmt: skip
QUALITY = "quality"  # a column behind these, of a model with a quality head
Blocks = Callable[[], Iterator[FeatureRows]]


def check_ending(path: Path) -> None:
    """Raise UserError unless a table of this name can be written here."""
    if path.suffix not in ENDINGS:
        raise UserError(f"--output={path}: expected a name that ends in {', '.join(ENDINGS)}")
    if path.suffix == ".parquet":
        with extra("containers"):
            import pyarrow.parquet  # noqa: F401


def files_of(path: Path) -> list[Path]:
    """Return the files that a table consists of."""
    return [path, names_of(path)] if path.suffix == ".npy" else [path]


def names_of(path: Path) -> Path:
    """Return the CSV beside a .npy."""
    return path.with_suffix(".names.csv")


def write_features(
    path: Path, blocks: Blocks, shape: tuple[int, int], record: Mapping[str, Any]
) -> None:
    """Write a table, each of its files atomically.

    Args:
        path: its name, which ends in one of ENDINGS.
        blocks: gives the rows, a block at a time, and may be called twice.
        shape: N and D.
        record: what the rows are of, for the metadata of a Parquet file; where it has a QUALITY,
            all rows do.
    """
    names = (*COLUMNS, QUALITY) if QUALITY in record else COLUMNS
    if path.suffix == ".parquet":
        _write_parquet(path, blocks, (names, shape[1]), record)
    elif path.suffix == ".npy":
        _write_csv(names_of(path), blocks, (names, 0))
        _write_npy(path, blocks, shape)
    else:
        _write_csv(path, blocks, (names, shape[1]))


def write_pairs(path: Path, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV of texts, atomically."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows([_text(value) for value in row] for row in rows)


def _text(name: str) -> str:
    r"""Return a name that can be encoded.

    >>> _text("No\udcebl.png")
    'No\\xebl.png'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write_parquet(
    path: Path, blocks: Blocks, form: tuple[tuple[str, ...], int], record: Mapping[str, Any]
) -> None:
    """Write the columns of these names, and a feature of so many numbers behind them."""
    with extra("containers"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    names, width = form
    real, vector = pa.float32(), pa.list_(pa.float32(), width)
    kinds = {
        "name": pa.string(), "photograph": pa.int64(), "person": pa.string(), "face": pa.int32(),
        **dict.fromkeys(names[4:], real), "feature": vector,
    }  # fmt: skip
    schema = pa.schema(
        list(kinds.items()), metadata={RECORD_KEY: json.dumps(record, sort_keys=True)}
    )
    # Features do not become smaller by compression, or by a dictionary of them.
    options = {"compression": "zstd", "use_dictionary": ["person"]}
    with replacing(path) as temporary, contextlib.ExitStack() as stack:
        writer = stack.enter_context(pq.ParquetWriter(temporary, schema, **options))
        for rows in blocks():
            columns = _columns(rows)
            arrays = [pa.array(columns[name], kinds[name], from_pandas=True) for name in names]
            flat = pa.array(np.ascontiguousarray(rows.features).reshape(-1), pa.float32())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, width))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _columns(rows: FeatureRows) -> dict[str, Any]:
    """Return the columns but the feature; nan stands for what is not known."""
    names, people = rows.names, rows.people
    return {
        "name": [_text(name) for name in names],
        "photograph": rows.photographs,
        "person": [None if person is None else _text(person) for person in people],
        "face": rows.faces,
        **{name: rows.boxes[:, i] for i, name in enumerate(COLUMNS[4:8])},
        "score": rows.scores,
        "norm": rows.norms,
        **({} if rows.qualities is None else {QUALITY: rows.qualities}),
    }


def _write_npy(path: Path, blocks: Blocks, shape: tuple[int, int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows in blocks():
            file.write(np.ascontiguousarray(rows.features, "<f4").data)


def _write_csv(path: Path, blocks: Blocks, form: tuple[tuple[str, ...], int]) -> None:
    """Write the columns of these names, and so many numbers of each feature behind them."""
    names, width = form
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *(f"f{i}" for i in range(width))])
        for rows in blocks():
            columns = [list(map(_cell, values)) for values in _columns(rows).values()]
            for number, known in enumerate(zip(*columns, strict=True)):
                writer.writerow([*known, *map(str, rows.features[number, :width])])


def _cell(value: Any) -> str:
    """Return a value as a CSV holds it: floats by the fewest digits that give them again.

    >>> _cell(np.float32(0.1)), _cell(np.float32("nan")), _cell(None)
    ('0.1', '', '')
    """
    if value is None or (isinstance(value, np.floating) and np.isnan(value)):
        return ""
    return str(value)
