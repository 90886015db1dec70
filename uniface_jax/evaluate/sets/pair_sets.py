"""Verification sets that a user names: .bin files, tables, folders of them, and lists of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.bin_pairs import PairSet, looks_like_bin, read_pairs
from uniface_jax.data.formats.pair_lists import find_images, likely_roots, read_pair_lines
from uniface_jax.data.formats.table_pairs import read_table_pairs
from uniface_jax.data.formats.tables import TABLE_HEAD_BYTES, is_table
from uniface_jax.data.sources.folders import read_image_file
from uniface_jax.data.sources.shard_names import expand_shards
from uniface_jax.data.sources.tables import (
    ARROW_STATE_FILE,
    PARQUET,
    SHARDS,
    arrow_tables,
    parquet_splits,
    split_of,
)
from uniface_jax.errors import UserError
from uniface_jax.evaluate.metrics.verification import check_pairs
from uniface_jax.evaluate.sets.image_sets import EncodedImages, ImageFiles, ImageSet
from uniface_jax.files.reading import open_regular

PAIR_FILES = ("*.bin", "*.xz")  # in a folder


@dataclass(frozen=True, eq=False)
class OpenedPairs:
    """Verification set.

    Attributes:
        file: the file that names its pairs.
        pairs: indices into `images`; pairs.images is empty where those are files.
        images: the different images.
        counts: what the first line of a list says, sets and same pairs in each; () for none.
    """

    file: Path
    pairs: PairSet
    images: ImageSet
    counts: Sequence[int] = ()


def find_pair_files(data: Sequence[Path]) -> dict[str, Path]:
    """Find the files in `data`, by name without suffix, in the order given.

    Of a folder they are the .bin and .xz ones, or else its tables. Raises UserError naming the path
    that does not exist, the folder without such files, and the second file of one name.
    """
    files: dict[str, Path] = {}
    for path in data:
        if not path.exists():
            raise UserError(
                f"{path}: no such file or folder; expected .bin pairs, or a list of pairs"
            )
        found = _pair_files(path) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no .bin file and no table in this folder")
        for file in found:
            name = split_of(file) if file.suffix == PARQUET else file.stem
            if name in files:
                raise UserError(
                    f"{file}: a second set called {name}, beside {files[name]}; names must differ"
                )
            files[name] = file
    return files


def _pair_files(folder: Path) -> list[Path]:
    """Return the sets in a folder: several tables of one are a pattern of their names."""
    found = sorted(file for pattern in PAIR_FILES for file in folder.glob(pattern))
    if found:
        return found
    if (folder / ARROW_STATE_FILE).is_file():
        return [folder]
    return [
        tables[0] if len(tables) == 1 else tables[0].with_name(f"{split}{SHARDS}{PARQUET}")
        for split, tables in parquet_splits(folder).items()
    ]


def _tables(file: Path) -> Sequence[Path]:
    """Return the tables that a set is in; none where it is a .bin or a list."""
    if file.is_dir():
        return arrow_tables(file)
    if not file.exists():
        return expand_shards(str(file))
    try:
        with open_regular(file) as opened:
            return [file] if is_table(opened.read(TABLE_HEAD_BYTES)) else []
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e


def open_pair_sets(
    data: Sequence[Path], root: Path | None = None, others: Sequence[Path] = ()
) -> dict[str, OpenedPairs]:
    """Open the sets of find_pair_files, by name, fit for ten folds; no image is decoded.

    Args:
        data: .bin files and tables, folders of them, and lists of pairs (pair_lists.py).
        root: the folder of the lists' images; None looks into each list's own folder, into
            `others`, and into the folders beside the list.
        others: folders to look into.

    Raises:
        UserError: a file cannot be read or evaluated, or an image of a list is not there; the
            message names it.
    """
    return {
        name: open_pair_set(name, file, [root] if root else likely_roots(file, others))
        for name, file in find_pair_files(data).items()
    }


def open_pair_set(name: str, file: Path, roots: Sequence[Path]) -> OpenedPairs:
    """Open one set, fit for its folds; a list's images are in the first of `roots` that has them.

    Raises UserError as open_pair_sets does.
    """
    tables = _tables(file)
    if tables or looks_like_bin(file):
        pairs = read_table_pairs(name, tables) if tables else read_pairs(file)
        images = EncodedImages(name, pairs.images, file, pairs.label, tables, pairs.numbers)
        opened = OpenedPairs(file, pairs, images)
    else:
        opened = _open_list(name, file, roots)
    return _checked(opened)


def open_short_list(name: str, file: Path, roots: Sequence[Path]) -> OpenedPairs:
    """Open a list of pairs as open_pair_set does; one of fewer pairs than folds has one for each.

    Raises UserError as open_pair_sets does.
    """
    opened = _open_list(name, file, roots)
    pairs = opened.pairs
    few = replace(pairs, folds=max(2, min(pairs.folds, len(pairs))))
    return _checked(replace(opened, pairs=few))


def _checked(opened: OpenedPairs) -> OpenedPairs:
    """Return the set, which has pairs of both kinds and one for each fold; UserError if not."""
    try:
        check_pairs(opened.pairs.same, opened.pairs.folds)
    except UserError as e:
        raise UserError(f"{opened.file}: {e}") from e
    return opened


def read_pair_sets(
    data: Sequence[Path], root: Path | None = None, others: Sequence[Path] = ()
) -> dict[str, PairSet]:
    """Read the sets of open_pair_sets with their images, which stay encoded.

    Raises UserError naming the file that cannot be read or evaluated.
    """
    opened = open_pair_sets(data, root, others)
    return {name: with_images(found) for name, found in opened.items()}


def with_images(opened: OpenedPairs) -> PairSet:
    """Return the pairs of a set with its images, which stay encoded; UserError names a bad file."""
    images = opened.images
    if not isinstance(images, ImageFiles):
        return opened.pairs
    encoded = [read_image_file(images.root / image) for image in images.names]
    return replace(opened.pairs, images=encoded)


def _open_list(name: str, file: Path, roots: Sequence[Path]) -> OpenedPairs:
    """Open a list of pairs, whose images are in one of `roots`."""
    listed = read_pair_lines(file)
    root, sides = find_images(file, listed, roots)
    numbers: dict[str, int] = {}
    first, second = (
        np.array([numbers.setdefault(side[i], len(numbers)) for side in sides], np.int32)
        for i in range(2)
    )
    names = list(numbers)
    pairs = PairSet(name, [], first, second, listed.same, names=names, folds=listed.folds)
    images = ImageFiles(name, root, names, whole=False)
    return OpenedPairs(file, pairs, images, listed.counts)
