"""Proof that a data set holds what its source holds: the same multiset of (label, bytes).

Both are read again from the first byte to the last; no result of the conversion is believed.
"""

import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.data.conversion import workers as pool
from uniface_jax.data.conversion.emptied import renumbered
from uniface_jax.data.conversion.job import remaining_names, stored_names
from uniface_jax.data.conversion.manifest import Manifest, read_manifest
from uniface_jax.data.conversion.multiset import Multiset, image_digests
from uniface_jax.data.conversion.shard import Tick
from uniface_jax.data.conversion.statistics import PLOT_FILE
from uniface_jax.data.formats import image_headers
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE, read_image_index
from uniface_jax.data.formats.seal import check_file
from uniface_jax.data.formats.tf_example import parse
from uniface_jax.data.formats.tfrecord_info import DatasetInfo, read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import (
    INDEX_FILE,
    check_frame,
    record_bounds,
    walk_shard,
)
from uniface_jax.data.sources.base import Items, Source
from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_regular, read_regular

_TASK_IMAGES = 20_000  # images of the source in a task
_TICK_IMAGES = 1000
_MAX_NAMED_IMAGES = 10
_MAX_EXPLAINED_BUCKETS = 8
_INDICES = (INDEX_FILE, IMAGE_INDEX_FILE)


@dataclass(frozen=True)
class Verification:
    """A proof: `images` are the same on both sides, `skipped` are in the source alone."""

    images: int
    skipped: int
    multiset_sha256: str


@dataclass(frozen=True)
class _Task:
    """Items of the source, or (items is None) a shard: file, record bounds, classes, SHA-256.

    rows: what the index of the images says of the shard, or None where there is none. names_of: the
    buckets of which element and name of each image are wanted; None is the multiset. numbers: of
    the source's classes in the data set.
    """

    items: Items | None
    file: Path | None = None
    bounds: np.ndarray | None = None
    num_classes: int = 0
    sha256: str = ""
    rows: np.ndarray | None = None
    names_of: frozenset[int] | None = None
    numbers: np.ndarray | None = None


def verify(source: Source, destination: Path, workers: int | None = None) -> Verification:
    """Read `source` and the data set in `destination` whole, and compare them.

    Images that the manifest lists as skipped are left out on the source's side. Of the data set the
    record checksums, the shards' SHA-256, the labels' range, the index of its images and every
    file's SHA-256 are checked as well.

    Args:
        source: what was converted.
        destination: the folder of the data set.
        workers: processes, None is one a core.

    Raises:
        UserError: a shard or record is damaged, or images are only in the source or only in the
            data set; the message names them.
    """
    manifest = read_manifest(destination)
    fault = _changed_file(destination, manifest)  # before reading mends an index
    info = read_dataset_info(destination)
    _check_source(source, info, manifest)
    numbers = renumbered(source.num_classes, manifest.dropped)
    skipped = np.array([entry["index"] for entry in manifest.skipped], np.int64)
    processes = pool.cores() if workers is None else workers
    if workers is None and len(source) <= _TASK_IMAGES:
        processes = 1
    shown = tqdm(
        total=2 * len(source) - len(skipped),
        unit=" images",
        desc="verify",
        disable=not sys.stderr.isatty(),
    )
    with shown:
        of_source, of_result = Multiset(), Multiset()
        for multiset, tasks in (
            (of_result, _shard_tasks(info, manifest)),
            (of_source, _source_tasks(source, skipped, numbers)),
        ):
            for found in pool.run(_read, tasks, processes, pool.ticking(shown)):
                multiset.merge(found)
    differing = of_source.differing(of_result)
    if differing:
        sides = (
            lambda: _source_tasks(source, skipped, numbers),
            lambda: _shard_tasks(info, manifest),
        )
        raise _explained(source, info, sides, differing, processes)
    if fault:
        raise fault
    images, total = of_result.total()
    if f"{total:064x}" != manifest.multiset_sha256:
        raise UserError(f"{destination}: manifest.json states another multiset_sha256")
    return Verification(images, len(skipped), f"{total:064x}")


def _check_source(source: Source, info: DatasetInfo, manifest: Manifest) -> None:
    """Raise UserError unless the data set was made of so many images, classes and names."""
    classes = manifest.source_classes
    if len(source) != manifest.source_images or source.num_classes != classes:
        raise UserError(
            f"{source.name}: {len(source)} images of {source.num_classes} classes; {info.path} "
            f"was made of {manifest.source_images} of {classes}"
        )
    if remaining_names(stored_names(source.class_names), classes, manifest.dropped) != (
        info.class_names
    ):
        raise UserError(f"{info.path}: its class names are not those of {source.name}")


def _changed_file(destination: Path, manifest: Manifest) -> UserError | None:
    """Return the error of a file beside the shards that has changed since it was written."""
    try:
        for name, stated in manifest.files.items():
            if name in _INDICES and not (destination / name).exists():
                continue  # left out, a data set reads slower
            check_file(destination, name, stated)
        plot = destination / PLOT_FILE
        if plot.exists():  # drawn after the manifest; a PNG has checksums of its own
            image_headers.inspect(read_regular(plot), str(plot))
    except UserError as e:
        return e
    return None


def _source_tasks(source: Source, skipped: np.ndarray, numbers: np.ndarray) -> Iterator[_Task]:
    """Yield the source in pieces, without the skipped images, with the classes' new numbers."""
    for start in range(0, len(source), _TASK_IMAGES):
        chunk = np.arange(start, min(start + _TASK_IMAGES, len(source)))
        yield _Task(source.part(chunk[~np.isin(chunk, skipped)]), numbers=numbers)


def _shard_tasks(info: DatasetInfo, manifest: Manifest) -> Iterator[_Task]:
    """Yield the shards of the data set."""
    found = [(file.name, count) for file, count in info.shards]
    stated = [(shard["file"], shard["images"]) for shard in manifest.shards]
    if found != stated:
        raise UserError(f"{info.path}: manifest.json and dataset_info.json list different shards")
    all_bounds = record_bounds(info)
    index, first = read_image_index(info, all_bounds), 0
    for (file, count), bounds, shard in zip(info.shards, all_bounds, manifest.shards, strict=True):
        rows = None if index is None else np.array(index[first : first + count])
        yield _Task(None, file, np.array(bounds), info.num_classes, shard["sha256"], rows)
        first += count


def _read(task: _Task, tick: Tick) -> Multiset | list[tuple[bytes, str]]:
    """Return the multiset of a task's images; or digest and name of those of the wanted bucket."""
    multiset, listed, done = Multiset(), [], 0
    for image, label, name in _of_shard(task) if task.items is None else _of_source(task):
        if task.names_of is None:
            multiset.add(image, label)
        else:
            digest, element = image_digests(image, label)
            if digest[0] in task.names_of:
                listed.append((element.to_bytes(32, "little"), name))
        done += 1
        if done % _TICK_IMAGES == 0:
            tick(_TICK_IMAGES)
    tick(done % _TICK_IMAGES)
    return multiset if task.names_of is None else listed


def _of_source(task: _Task) -> Iterator[tuple[bytes, int, str]]:
    """Yield (image, label, name) of the source's items."""
    assert task.items is not None
    assert task.numbers is not None
    for index in range(len(task.items)):
        image, label, name = task.items[index]
        known = 0 <= label < len(task.numbers)
        yield image, int(task.numbers[label]) if known else label, name


def _of_shard(task: _Task) -> Iterator[tuple[bytes, int, str]]:
    """Yield (image, label, name) of a shard's records; UserError where one is wrong."""
    assert task.file is not None
    assert task.bounds is not None
    sha256 = hashlib.sha256()
    try:
        if not np.array_equal(walk_shard(task.file, len(task.bounds) - 1), task.bounds):
            raise UserError(
                f"{task.file}: {INDEX_FILE} has other places for its records; without that file "
                "the data set is whole"
            )
        with open_regular(task.file) as file:
            for record, size in enumerate(np.diff(task.bounds).tolist()):
                frame = file.read(size)
                sha256.update(frame)
                where = f"{task.file}: record {record}"
                try:
                    image, label, name = parse(check_frame(frame, where))
                except UserError:
                    raise
                except ValueError as e:
                    raise UserError(f"{where}: {e}") from e
                if not 0 <= label < task.num_classes:
                    raise UserError(f"{where}: label {label}, expected 0..{task.num_classes - 1}")
                if task.rows is not None:
                    begin, length, indexed = task.rows[record].item()
                    begin -= int(task.bounds[record])
                    if indexed != label or frame[begin : begin + length] != image:
                        raise UserError(
                            f"{where}: {IMAGE_INDEX_FILE} has another image or label for it; "
                            "without that file the data set is whole"
                        )
                yield image, label, (name or b"").decode("utf-8", "replace")
    except OSError as e:
        raise UserError(f"{task.file}: cannot be read ({e.strerror})") from e
    if sha256.hexdigest() != task.sha256:
        raise UserError(f"{task.file}: its SHA-256 is not the one in manifest.json")


def _explained(
    source: Source,
    info: DatasetInfo,
    tasks_of: tuple[Callable[[], Iterator[_Task]], Callable[[], Iterator[_Task]]],
    differing: list[int],
    workers: int,
) -> UserError:
    """Read both again to name images of the differing buckets that are on one side only."""
    looked_into = frozenset(differing[:_MAX_EXPLAINED_BUCKETS])  # the images of these fit in memory
    sides: list[Counter[bytes]] = []
    names: dict[bytes, str] = {}
    for tasks in tasks_of:
        wanted = (dataclasses.replace(task, names_of=looked_into) for task in tasks())
        side: Counter[bytes] = Counter()
        for listed in pool.run(_read, wanted, workers, lambda _: None):
            side.update(element for element, _ in listed)
            names.update(listed)
        sides.append(side)

    def shown(elements: Counter[bytes]) -> str:
        some = sorted({names[element] for element in elements})
        more = ", …" if len(some) > _MAX_NAMED_IMAGES else ""
        return ", ".join(some[:_MAX_NAMED_IMAGES]) + more or "none"

    more = ""
    if len(differing) > len(looked_into):
        more = f" (looked into {len(looked_into)} of {len(differing)} differing parts of 256)"
    return UserError(
        f"{info.path}: not the images of {source.name}{more}: with these bytes and label only in "
        f"the source: {shown(sides[0] - sides[1])}; only in the data set: "
        f"{shown(sides[1] - sides[0])}"
    )
