"""Tables of labeled images, Hugging Face's Parquet and Arrow, as a source.

Parquet packs rows in groups that can only be unpacked whole, and training takes them in any order:
the images are copied once, in the tables' order, to a temporary file without a name.
"""

import re
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from typing_extensions import override

from uniface_jax.data.formats.tables import Cells, TableFile, cells_of
from uniface_jax.data.sources.base import Item, digest
from uniface_jax.data.sources.folders import MAX_FILE_BYTES
from uniface_jax.data.sources.indexed import Part, SharedSource
from uniface_jax.data.sources.labels import classes_of, natural_key
from uniface_jax.data.sources.names import Names
from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.kept_open import KeptOpen
from uniface_jax.files.unnamed import UnnamedFile

IMAGE_COLUMN = "image"
LABEL_COLUMNS = ("label", "cls", "class", "identity")
ARROW_STATE_FILE = "state.json"  # of save_to_disk
PARQUET = ".parquet"
_SPLITS_FILE = "dataset_dict.json"
_TRAIN = "train"
_PARQUET_PLACES = ("*.parquet", "data/*.parquet", "default/*/*.parquet")
SHARDS = "-[0-9]*"  # a pattern's end, behind the split
_SHARD = re.compile(r"(?P<split>.+?)-(\d+(-of-\d+)?(-[0-9a-f]+)?|\[0-9\]\*)")
_MAX_TEXT = 1024  # of a label
_DICTIONARY = "dictionary<values="  # of texts that stand once
_LABEL_TYPES = (
    "int", "uint", "string", "large_string", f"{_DICTIONARY}string", f"{_DICTIONARY}large_string",
)  # fmt: skip
_MAX_NAME_LENGTH = 255  # of a file, nearly everywhere


@dataclass(frozen=True)
class TablePart(Part):
    """Images in a file of their own: offset, size, class and name of each; [K]."""

    files: KeptOpen
    source: str
    offsets: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    names: Names

    @override
    def __getitem__(self, index: int) -> Item:
        size, name = int(self.lengths[index]), self.names[index]
        try:
            image = self.files.read(0, int(self.offsets[index]), size)
        except OSError as e:
            raise UserError(f"{self.source}: {name}: cannot be read ({e.strerror})") from e
        if len(image) != size:
            raise UserError(f"{self.source}: {name}: the temporary file was cut short")
        return Item(image, int(self.labels[index]), name)


class TableSource(SharedSource):
    """Rows of tables in their order; item names are table/path, or table/row where there is none.

    The column `image` holds the images (`bytes`, or a struct of `bytes` and `path`), a column of
    LABEL_COLUMNS their classes: whole numbers, or texts. Numbers that are not 0..C-1 are mapped as
    in lists; class_names are those that the tables state, or the labels.

    Raises:
        UserError: pyarrow is not installed, a table is damaged, cut short or of other columns, an
            image is not in it, or there is no row; the message names the table, and the row.
    """

    _images: TablePart

    def __init__(self, path: Path | str, tables: Sequence[Path], label: str | None = None):
        """Copy the images of the tables; label: the column of the classes, None for the usual."""
        self.name = str(path)
        self.class_names: list[str] | None = None
        unpacked = UnnamedFile(self.name)
        rows = _Rows(unpacked, label)
        hidden = len(tables) < 2 or not sys.stderr.isatty()
        for table in tqdm(tables, unit=" tables", desc="unpack", disable=hidden):
            rows.add(table)
        labels, self.class_names, self.num_classes = rows.classes(self.name)
        self.notes = [
            f"{path}: rows are unpacked in groups: the images, "
            f"{unpacked.size / 2**20:.0f} MiB, were copied to a temporary file, at every "
            "start anew; a set that convert writes needs neither"
        ]
        self._unpacked = [unpacked]
        lengths = np.frombuffer(rows.lengths, np.int64)
        self._images = TablePart(
            KeptOpen([unpacked.path]),
            self.name,
            np.cumsum(lengths) - lengths,
            lengths,
            labels,
            rows.names,
        )

    @override
    def fingerprint(self) -> str:
        images = self._images
        return digest(*images.names.arrays(), images.lengths, images.labels)


class _Rows:
    """Rows of tables, collected group by group; their images go to a file."""

    def __init__(self, images: UnnamedFile, label: str | None):
        self._images = images
        self._wanted = LABEL_COLUMNS if label is None else (label,)
        self.lengths, self.names = array("q"), Names()
        self._labels: list[np.ndarray] = []  # numbers, or places in _codes
        self._codes: dict[str, int] = {}
        self._class_names: list[str] | None = None

    def add(self, table: Path) -> None:
        """Add the rows of one table."""
        with TableFile(table) as opened:
            column = self._label_column(opened)
            row = 0
            for group in opened.rows([IMAGE_COLUMN, column]):
                where = f"{table}: row {row}"
                cells = cells_of(group.column(0), where)
                self._add_images(cells, table, row)
                self._labels.append(self._codes_of(group.column(1), where))
                row += group.num_rows

    def _label_column(self, table: TableFile) -> str:
        """Return the column of the classes, and note the classes' names."""
        columns = table.columns
        column = next((name for name in self._wanted if name in columns), None)
        if IMAGE_COLUMN not in columns or column is None:
            found = ", ".join(name[:40] for name in columns)[:200]
            raise UserError(
                f"{table.path}: expected the columns {IMAGE_COLUMN} and {' or '.join(self._wanted)}"
                f", found {found or 'none'} (--json_key of convert names the classes' one)"
            )
        self._class_names = self._class_names or table.feature_names(column)
        return column

    def _add_images(self, cells: Cells, table: Path, row: int) -> None:
        lengths = np.diff(cells.ends)
        if len(lengths) and int(lengths.max()) > MAX_FILE_BYTES:
            worst = row + int(lengths.argmax())
            raise UserError(
                f"{table}: row {worst}: {lengths.max()} bytes; an image has at most "
                f"{MAX_FILE_BYTES}"
            )
        self._images.write(cells.content)
        self.lengths.frombytes(lengths.astype(np.int64).tobytes())
        for number, name in enumerate(cells.names, row):
            self.names.append(f"{table.name}/{name or number}")

    def _codes_of(self, column: Any, where: str) -> np.ndarray:
        """Return the labels of a group: places in _codes, int32 [K]."""
        kind = str(column.type)
        values = column.to_pylist() if kind.startswith(_LABEL_TYPES) else [None]
        if None in values:
            raise UserError(
                f"{where}: labels of the type {kind[:80]}, or none; expected whole numbers or texts"
            )
        texts = [str(value)[:_MAX_TEXT] for value in values]
        codes = (self._codes.setdefault(text, len(self._codes)) for text in texts)
        return np.fromiter(codes, np.int32, len(texts))

    def classes(self, source: str) -> tuple[np.ndarray, list[str] | None, int]:
        """Return classes int32 [N], their names or None where they are 0..C-1, and C."""
        if not len(self.names):
            raise UserError(f"{source}: no row in it; expected images with their classes")
        used = list(self._codes)
        places = np.concatenate(self._labels)
        names = self._class_names
        if names is not None:
            stated = {str(number): number for number in range(len(names))}
            if not all(text in stated for text in used):
                stated |= {name: number for number, name in enumerate(names)}
            if all(text in stated for text in used):
                numbers = np.array([stated[text] for text in used], np.int32)
                return numbers[places], names, len(names)
        return classes_of(used, places)


def is_saved_by_datasets(folder: Path) -> bool:
    """Return True for a folder that save_to_disk of Hugging Face's datasets has written."""
    return (folder / ARROW_STATE_FILE).is_file() or (folder / _SPLITS_FILE).is_file()


def find_tables(folder: Path) -> list[Path]:
    """Return the tables of a data set in a folder, in natural order; none where it holds none.

    Of several splits it is the one called train.

    Raises:
        UserError: there are several splits and none is called so, or the list that save_to_disk
            has made is damaged or names what is no file there.
    """
    if (folder / _SPLITS_FILE).is_file() and (folder / _TRAIN / ARROW_STATE_FILE).is_file():
        folder = folder / _TRAIN
    if (folder / ARROW_STATE_FILE).is_file():
        return arrow_tables(folder)
    by_split = parquet_splits(folder)
    if len(by_split) > 1 and _TRAIN not in by_split:
        raise UserError(
            f"{folder}: tables of several sets ({', '.join(by_split)[:200]}); name those of one by "
            f"a pattern, as '{folder}/{next(iter(by_split))}-*.parquet'"
        )
    return by_split.get(_TRAIN) or next(iter(by_split.values()), [])


def arrow_tables(folder: Path) -> list[Path]:
    """Return the tables that state.json lists."""
    file = folder / ARROW_STATE_FILE
    values = read_json(file, "save_to_disk of Hugging Face's datasets writes it")
    try:
        names = [str(entry["filename"]) for entry in values["_data_files"]]
    except (KeyError, TypeError) as e:
        raise UserError(f"{file}: no list of _data_files in it") from e
    if not names or not all(map(_is_file_name, names)):
        raise UserError(f"{file}: _data_files: expected names of files beside it")
    return [folder / name for name in names]


def _is_file_name(name: str) -> bool:
    return "/" not in name and name.isprintable() and 0 < len(name) <= _MAX_NAME_LENGTH


def parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """Return the .parquet files in a folder, or where Hugging Face puts them in it, by split."""
    found: list[Path] = []
    for pattern in _PARQUET_PLACES:
        if found := sorted(folder.glob(pattern), key=lambda file: natural_key(file.name)):
            break
    by_split: dict[str, list[Path]] = {}
    for file in found:
        by_split.setdefault(split_of(file), []).append(file)
    return by_split


def split_of(file: Path) -> str:
    """Return the split that a table's name says: `train` of train-00000-of-00002.parquet."""
    shard = _SHARD.fullmatch(file.stem)
    if shard:
        return shard["split"]
    return file.parent.name if file.stem.isdigit() else file.stem
