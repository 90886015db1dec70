"""Classes of which every image was skipped: they are taken out before a data set is finished.

Which ones those are is known when the last shard is written, with labels that count them. Shards
are then written again, all of them beside the first ones, and only when that is done do they take
their places; after a kill at any moment the next finish goes on.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from uniface_jax.data.conversion.job import FOLDER, Job, remaining_names, report_file
from uniface_jax.data.conversion.multiset import image_digests
from uniface_jax.data.conversion.shard import ShardReport, read_report, write_report
from uniface_jax.data.formats.tf_example import around, parse, parse_landmarks
from uniface_jax.data.formats.tfrecord_shards import HEADER_BYTES, check_frame, framed
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import replacing, write_bytes
from uniface_jax.files.bounded_json import read_json

_AGAIN = "relabeled"  # the folder of the shards with their new labels
_MARKER = "dropped.json"  # there when all of them are written


def is_relabeling(destination: Path) -> bool:
    """Return True where shards with new labels wait for their places."""
    return (destination / FOLDER / _MARKER).is_file()


def take_places(destination: Path, job: Job) -> list[int]:
    """Move shards with new labels to their places; return the classes that were taken out."""
    if not is_relabeling(destination):
        return []
    dropped = read_json(destination / FOLDER / _MARKER, "remove the folder and convert again")
    if not isinstance(dropped, list) or any(type(label) is not int for label in dropped):
        raise UserError(f"{destination / FOLDER / _MARKER}: not a list of classes; remove it")
    for shard in range(job.num_shards):
        for place in (report_file(destination, shard), job.shard_file(destination, shard)):
            _take_place(destination / FOLDER / _AGAIN / place.name, place)
    return dropped


def _take_place(again: Path, place: Path) -> None:
    """Move a file that is there to its place."""
    if again.exists():
        again.replace(place)


def without_emptied(destination: Path, job: Job) -> tuple[Job, list[int]]:
    """Take out the classes without an image where images were skipped.

    Returns:
        The job with the classes that remain, and those taken out, by their labels in the source.
    """
    dropped = take_places(destination, job)
    if not dropped:
        counts, skipped = np.zeros(job.num_classes, np.int64), 0
        for shard in range(job.num_shards):
            report = read_report(report_file(destination, shard))
            counts += np.bincount(report.labels, minlength=job.num_classes)
            skipped += len(report.skipped)
        dropped = np.flatnonzero(counts == 0).tolist()
        if not skipped or not dropped or len(dropped) == job.num_classes:
            return job, []
        new = renumbered(job.num_classes, dropped)
        for shard in range(job.num_shards):
            _relabel(destination, job, shard, new)
        write_bytes(destination / FOLDER / _MARKER, json.dumps(dropped).encode())
        take_places(destination, job)
    names = remaining_names(job.class_names, job.num_classes, dropped)
    left = job.num_classes - len(dropped)
    return dataclasses.replace(job, num_classes=left, class_names=names), dropped


def renumbered(num_classes: int, dropped: list[int]) -> np.ndarray:
    """Return each class's number among those that remain, -1 of one that does not: int64 [C].

    Example:
        >>> renumbered(4, [1]).tolist()
        [0, -1, 1, 2]
    """
    numbers = np.full(num_classes, -1, np.int64)
    kept = np.delete(np.arange(num_classes), dropped)
    numbers[kept] = np.arange(len(kept))
    return numbers


def _relabel(destination: Path, job: Job, shard: int, numbers: np.ndarray) -> None:
    """Write a shard and its report again, beside them, with the new numbers of its classes."""
    before = read_report(report_file(destination, shard))
    place = job.shard_file(destination, shard)
    again = destination / FOLDER / _AGAIN
    bounds, begins, multiset, sha256 = [0], [], 0, hashlib.sha256()
    with (
        replacing(again / place.name) as temporary,
        temporary.open("wb") as file,
        place.open("rb") as opened,
    ):
        for record, size in enumerate(np.diff(before.bounds).tolist()):
            where = f"{place}: record {record}"
            content = check_frame(opened.read(size), where)
            image, label, name = parse(content)
            landmarks = parse_landmarks(content) if job.landmarks else None
            label = int(numbers[label])
            prefix, suffix = around(len(image), label, name or b"", landmarks)
            frame = framed(b"".join((prefix, image, suffix)))
            begins.append(bounds[-1] + HEADER_BYTES + len(prefix))
            bounds.append(bounds[-1] + len(frame))
            multiset += image_digests(image, label)[1]
            sha256.update(frame)
            file.write(frame)
    after: ShardReport = dataclasses.replace(
        before,
        bounds=np.array(bounds, np.uint64),
        begins=np.array(begins, np.uint64),
        labels=numbers[before.labels].astype(np.int32),
        sha256=sha256.hexdigest(),
        multiset=multiset % (1 << 256),
    )
    write_report(again / report_file(destination, shard).name, after)
