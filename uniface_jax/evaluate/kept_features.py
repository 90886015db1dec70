"""Features kept in array files, which several evaluations may share, and what is taken of them.

A kept array is NAME-KEY.npy, float32 [N, D], with NAME-KEY.json beside it, which says what it is
of; KEY is a digest of model and data. It is computed in NAME-KEY.part-RANDOM.npy, which one process
has locked, and gets its name when it is whole; a part that nobody works on is resumed.

An array lies where anybody may have put it. It is taken where the digest of its rows, with what
they are of, stands in the user's own folder of known digests (files.own_folder): it was computed by
this user, and no bit of it has changed.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uniface_jax import cli
from uniface_jax.errors import UserError
from uniface_jax.files.arrays import create_array
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.own_folder import KnownDigests
from uniface_jax.files.reading import open_regular
from uniface_jax.files.writing import create, open_again

_WRITE_DOWN_SECONDS = 10.0
_BLOCK_BYTES = 1 << 24
_NAME_BYTES = 100  # of the set's name in that of a file
_SAME = 1e-4  # of a row's length: what other kernels or another machine make of the same network


@dataclass(frozen=True)
class Record:
    """Origin of the rows of an array: of which model and data, and how the mirror is in them.

    kind: see features.SUM and APART. model: `name`, `sha256`, `description`; data: `name`,
    `sha256`, `images`. Both names are for readers alone.
    """

    kind: str
    model: Mapping[str, str]
    data: Mapping[str, Any]

    @property
    def images(self) -> int:
        """Return the number of rows of the whole array."""
        return int(self.data["images"])

    @property
    def key(self) -> str:
        """Return the part of file names that tells arrays apart."""
        parts = (self.model["sha256"], self.model["description"], self.data["sha256"], self.kind)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def digest(self, rows: "hashlib._Hash", done: int, width: int) -> str:
        """Return the SHA-256, hexadecimal, of `done` rows of `width` and of what they are."""
        parts = [self.kind, self.model["sha256"], self.model["description"]]
        text = json.dumps([*parts, self.data["sha256"], self.images, done, width])
        total = rows.copy()
        total.update(text.encode())
        return total.hexdigest()


class FeatureCache:
    """Arrays of features in a folder.

    known: the digests of those that this user has computed. trust: take whole arrays that lie in
    the folder though nothing is known of them.
    """

    def __init__(self, folder: Path, known: KnownDigests, trust: bool = False) -> None:
        self.folder, self._known, self._trust = folder, known, trust

    def file_of(self, record: Record) -> Path:
        """Return the file of an array, whether it is there or not."""
        # The same images under another name, in another protocol, are not embedded again.
        kept = sorted(self.folder.glob(f"*-{record.key}.npy"))
        name = os.fsencode(record.data["name"])[:_NAME_BYTES].decode(errors="ignore")
        kept += [file for file in sorted(self.folder.glob("*.npy")) if _is_former(file, record)]
        return kept[0] if kept else self.folder / f"{name}-{record.key}.npy"

    def taken(self, file: Path, record: Record) -> np.ndarray | None:
        """Return the whole array in `file`, memory-mapped; None where it is to be computed.

        Says which of both, where there is an array.
        """
        opened = _opened(file, record.images)
        if opened is None:
            if os.path.lexists(file):
                cli.say(f"{file}: no whole array of such features; computed again")
            return None
        source, width = opened
        with source:
            digest = record.digest(_hash_rows(source, record.images, width), record.images, width)
            if digest in self._known:
                cli.say(f"{record.data['name']}: features taken from {file}, computed before")
            elif self._trust and record.key in file.stem and _done(file) == record.images:
                cli.say(f"{record.data['name']}: features taken from {file}, trusted as they are")
            else:
                cli.say(
                    f"{file}: features that this user's programs have not computed, or that have "
                    "changed since; computed again (--trust_cache takes them)"
                )
                return None
            return _mapped(source, record.images, width)

    def growing(self, file: Path, record: Record) -> "GrowingRows":
        """Return the rows of `file` that are there, as an interrupted evaluation left them."""
        return GrowingRows(file, record, self._known)


class GrowingRows:
    """Array of an extraction, which grows row by row in a part file that this process has locked.

    file: that of the whole array. done: rows that are in the part. Leaving the context keeps them
    for the next evaluation.
    """

    def __init__(self, file: Path, record: Record, known: KnownDigests) -> None:
        self.file, self._record, self._known = file, record, known
        self._array: np.memmap | None = None
        self._rows, self.done, self._noted = hashlib.sha256(), 0, ""
        self._written_down = time.monotonic()
        file.parent.mkdir(parents=True, exist_ok=True)
        for part in sorted(file.parent.glob(f"*-{record.key}.part-*.npy")):
            if self._adopt(part):
                return
        name = file.stem if record.key in file.stem else f"{file.stem[:_NAME_BYTES]}-{record.key}"
        self._part = file.with_name(f"{name}.part-{uuid.uuid4().hex[:12]}.npy")
        self._lock = create(self._part)
        with contextlib.suppress(OSError):  # a file system without locks: nobody else resumes it
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _adopt(self, part: Path) -> bool:
        """Resume a part that nobody works on; remove one of this user that is of no use."""
        try:
            lock = open_again(part)
        except OSError:
            return False  # of another user, or something else
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino != part.stat().st_ino:
                raise FileNotFoundError  # it was finished since
        except OSError as e:
            os.close(lock)
            if isinstance(e, BlockingIOError):
                cli.say(
                    f"{part}: another evaluation computes these features; computed here as well"
                )
            return False
        opened, done = _opened(part, self._record.images), _done(part)
        if opened is not None:
            source, width = opened
            with source:
                rows = _hash_rows(source, done, width)
            noted = self._record.digest(rows, done, width)
            if 0 < done <= self._record.images and noted in self._known:
                self._part, self._lock, self._noted = part, lock, noted
                self._rows, self.done = rows, done
                self._array = np.lib.format.open_memmap(part, "r+")
                cli.say(f"{self._record.data['name']}: {done} features taken from {part}")
                return True
        if os.fstat(lock).st_uid == os.geteuid():
            _remove(part)
        os.close(lock)
        return False

    def __enter__(self) -> "GrowingRows":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._array is None:
                _remove(self._part)
            elif self._part.exists():
                self.write_down()
        finally:
            os.close(self._lock)

    def append(self, rows: np.ndarray) -> None:
        """Put rows [K, D] behind those that are there, and now and then write them down."""
        if self._array is None:
            shape = (self._record.images, rows.shape[1])
            self._array = create_array(self._part, shape, np.float32)
        self._array[self.done : self.done + len(rows)] = rows
        self._rows.update(np.ascontiguousarray(rows, np.float32).tobytes())
        self.done += len(rows)
        if time.monotonic() - self._written_down > _WRITE_DOWN_SECONDS:
            self.write_down()

    def write_down(self) -> None:
        """Bring the rows to disk, and then their number and their digest."""
        assert self._array is not None
        self._array.flush()
        noted = self._record.digest(self._rows, self.done, self._array.shape[1])
        self._known.add(noted)
        _write_json(self._part, self._record, self.done, noted)
        if noted != self._noted:
            self._known.discard(self._noted)
        self._noted, self._written_down = noted, time.monotonic()

    def finish(self) -> np.ndarray:
        """Give the whole array its name; return it, memory-mapped.

        Where there is an array of that name that nothing was known of, it stays if it is as it
        was written, and its rows are the same but for rounding.
        """
        assert self._array is not None
        self._array.flush()
        images, width = self._array.shape
        whole = self._record.digest(self._rows, images, width)
        before = _opened(self.file, images)
        if before is not None:
            with before[0] as source:
                rows = _hash_if_same(source, self._array) if before[1] == width else None
                digest = rows and self._record.digest(rows, images, width)
                if digest and _is_as_written(self.file, digest):
                    cli.say(f"{self.file}: the same features as computed now; kept")
                    self._known.add(digest)
                    self._known.discard(self._noted)
                    _remove(self._part)
                    return _mapped(source, images, width)
            if self._record.key in self.file.stem:
                cli.say(f"{self.file}: other features than were computed now; replaced")
            else:  # a former version's, and of another input to the same model, as it turns out
                self.file = self._part.with_name(f"{self._part.name.partition('.part-')[0]}.npy")
        with open_regular(self._part) as part:
            os.fsync(part.fileno())
            self._known.add(whole)
            self._part.replace(self.file)
            _write_json(self.file, self._record, images, whole)
            self._part.with_suffix(".json").unlink(missing_ok=True)
            if self._noted != whole:
                self._known.discard(self._noted)
            return _mapped(part, images, width)


def read_record(beside: Path) -> dict[str, Any]:
    """Return the record in the JSON beside an array; `digest` is "" in one before 0.3.

    Raises:
        UserError: it is something else, or damaged.
    """
    found = read_json(beside, "evaluate writes it")
    try:
        done, images = found["done"], found["data"]["images"]
        texts = [found["kind"], found["data"]["sha256"], *found["model"].values()]
        if not isinstance(done, int) or not isinstance(images, int):
            raise TypeError
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{beside}: no record of features") from e
    if "check" in found and found.pop("check") != _check_of(found):
        raise UserError(f"{beside}: damaged: it is not what was written")
    return {"digest": "", **found}


def _is_former(file: Path, record: Record) -> bool:
    """Return True for a former version's array of the same model and data.

    It described models in other words, of which the key is made.
    """
    try:
        found = read_record(file.with_suffix(".json"))
    except UserError:
        return False
    same = (found["model"].get("sha256"), found["data"]["sha256"], found["kind"])
    return (
        not found["digest"]
        and same == (record.model["sha256"], record.data["sha256"], record.kind)
        and found["done"] == record.images
    )


def check_rows(file: Path, record: Mapping[str, Any]) -> None:
    """Raise UserError where the array in `file` is not the one that its record was written with."""
    if not record["digest"]:
        return
    of = Record(record["kind"], record["model"], record["data"])
    opened = _opened(file, of.images)
    if opened is not None:
        source, width = opened
        with source:
            rows = _hash_rows(source, of.images, width)
        if of.digest(rows, of.images, width) == record["digest"]:
            return
    raise UserError(f"{file}: damaged: its rows are not those that were written")


def _opened(file: Path, images: int) -> tuple[BinaryIO, int] | None:
    """Open a file that holds float32 [images, D] and nothing else, and return it with D.

    None where it does not; the header is compared, and nothing in it is followed.
    """
    try:
        source = open_regular(file)
    except OSError:
        return None
    size, offset = os.fstat(source.fileno()).st_size, len(_header(images, 1))
    width = (size - offset) // (4 * images)
    header = _header(images, max(1, width))
    if width < 1 or size != len(header) + 4 * images * width or source.read(offset) != header:
        source.close()
        return None
    return source, width


def _header(images: int, width: int) -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        written, {"descr": "<f4", "fortran_order": False, "shape": (images, width)}
    )
    return written.getvalue()


def _mapped(source: BinaryIO, images: int, width: int) -> np.memmap:
    """Map what was opened, and perhaps hashed: no other file that has come to its name."""
    return np.memmap(source, np.float32, "r", len(_header(images, width)), (images, width))


def _hash_rows(source: BinaryIO, count: int, width: int) -> "hashlib._Hash":
    """Return the running SHA-256 of the first `count` rows of an array just opened."""
    rows, left = hashlib.sha256(), 4 * count * width
    while left and (block := source.read(min(left, _BLOCK_BYTES))):
        rows.update(block)
        left -= len(block)
    return rows


def _hash_if_same(before: BinaryIO, computed: np.ndarray) -> "hashlib._Hash | None":
    """Return the SHA-256 of the rows of an array just opened; None where they are other ones."""
    rows, width = hashlib.sha256(), computed.shape[1]
    step = max(1, _BLOCK_BYTES // (4 * width))
    for start in range(0, len(computed), step):
        now = np.asarray(computed[start : start + step])
        block = before.read(now.nbytes)
        if len(block) != now.nbytes:
            return None
        difference = np.frombuffer(block, np.float32).reshape(now.shape) - now
        with np.errstate(all="ignore"):
            same = np.linalg.norm(difference, axis=1) <= _SAME * np.linalg.norm(now, axis=1)
        if not same.all():
            return None
        rows.update(block)
    return rows


def _done(file: Path) -> int:
    """Return how many rows the JSON beside an array says are done, 0 where it says nothing."""
    try:
        return int(read_record(file.with_suffix(".json"))["done"])
    except UserError:
        return 0


def _is_as_written(file: Path, digest: str) -> bool:
    """Return True where the JSON beside an array names its digest, or is older and names none."""
    try:
        return read_record(file.with_suffix(".json"))["digest"] in ("", digest)
    except UserError:
        return False


def _write_json(file: Path, record: Record, done: int, digest: str) -> None:
    content = {
        "kind": record.kind,
        "model": dict(record.model),
        "data": dict(record.data),
        "done": done,
        "digest": digest,
    }
    content["check"] = _check_of(content)
    write_bytes(file.with_suffix(".json"), (json.dumps(content, indent=1) + "\n").encode())


def _check_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _remove(part: Path) -> None:
    for path in (part, part.with_suffix(".json")):
        path.unlink(missing_ok=True)
