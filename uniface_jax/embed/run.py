"""Embeds the photographs of a source chunk by chunk, and makes the table when all are there."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.faces.alignment import packaged_detector
from uniface_jax.data.sources.base import Source
from uniface_jax.embed.faces import FaceFinder, Found, FoundFace, Preparation
from uniface_jax.embed.parts import LeftOut, Parts
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.reading import open_regular, read_regular
from uniface_jax.inference.extract import check_features
from uniface_jax.inference.feature_files import QUALITY, files_of, write_features, write_pairs
from uniface_jax.inference.feature_rows import FeatureRows
from uniface_jax.inference.model import Model
from uniface_jax.inference.scale_probe import some_of

CHUNK_BATCHES = 16  # so that the padding of a chunk's last batch is little of it
_AHEAD_BATCHES = 2  # of photographs that are decoded while batches are computed
_BATCHES_AT_WORK = 2  # one is laid out for the network while it computes the other
_FORMAT = 1
Say = Callable[..., None]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """All that a table depends on, and where it goes."""

    model: Model
    source: Source
    how: Preparation
    batch_size: int
    output: Path

    @property
    def chunk(self) -> int:
        """Return the photographs of a part."""
        return self.batch_size * CHUNK_BATCHES

    def record(self) -> dict[str, Any]:
        """Return what the table is of. The same record stands for the same bytes."""
        how = asdict(self.how)
        del how["skip"]  # changes no part in which nothing is skipped
        if self.how.align:
            file = Path(self.how.detector) if self.how.detector else packaged_detector()
            how["detector"] = hashlib.sha256(read_regular(file)).hexdigest()
        quality = self.model.quality
        return {
            **({} if quality is None else {QUALITY: quality.digest}),
            "format": _FORMAT,
            "model": {
                "name": self.model.name,
                "sha256": self.model.hash,
                "description": self.model.description,
            },
            "data": {
                "name": self.source.name,
                "fingerprint": self.source.fingerprint(),
                "photographs": len(self.source),
            },
            "faces": how,
            "batch_size": self.batch_size,
        }


def settled(model: Model, source: Source, how: Preparation) -> Model:
    """Return the model as it fits the source's faces, of which some are looked at if need be."""
    if model.settle is None:
        return model
    found = map(FaceFinder(source, how), some_of(len(source)))
    faces = [face.inputs[0] for each in found for face in each.faces[:1]]
    if not faces:
        raise UserError(f"{source.name}: no face in {len(some_of(len(source)))} photographs of it")
    return model.settled(np.stack(faces))


def sidecar_of(output: Path) -> Path:
    """Return the JSON beside a table, which says what it is of and its files' digests."""
    return output.with_name(f"{output.name}.json")


def left_out_of(output: Path) -> Path:
    """Return the CSV beside a table of the photographs that gave no row, with the reason."""
    return output.with_name(f"{output.name}.left_out.csv")


def finished(output: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the sidecar says of a whole table of this record; None where there is none."""
    if not sidecar_of(output).is_file():
        return None
    try:
        found: dict[str, Any] = read_json(sidecar_of(output), "embed writes it")
        if found["record"] != record or found["files"] != _digests(output):
            return None
    except (UserError, OSError, KeyError, TypeError):
        return None
    return found


def embed_source(work: Work, say: Say, advance: Advance) -> dict[str, Any] | None:
    """Compute what no other process does, and make the table where that was all.

    Args:
        work: what to embed.
        say: is told lines for the user.
        advance: is told of photographs that are done.

    Returns:
        The sidecar's content; None where other processes still work on parts: the last of them
        makes the table.

    Raises:
        UserError: names the photograph that cannot be used; no photograph had a face; or the parts'
            folder cannot be used.
    """
    record = work.record()
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    folder = work.output.with_name(f"{work.output.name}.parts")
    if (done := finished(work.output, record)) is not None:
        say(f"{work.output}: these features are there already")
        return done
    count = -(-len(work.source) // work.chunk)
    with Parts(folder, key, count, say) as parts:
        if there := parts.done():
            say(f"{there} of {count} parts are there already; resumed")
            advance(min(there * work.chunk, len(work.source)))
        for chunk, rows, left_out in _computed(work, parts.claimed(), advance):
            parts.write(chunk, rows, left_out)
        if parts.done() < count:
            return finished(work.output, record)
        parts.assembling()
        result = finished(work.output, record) or _assembled(work, parts, record)
        parts.remove()
        return result


def _assembled(work: Work, parts: Parts, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write the table, what was left out, and at last the sidecar, which makes them whole."""
    output, left_out = work.output, LeftOut()
    rows = width = 0
    for chunk in range(parts.count):
        part, without = parts.read(chunk)
        rows += len(part)
        width = max(width, part.features.shape[1])
        left_out += without
    write_pairs(left_out_of(output), ("name", "reason"), left_out)
    if not rows:
        raise UserError(f"{work.source.name}: no face in any photograph; {left_out_of(output)}")
    sidecar_of(output).unlink(missing_ok=True)
    write_features(
        output, lambda: (parts.read(n)[0] for n in range(parts.count)), (rows, width), record
    )
    result = {
        "record": record,
        "rows": rows,
        "width": width,
        "left_out": len(left_out),
        "files": _digests(output),
    }
    write_bytes(sidecar_of(output), (json.dumps(result, indent=1) + "\n").encode())
    return result


def _digests(output: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a table by its name."""
    found = {}
    for path in (*files_of(output), left_out_of(output)):
        with open_regular(path) as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _computed(
    work: Work, chunks: Iterator[int], advance: Advance
) -> Iterator[tuple[int, FeatureRows, LeftOut]]:
    """Yield chunks with their rows and what was left out of them, in the order of `chunks`.

    Batches hold faces of one chunk alone, and the last one of a chunk is padded: what a part holds
    depends on nothing but its photographs.
    """
    with ThreadPoolExecutor(_cores()) as readers, ThreadPoolExecutor(_BATCHES_AT_WORK) as network:
        waiting: deque[tuple[_Chunk, bool]] = deque()
        for chunk, found, is_last in _found(work, chunks, readers):
            if not waiting or waiting[-1][1]:
                waiting.append((_Chunk(work, chunk, network), False))
            waiting[-1][0].add(found)
            advance(1)
            if is_last:
                waiting[-1] = (waiting[-1][0].closed(), True)
            while len(waiting) > 1 and waiting[0][1]:
                yield waiting.popleft()[0].result()
        for each, _ in waiting:
            yield each.result()


def _found(
    work: Work, chunks: Iterator[int], readers: ThreadPoolExecutor
) -> Iterator[tuple[int, Found, bool]]:
    """Yield (chunk, a photograph's faces, whether it is the chunk's last) in order, read ahead."""
    find, ahead = FaceFinder(work.source, work.how), deque[tuple[int, Future[Found], bool]]()
    for chunk in chunks:
        stop = min((chunk + 1) * work.chunk, len(work.source))
        for index in range(chunk * work.chunk, stop):
            ahead.append((chunk, readers.submit(find, index), index == stop - 1))
            if len(ahead) > _AHEAD_BATCHES * work.batch_size:
                number, found, is_last = ahead.popleft()
                yield number, found.result(), is_last
    while ahead:
        number, found, is_last = ahead.popleft()
        yield number, found.result(), is_last


class _Chunk:
    """Faces of a chunk on their way through the network, a batch at a time."""

    def __init__(self, work: Work, number: int, network: ThreadPoolExecutor) -> None:
        self._work, self._number, self._network = work, number, network
        self._rows: list[tuple[str, str | None, int, FoundFace]] = []
        self._photographs: list[int] = []
        self._left_out, self._count = LeftOut(), 0
        self._inputs: list[tuple[np.ndarray, ...]] = []  # of the batch that is not full yet
        self._features: list[Future[np.ndarray]] = []

    def add(self, found: Found) -> None:
        """Take the chunk's next photograph."""
        if found.problem:
            self._left_out.append((found.name, found.problem))
        for number, face in enumerate(found.faces):
            self._photographs.append(self._number * self._work.chunk + self._count)
            self._inputs.append(face.inputs)
            kept = face._replace(inputs=())  # pixels only until they are in a batch
            self._rows.append((found.name, found.person, number, kept))
            if len(self._inputs) == self._work.batch_size:
                self._submit()
        self._count += 1

    def closed(self) -> "_Chunk":
        """Begin the last batch, and return the chunk."""
        if self._inputs:
            self._submit()
        return self

    def result(self) -> tuple[int, FeatureRows, LeftOut]:
        """Return the chunk's number, its rows, and what was left out."""
        parts = [each.result() for each in self._features] or [np.zeros((0, 0), np.float32)]
        features = np.concatenate(parts)
        if len(features):
            check_features(features, 0, self._name)
        rows = FeatureRows(
            [name for name, _, _, _ in self._rows],
            np.array(self._photographs, np.int64),
            [person for _, person, _, _ in self._rows],
            np.array([number for _, _, number, _ in self._rows], np.int32),
            np.array([face.box for *_, face in self._rows], np.float32).reshape(-1, 4),
            np.array([face.score for *_, face in self._rows], np.float32),
            features,
            self._qualities(features),
        )
        return self._number, rows, self._left_out

    def _qualities(self, features: np.ndarray) -> np.ndarray | None:
        """Return the qualities of features, float32 [K], none of an empty chunk's; None without."""
        head = self._work.model.quality
        if head is None:
            return None
        return (head(features) if len(features) else np.zeros(0)).astype(np.float32)

    def _name(self, row: int) -> str:
        return f"{self._work.source.name}: {self._rows[row][0]}"

    def _submit(self) -> None:
        # No more than these wait with their pixels.
        if len(self._features) >= _BATCHES_AT_WORK:
            self._features[-_BATCHES_AT_WORK].result()
        inputs, self._inputs = self._inputs, []
        self._features.append(self._network.submit(_embedded, self._work, inputs))


def _embedded(work: Work, inputs: list[tuple[np.ndarray, ...]]) -> np.ndarray:
    """Return the features float32 [K, D] of K faces, of which a batch is padded with zeros."""
    batch = [
        np.zeros((work.batch_size, *np.shape(part)), np.asarray(part).dtype) for part in inputs[0]
    ]
    for row, parts in enumerate(inputs):
        for array, part in zip(batch, parts, strict=True):
            array[row] = part
    return np.asarray(work.model.embed(*batch), np.float32)[: len(inputs)]


def _cores() -> int:
    return len(os.sched_getaffinity(0))
