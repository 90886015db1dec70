"""One door for whatever a user has as a source of training images; its content tells the format.

register_source adds a kind of one's own, which is told by its name in front of the path.
"""

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from uniface_jax.data.formats import tar_members
from uniface_jax.data.formats.lmdb_pages import looks_like_lmdb
from uniface_jax.data.formats.recordio import MAGIC_BYTES
from uniface_jax.data.formats.safe_pickle import XZ_MAGIC
from uniface_jax.data.formats.table_pairs import holds_pairs, read_table_pairs
from uniface_jax.data.formats.tables import is_table
from uniface_jax.data.formats.tfrecord_info import INFO_FILE
from uniface_jax.data.sources.base import Item, Source
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.joined import APART, JoinedSource
from uniface_jax.data.sources.lists import ListSource, looks_like_list
from uniface_jax.data.sources.lmdb import DATA_FILE, LmdbSource, open_lmdb
from uniface_jax.data.sources.pairs import PairSource
from uniface_jax.data.sources.recordio import RecordIOSource
from uniface_jax.data.sources.shard_names import expand_shards, is_pattern, split_sets
from uniface_jax.data.sources.synthetic import PREFIX, parse_synthetic
from uniface_jax.data.sources.tables import (
    TableSource,
    find_tables,
    is_saved_by_datasets,
    split_of,
)
from uniface_jax.data.sources.tar import TarSource, find_archives
from uniface_jax.data.sources.tface import TfaceSource, looks_like_index, open_tface
from uniface_jax.data.sources.tfrecord import TFRecordSource
from uniface_jax.errors import UserError
from uniface_jax.files.paths import expanded
from uniface_jax.files.reading import open_regular
from uniface_jax.registry import Registry

__all__ = [
    "SOURCES",
    "Item",
    "Source",
    "SourceOpener",
    "SourceOptions",
    "open_source",
    "register_source",
]

FORMATS = (
    "identity folders, a .rec, .tar, .tar.gz or .parquet or a folder of them, an LMDB file, a list,"
    " TFace's index, a .bin, or a TFRecord data set"
)
_SNIFFED_BYTES = 512
_TAR_MAGIC_END = tar_members.MAGIC_OFFSET + len(tar_members.MAGIC)
_PICKLE_MAGIC = b"\x80"  # protocol 2 and later; no text begins with it
_PAIRS_MAGIC = (_PICKLE_MAGIC, XZ_MAGIC)


class SourceOpener(typing.Protocol):
    """A function of the text behind NAME: to the source, as a subclass of Source is one."""

    def __call__(self, *args: Any, **kwargs: Any) -> Source:
        """Return the source at a path, str; UserError where there is none."""


Opener = TypeVar("Opener", bound=SourceOpener)

SOURCES: Registry[SourceOpener] = Registry("source", given=("path",))
SOURCES.add(PREFIX.rstrip(":"), lambda path: parse_synthetic(PREFIX + path), builtin=True)
SOURCES.add("lmdb", lambda path: open_lmdb(expanded(path)), builtin=True)
SOURCES.add("tface", lambda path: open_tface(expanded(path)), builtin=True)


def register_source(name: str) -> Callable[[Opener], Opener]:
    """Return a decorator that registers a kind of source: NAME:PATH stands wherever one is named.

    What is decorated is a subclass of data.sources.base.Source, or a function that returns one; it
    takes `path`, all that stands behind the colon, and raises UserError where that is none. Sources
    are read by several threads, and may be sent to decoding processes, which import its module.

    Args:
        name: Lower-case letters, digits and underscores.

    Raises:
        UserError: At what is decorated, for a name that is taken, or one that takes no `path`.

    >>> from uniface_jax import open_source, register_source
    >>> from uniface_jax.data.sources.base import Source
    >>> @register_source("doc_half")
    ... class Half(Source):
    ...     def __init__(self, path):
    ...         self.whole = open_source(path)
    ...         self.name, self.num_classes = f"half of {path}", self.whole.num_classes
    ...     def __len__(self):
    ...         return len(self.whole) // 2
    ...     def __getitem__(self, index):
    ...         return self.whole[index]
    >>> len(open_source("doc_half:synthetic:4:32"))
    16
    """
    return SOURCES.decorator(name, {})


@dataclass(frozen=True)
class SourceOptions:
    """Choices of a user where a source may be read in several ways.

    Attributes:
        skip_faults: leave out the folders of a folder of people that cannot be used, and note
            them, where that is an error otherwise.
        json_key: under which the .json files of tar archives have the class, and the column of
            tables that does; None for the usual.
        people: of several sets: one of joined.PEOPLE, kept apart or joined by name.
    """

    skip_faults: bool = False
    json_key: str | None = None
    people: str = APART


def open_source(path: Path | str, options: SourceOptions | None = None) -> Source:
    r"""Return the source at `path`: one of FORMATS, or NAME:PATH of a registered kind.

    A folder with .rec files is RecordIO, of which train.rec is taken where there are several; a
    folder with .tar or .tar.gz files is all of them, and so are those that a pattern names, as
    `train-{0000..0127}.tar` or `train-*.tar.gz`. `synthetic:CLASSES:IMAGES` is no path
    (synthetic.py).
    A ~ at the beginning is the home folder. Several, separated by commas, are joined
    (sources.joined).

    Raises:
        UserError: there is nothing at `path`, no format is recognized, or the format's own reader
            finds a fault.

    Example:
        >>> source = open_source("synthetic:10:1000")
        >>> len(source), source.num_classes
        (1000, 10)
        >>> item = source[12]
        >>> item.label, item.image[:2]  # the bytes of a JPEG
        (2, b'\xff\xd8')
    """
    options = options or SourceOptions()
    name, colon, rest = str(path).partition(":")
    sets = split_training_sets(str(path))
    if len(sets) > 1:
        return JoinedSource([open_source(each, options) for each in sets], options.people)
    if colon and name in SOURCES:
        return _open_registered(name, rest)
    text, path = str(path), Path(expanded(str(path)))
    if not path.exists():
        if is_pattern(text):
            return _open_shards(path, expand_shards(text), options)
        kinds = f"; kinds of sources are {', '.join(SOURCES)}" if colon else ""
        raise UserError(f"{path}: no such file or folder{kinds}")
    try:
        return _open_folder(path, options) if path.is_dir() else _open_file(path, options)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); expected {FORMATS}") from e


def split_training_sets(text: str) -> list[str]:
    """Return the sets that a text names, separated by commas.

    A kind from outside takes all that stands behind its colon, commas too.
    """
    name, colon, _ = text.partition(":")
    if colon and name in SOURCES and not SOURCES.entry(name).builtin:
        return [text]
    return split_sets(text)


def is_named(text: str) -> bool:
    """Return True where every set that a text names is there, or of a registered kind."""

    def is_there(one: str) -> bool:
        name, colon, _ = one.partition(":")
        return bool(colon and name in SOURCES) or Path(one).exists()

    sets = split_training_sets(text)
    return bool(sets) and all(map(is_there, sets))


def _open_registered(name: str, path: str) -> Source:
    """Open a source of a registered kind; UserError where it is no usable Source."""
    try:
        source = SOURCES[name](path)
    except OSError as e:
        raise UserError(f"{name}:{path}: cannot be read ({e.strerror})") from e
    if not isinstance(source, Source):
        raise UserError(
            f"{name}:{path}: opened a {type(source).__name__}; expected a subclass of "
            "uniface_jax.data.sources.base.Source"
        )
    if len(source) < 1 or source.num_classes < 1:
        raise UserError(f"{name}:{path}: {len(source)} images of {source.num_classes} classes")
    return source


def _open_folder(path: Path, options: SourceOptions) -> Source:
    """Open a folder by the files in it."""
    if is_saved_by_datasets(path):  # which has a file called as TFRecord's is
        return _open_tables(path, find_tables(path), options)
    if (path / INFO_FILE).is_file():
        return TFRecordSource(path)
    if (path / DATA_FILE).is_file():
        return LmdbSource(path)
    record_files = sorted(path.glob("*.rec"))
    if len(record_files) > 1 and path / "train.rec" not in record_files:
        raise UserError(f"{path}: several .rec files; give one of them: {record_files[0].name}, …")
    if record_files:
        return RecordIOSource(record_files[0] if len(record_files) == 1 else path / "train.rec")
    if find_archives(path):
        return TarSource(path, options.json_key)
    if tables := find_tables(path):
        return _open_tables(path, tables, options)
    return FolderSource(path, skip_faults=options.skip_faults)


def _open_shards(path: Path, shards: Sequence[Path], options: SourceOptions) -> Source:
    """Open the files that a pattern names, by the first of them."""
    try:
        with open_regular(shards[0]) as file:
            head = file.read(_SNIFFED_BYTES)
    except OSError as e:
        raise UserError(f"{shards[0]}: cannot be read ({e.strerror})") from e
    if _is_archive(shards[0], head):
        return TarSource(path, options.json_key, shards)
    if is_table(head):
        return _open_tables(path, shards, options)
    if len(shards) == 1:
        return open_source(shards[0], options)
    raise UserError(
        f"{path}: {len(shards)} files; a pattern names the shards of .tar, .tar.gz or .parquet"
    )


def _open_tables(path: Path, tables: Sequence[Path], options: SourceOptions) -> Source:
    """Open tables, of labeled images or of pairs."""
    if holds_pairs(tables[0]):
        return PairSource(path, read_table_pairs(split_of(path), tables))
    return TableSource(path, tables, options.json_key)


def _is_archive(path: Path, head: bytes) -> bool:
    """Return True for a tar archive, packed by gzip or not, by its first bytes or its name."""
    return (
        head[tar_members.MAGIC_OFFSET : _TAR_MAGIC_END] == tar_members.MAGIC
        or path.suffix == ".tar"
        or head.startswith(tar_members.GZIP_MAGIC)
    )


def _open_file(path: Path, options: SourceOptions) -> Source:
    """Open a file by its first bytes."""
    with open_regular(path) as file:
        head = file.read(_SNIFFED_BYTES)
    if is_table(head):
        return _open_tables(path, [path], options)
    if looks_like_lmdb(head):
        return LmdbSource(path)
    if head.startswith(MAGIC_BYTES):
        return RecordIOSource(path)
    if _is_archive(path, head):
        return TarSource(path, options.json_key)
    if head.startswith(_PAIRS_MAGIC) or path.suffix == ".bin":
        return PairSource(path)
    if looks_like_index(path):
        return TfaceSource(path)
    if looks_like_list(path):
        return ListSource(path)
    raise UserError(f"{path}: not a known format; expected {FORMATS}")
