"""Digests of a checkpoint: CRC32C of every array by blocks of rows, and of every small file.

They lie in STEP/digests. Each process writes process_N.json, the digests of the shards that it
saves; then the main one writes FILES, the digests of all small files, these among them, and of
itself. Rows are those of axis 0, without padding rows. A block never reaches over the edge of a
shard that was saved, so that reading it again on the same devices needs no other rows.
"""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import google_crc32c
import jax
import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import MAX_BYTES, read_json
from uniface_jax.files.reading import expect_regular, open_regular, read_regular
from uniface_jax.runtime import processes

Tree = Any
FOLDER = "digests"
FILES = "files.crc32c"
BLOCK_BYTES = 2**20  # of rows under one digest; at least one row
READ_BYTES = 2**20  # of a file at a time
# Orbax writes it once more after all else; what is restored does not depend on it.
LATE_FILE = "_CHECKPOINT_METADATA"
# Blobs with the arrays and the tree that finds them, whose nodes hold a CRC32C of their own.
BLOB_FOLDER = "d"


class Piece(NamedTuple):
    """Consecutive rows [R, ...] of an array, the first of which is row `start`."""

    start: int
    rows: np.ndarray

    @property
    def stop(self) -> int:
        """Return the row after the last."""
        return self.start + len(self.rows)


class Block(NamedTuple):
    """Rows from `start` to before `stop`, and the CRC32C of their bytes."""

    start: int
    stop: int
    crc: int


class ArrayDigest(NamedTuple):
    """Digest of an array: shape without padding rows, dtype by name, blocks of all rows in order.

    An array without axes counts as one row.
    """

    shape: tuple[int, ...]
    dtype: str
    blocks: tuple[Block, ...]


Digests = dict[str, ArrayDigest]  # by the array's name
ReadRows = Callable[[str, int, int], np.ndarray]  # (name, start, stop) -> rows on disk


def named(tree: Tree) -> dict[str, Any]:
    """Return the leaves of a tree by the names that they have in a checkpoint.

    Example:
        >>> named({"weights": {"bias": 3}})
        {'weights.bias': 3}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _pieces(array: Any, owned: bool) -> list[Piece]:
    """Return the rows that this process holds, each once; if `owned`, those that it saves."""
    if not isinstance(array, jax.Array):
        return [Piece(0, np.atleast_1d(array))] if processes.is_main() or not owned else []
    shards = [x for x in array.addressable_shards if x.replica_id == 0 or not owned]
    by_start = {(x.index[0].start or 0) if x.index else 0: x.data for x in shards}
    for data in by_start.values():
        data.copy_to_host_async()
    return [Piece(start, np.atleast_1d(data)) for start, data in sorted(by_start.items())]


def _bytes(rows: np.ndarray) -> np.ndarray:
    """Return the bytes of an array in row-major order, uint8 [size]."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)


def _blocks(piece: Piece, shape: tuple[int, ...]) -> list[Block]:
    """Return the digests of a piece of an array of this shape; rows beyond it have none."""
    row_bytes = piece.rows.dtype.itemsize * math.prod(shape[1:])
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    stop = min(piece.stop, shape[0] if shape else 1)
    inner = range(piece.start - piece.start % size + size, stop, size)
    edges = [piece.start, *inner, stop] if stop > piece.start else []
    return [
        Block(a, b, google_crc32c.value(_bytes(piece.rows[a - piece.start : b - piece.start])))
        for a, b in itertools.pairwise(edges)
    ]


class Unwritten(NamedTuple):
    """Host arrays of this process whose digests are still to be made.

    by_name: shape without padding rows, dtype by name and pieces, by the array's name.
    """

    by_name: dict[str, tuple[tuple[int, ...], str, list[Piece]]]

    def write(self, folder: Path) -> None:
        """Make the digests and write this process's file in `folder`."""
        arrays = {
            name: {
                "shape": shape,
                "dtype": dtype,
                "blocks": [block for piece in pieces for block in _blocks(piece, shape)],
            }
            for name, (shape, dtype, pieces) in self.by_name.items()
        }
        (folder / f"process_{jax.process_index()}.json").write_text(json.dumps(arrays))


def to_write(state: Tree, shapes: Tree) -> Unwritten:
    """Take to the host what this process saves of a tree of arrays.

    shapes: leaves with the shapes without padding rows, by the same names.
    """
    logical = named(shapes)
    return Unwritten(
        {
            name: (tuple(logical[name].shape), np.dtype(array.dtype).name, _pieces(array, True))
            for name, array in named(state).items()
        }
    )


def _crc_of_file(file: Path) -> int:
    crc = 0
    with open_regular(file) as content:
        while chunk := content.read(READ_BYTES):
            crc = google_crc32c.extend(crc, chunk)
    return int(crc)


def _small_files(step: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, file) of all files of a checkpoint's folder but blobs and LATE_FILE."""
    for folder, _, names in os.walk(step):
        if Path(folder).name != BLOB_FOLDER:
            for name in names:
                file = Path(folder) / name
                if name != LATE_FILE:
                    yield file.relative_to(step).as_posix(), file


def write_files(step: Path, own: Path) -> None:
    """Write FILES in `own`, the folder of the digests, for the small files in `step`.

    Once all processes have written theirs, and Orbax all of its own.
    """
    lines = []
    for name, file in sorted(_small_files(step)):
        final = name.replace(own.relative_to(step).as_posix(), FOLDER, 1)
        lines.append(f"{_crc_of_file(file):08x} {file.stat().st_size} {final}\n")
    content = "".join(lines).encode()
    (own / FILES).write_bytes(content + b"%08x\n" % google_crc32c.value(content))


def _listed(file: Path) -> dict[str, tuple[int, int]]:
    """Return {name: (crc, size)} of what FILES lists; ValueError where it is damaged."""
    content = read_regular(file, MAX_BYTES)
    before, last = content[:-9], content[-9:]
    if last != b"%08x\n" % google_crc32c.value(before):
        raise ValueError(f"{FOLDER}/{FILES} is damaged")
    rows = [line.split(" ", 2) for line in before.decode().splitlines()]
    return {name: (int(crc, 16), int(size)) for crc, size, name in rows}


def read(step: Path) -> Digests | None:
    """Check the small files of a checkpoint and return the digests of its arrays.

    None for one that has no digests. Raises ValueError or OSError where a small file, or a digest,
    is damaged or missing, and where anything in the folder is no regular file.
    """
    for folder, _, names in os.walk(step):
        for name in names:
            expect_regular(Path(folder) / name)
    own = step / FOLDER
    if not own.is_dir():
        return None
    listed = _listed(own / FILES)
    for name, (crc, size) in listed.items():
        file = step / name
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise ValueError(f"{FOLDER}/{FILES} lists {name}")
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if file.stat().st_size != size or _crc_of_file(file) != crc:
            raise ValueError(f"{name} has other bytes than were saved")
    ours = [name for name in listed if name.startswith(f"{FOLDER}/process_")]
    return _merged(read_part(step / name) for name in ours)


def read_part(file: Path) -> Any:
    """Return the value of a JSON file of a checkpoint; ValueError where it has none."""
    try:
        return read_json(file, "the checkpoint is not whole")
    except UserError as e:
        raise ValueError(str(e)) from e


def _merged(parts: Iterable[Any]) -> Digests:
    """Merge what the processes have written; ValueError where rows have no digest."""
    found: dict[str, tuple[tuple[int, ...], str, list[Block]]] = {}
    for part in parts:
        for name, entry in part.items():
            empty: list[Block] = []
            first = (tuple(entry["shape"]), entry["dtype"], empty)
            found.setdefault(name, first)[2].extend(Block(*block) for block in entry["blocks"])
    digests = {}
    for name, (shape, dtype, blocks) in found.items():
        blocks.sort()
        edges = [0, *(block.stop for block in blocks)]
        if edges[:-1] != [block.start for block in blocks] or edges[-1] != (*shape, 1)[0]:
            raise ValueError(f"a digest of {name} is missing")
        digests[name] = ArrayDigest(shape, dtype, tuple(blocks))
    return digests


def check_shapes(stored: Tree, digests: Digests) -> None:
    """Compare the arrays that a checkpoint says it has with those that were saved.

    stored: leaves with shape, without padding rows, and dtype. Raises ValueError.
    """
    found = {name: (tuple(x.shape), np.dtype(x.dtype).name) for name, x in named(stored).items()}
    saved = {name: (digest.shape, digest.dtype) for name, digest in digests.items()}
    for name in sorted(found.keys() | saved.keys()):
        if name not in saved:
            raise ValueError(f"a digest of {name} is missing")
        if found.get(name) != saved[name]:
            raise ValueError(f"{name} is {found.get(name, 'missing')}, {saved[name]} was saved")


def check(arrays: Tree, digests: Digests, more_rows: ReadRows) -> None:
    """Compare restored arrays, or this process's shards of them, with their digests.

    Of a block of which only some rows were restored, `more_rows` gives the others. Raises
    ValueError for rows that are not as they were saved.
    """

    def differs(name: str, block: Block, pieces: list[Piece]) -> bool:
        crc, at = 0, block.start
        for piece in pieces:
            begin, end = max(piece.start, at), min(piece.stop, block.stop)
            if begin < end:
                between = [more_rows(name, at, begin)] if at < begin else []
                taken = piece.rows[begin - piece.start : end - piece.start]
                for rows in (*between, taken):
                    crc = google_crc32c.extend(crc, _bytes(rows))
                at = end
        if block.start < at < block.stop:
            crc = google_crc32c.extend(crc, _bytes(more_rows(name, at, block.stop)))
        return at > block.start and crc != block.crc

    jobs = [
        (name, block, pieces)
        for name, array in named(arrays).items()
        for pieces in [_pieces(array, False)]
        for block in digests[name].blocks
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the checksum releases the interpreter
        for (name, block, _), bad in zip(
            jobs, pool.map(lambda job: differs(*job), jobs), strict=True
        ):
            if bad:
                raise ValueError(
                    f"{name}, rows {block.start} to {block.stop - 1}: other bytes than were saved"
                )
