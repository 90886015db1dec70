"""One shard of a conversion: images read in a shuffled order, checked, and written at once.

The report appears first and the shard last, each complete and on disk under its name, so that after
a kill at any moment a shard is finished or it is not there.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.conversion.job import Job
from uniface_jax.data.conversion.multiset import image_digests
from uniface_jax.data.formats import image_headers, images
from uniface_jax.data.formats.landmarks import checked
from uniface_jax.data.formats.tf_example import around
from uniface_jax.data.formats.tfrecord_shards import HEADER_BYTES, framed
from uniface_jax.data.sources.base import Item, Items
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import replacing
from uniface_jax.files.bounded_json import parse_json
from uniface_jax.files.reading import open_regular

TENSORFLOW_FORMATS = ("JPEG", "PNG")  # what both TensorFlow's and TFDS' decoders take
DIGEST_BYTES = 16
_BLOCK_BYTES = 1 << 24  # of images in memory at once, in each worker
_BLOCK_IMAGES = 1 << 14

Tick = Callable[[int], None]


@dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        items: K images in the shard's order.
        positions: int64 [K], where they stand in the source.
        sizes: int64 [K], their bytes at most.
        file: where the shard goes.
        report: where the shard's report goes.
        job: what the shard is a part of.
        source: what messages call the source.
        landmarks: of each image, float32 [K, 5, 2], nan where it has none; None without any.
    """

    items: Items
    positions: np.ndarray
    sizes: np.ndarray
    file: Path
    report: Path
    job: Job
    source: str
    landmarks: np.ndarray | None = None


@dataclass(frozen=True)
class ShardReport:
    """Content of a finished shard: K images of the positions that were not skipped.

    Attributes:
        bounds: uint64 [K + 1], where records begin, and the end.
        begins: uint64 [K], where the encoded images begin.
        labels: int32 [K].
        digests: uint64 [K, 2], of the encoded images.
        sizes: int32 [K, 3], encoded bytes, height, width.
        sha256: of the file.
        multiset: the sum of the images' elements (see multiset.py).
        skipped: index in the source, name and reason of each image left out.
        turned: index in the source, name and EXIF orientation of each image that is not upright.
    """

    bounds: np.ndarray
    begins: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    sizes: np.ndarray
    sha256: str
    multiset: int
    skipped: list[dict[str, Any]]
    turned: list[dict[str, Any]]


def write_shard(task: ShardTask, tick: Tick) -> None:
    """Write the shard and its report; `tick` is told how many images are done.

    Raises:
        UserError: an image cannot be read or does not pass the check, unless those are skipped; the
            message names it.
        OSError: the disk is full.
    """
    bounds, begins, labels, digests, sizes = [0], [], [], [], []
    skipped: list[dict[str, Any]] = []
    turned: list[dict[str, Any]] = []
    sha256, multiset = hashlib.sha256(), 0
    with replacing(task.file) as temporary, temporary.open("wb", buffering=0) as file:
        for block in _blocks(task.sizes):
            frames = []
            for place, item in zip(block, _read(task, block), strict=True):
                try:
                    if isinstance(item, UserError):
                        raise item
                    height, width = _checked(item, task)
                    landmarks = _landmarks(item, task, place)
                except UserError as e:
                    if task.job.on_error == "fail":
                        raise
                    name = "" if isinstance(item, UserError) else item.name
                    index = int(task.positions[place])
                    skipped.append({"index": index, "name": name, "reason": str(e)})
                    continue
                if (orientation := images.orientation(item.image)) != 1:
                    index = int(task.positions[place])
                    turned.append({"index": index, "name": item.name, "orientation": orientation})
                encoded_name = item.name.encode("utf-8", "surrogateescape")
                before, after = around(len(item.image), item.label, encoded_name, landmarks)
                frame = framed(b"".join((before, item.image, after)))
                frames.append(frame)
                begins.append(bounds[-1] + HEADER_BYTES + len(before))
                bounds.append(bounds[-1] + len(frame))
                digest, element = image_digests(item.image, item.label)
                multiset += element
                labels.append(item.label)
                digests.append(digest[:DIGEST_BYTES])
                sizes.append((len(item.image), height, width))
            content = b"".join(frames)
            sha256.update(content)
            _write(file, content)
            tick(len(block))
        report = ShardReport(
            np.array(bounds, np.uint64),
            np.array(begins, np.uint64),
            np.array(labels, np.int32),
            np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2),
            np.array(sizes, np.int32).reshape(-1, 3),
            sha256.hexdigest(),
            multiset % (1 << 256),
            skipped,
            turned,
        )
        write_report(task.report, report)
        tick(0)  # fails when the main process is gone: another one may be at this shard already


def read_report(path: Path) -> ShardReport:
    """Return the report at `path`; UserError when it is missing or malformed."""
    try:
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:
            text = parse_json(file["text"].tobytes())
            return ShardReport(
                file["bounds"],
                file["begins"],
                file["labels"],
                file["digests"],
                file["sizes"],
                str(text["sha256"]),
                int(text["multiset"], 16),
                list(text["skipped"]),
                list(text.get("turned", ())),  # not in a report that 0.2.0 has begun with
            )
    except Exception as e:  # zip, npy and JSON each have their own errors
        raise UserError(f"{path}: not a shard's report ({str(e)[:80]}); remove it") from e


def is_finished(file: Path, report: Path) -> bool:
    """Return True where the shard is there with its report, and as long as that says."""
    try:
        return file.stat().st_size == int(read_report(report).bounds[-1])
    except (OSError, UserError):
        return False


def _blocks(sizes: np.ndarray) -> Iterator[range]:
    """Yield consecutive places of 16 MiB of images together, or one image where it is larger."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _BLOCK_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + _BLOCK_IMAGES)
        yield range(start, stop)
        start = stop


def _read(task: ShardTask, block: range) -> list[Item | UserError]:
    """Return the block's items in their order, read in the source's order: disks prefer that."""
    items: list[Item | UserError] = [UserError("")] * len(block)
    for place in np.argsort(task.positions[block.start : block.stop]).tolist():
        try:
            items[place] = task.items[block.start + place]
        except UserError as e:
            items[place] = e
    return items


def _checked(item: Item, task: ShardTask) -> tuple[int, int]:
    """Return height and width of an image that training will be able to read."""
    where = f"{task.source}: {item.name}"
    if not 0 <= item.label < task.job.num_classes:
        raise UserError(f"{where}: label {item.label}, expected 0..{task.job.num_classes - 1}")
    kind, height, width = image_headers.inspect(item.image, where)
    if kind not in TENSORFLOW_FORMATS:
        raise UserError(
            f"{where}: {kind}, but TFRecord data sets hold JPEG or PNG, since TensorFlow reads "
            "no other; python -m uniface_jax.align writes PNG"
        )
    if task.job.check == "decode":
        images.check(item.image, where)
    return height, width


def _landmarks(item: Item, task: ShardTask, place: int) -> np.ndarray | None:
    """Return the landmarks of an image, None in a data set without; UserError where it has none."""
    if task.landmarks is None:
        return None
    where, points = f"{task.source}: {item.name}", task.landmarks[place]
    if np.isnan(points).all():
        raise UserError(f"{where}: no landmarks")
    return checked(points, where)


def _write(file: Any, content: bytes) -> None:
    """Write all of `content`, whatever part of it one call takes."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def write_report(path: Path, report: ShardReport) -> None:
    """Write a report to `path`, atomically."""
    text = json.dumps(
        {
            "sha256": report.sha256,
            "multiset": f"{report.multiset:x}",
            "skipped": report.skipped,
            "turned": report.turned,
        }
    )
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            bounds=report.bounds,
            begins=report.begins,
            labels=report.labels,
            digests=report.digests,
            sizes=report.sizes,
            text=np.frombuffer(text.encode(), np.uint8),
        )
