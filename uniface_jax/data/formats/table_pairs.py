"""Verification sets in tables: Hugging Face's Parquet and Arrow.

A row is a pair (`image1`, `image2`, and `label`, 1 for the same person), or an image of one
(`image`, `is_same`, and `index`, by which rows 2i and 2i + 1 are pair i).
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.formats.bin_pairs import PairSet, pair_set
from uniface_jax.data.formats.tables import TableFile, cells_of
from uniface_jax.errors import UserError

TWO_COLUMNS = ("image1", "image2", "label")
ONE_COLUMN = ("image", "is_same")
_INDEX = "index"


def holds_pairs(table: Path) -> bool:
    """Return True for a table of pairs by its columns; UserError where it cannot be read."""
    with TableFile(table) as opened:
        columns = set(opened.columns)
    return columns >= set(TWO_COLUMNS) or columns >= set(ONE_COLUMN)


def read_table_pairs(name: str, tables: Sequence[Path]) -> PairSet:
    """Read the pairs of tables, of which each has the rows behind those before it.

    Args:
        name: of the set.
        tables: one or more, of the same columns.

    Raises:
        UserError: a table is damaged or of other columns, or its rows are no pairs; the message
            names the table.
    """
    images: list[bytes] = []
    marks: list[np.ndarray] = []
    order: list[np.ndarray] = []
    for table in tables:
        with TableFile(table) as opened:
            columns = set(opened.columns)
            two = columns >= set(TWO_COLUMNS)
            if not two and not columns >= set(ONE_COLUMN):
                raise UserError(
                    f"{table}: expected the columns {', '.join(TWO_COLUMNS)}, or "
                    f"{', '.join(ONE_COLUMN)}"
                )
            indexed = not two and _INDEX in columns
            wanted = TWO_COLUMNS if two else (*ONE_COLUMN, *([_INDEX] if indexed else []))
            for group in opened.rows(wanted):
                sides = [_images(group.column(i), table) for i in range(2 if two else 1)]
                images += [image for row in zip(*sides, strict=True) for image in row]
                same = _marks(group.column(2 if two else 1), table)
                marks.append(np.repeat(same, 2) if two else same)
                if indexed:
                    order.append(_integers(group.column(2), table))
    same = np.concatenate(marks) if marks else np.zeros(0, bool)
    if order:
        places = np.concatenate(order)
        if not np.array_equal(np.sort(places), np.arange(len(images))):
            raise UserError(f"{tables[0]}: {_INDEX}: expected 0..{len(images) - 1}, each once")
        at = np.argsort(places)
        images, same = [images[i] for i in at.tolist()], same[at]
    first, second = same[0::2], same[1::2]
    if len(same) % 2 or not len(same) or (first != second).any():
        raise UserError(
            f"{tables[0]}: {len(same)} rows of images, expected two a pair that say the same of it"
        )
    return pair_set(name, images, first)


def _images(column: Any, table: Path) -> list[bytes]:
    cells = cells_of(column, str(table))
    bounds = cells.ends.tolist()
    found = [bytes(cells.content[a:b]) for a, b in pairwise(bounds)]
    if not all(found):
        raise UserError(f"{table}: an image of no bytes")
    return found


def _marks(column: Any, table: Path) -> np.ndarray:
    """Return booleans, of booleans or of 0 and 1."""
    values = np.array(column.to_pylist(), object)
    if not all(isinstance(value, int) and value in (0, 1) for value in values.tolist()):
        raise UserError(f"{table}: marks of the type {str(column.type)[:80]}, expected 0 and 1")
    return values.astype(bool)


def _integers(column: Any, table: Path) -> np.ndarray:
    values = column.to_pylist()
    if not all(type(value) is int and 0 <= value < 1 << 31 for value in values):
        raise UserError(f"{table}: {_INDEX}: expected whole numbers from 0 on")
    return np.array(values, np.int64)
