"""Last step of a conversion: finished shards become a data set.

Metadata, indices, manifest and statistics are made of the shards' reports; dataset_info.json comes
last, so that a folder without it is never taken for a data set.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from uniface_jax.data.conversion.emptied import take_places, without_emptied
from uniface_jax.data.conversion.job import FOLDER, Job, read_job, report_file
from uniface_jax.data.conversion.manifest import Manifest, write_manifest
from uniface_jax.data.conversion.shard import ShardReport, is_finished, read_report
from uniface_jax.data.conversion.statistics import STATISTICS_FILE, Collector, write_statistics
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE, image_rows, write_image_index
from uniface_jax.data.formats.seal import file_digest
from uniface_jax.data.formats.tfds_metadata import Metadata, metadata_files
from uniface_jax.data.formats.tfrecord_info import INFO_FILE, SPLIT, DatasetInfo, read_dataset_info
from uniface_jax.data.formats.tfrecord_shards import INDEX_FILE, write_index
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes

METADATA_PREFIX = ".metadata."  # of the folders that version 0.1.0 wrote metadata in
_MAX_NAMED_SHARDS = 10
_MODULUS = 1 << 256


def finish(destination: Path) -> DatasetInfo:
    """Make the finished shards in `destination` a data set, and return what it says of itself.

    Does nothing where the data set is complete.

    Raises:
        UserError: no conversion was begun there, shards are missing, which the message names, or
            every image was skipped.
    """
    if (destination / INFO_FILE).exists():
        clean(destination)
        return read_dataset_info(destination)
    job = read_job(destination)
    if job is None:
        raise UserError(f"{destination}: no conversion was begun here; run convert SOURCE DEST")
    take_places(destination, job)
    files = [job.shard_file(destination, shard) for shard in range(job.num_shards)]
    missing = [
        file.name
        for shard, file in enumerate(files)
        if not is_finished(file, report_file(destination, shard))
    ]
    if missing:
        raise UserError(
            f"{destination}: {len(missing)} of {len(files)} shards are missing: "
            f"{', '.join(missing[:_MAX_NAMED_SHARDS])}"
            f"{', …' if len(missing) > _MAX_NAMED_SHARDS else ''}"
        )

    def reports() -> Iterator[ShardReport]:
        return (read_report(report_file(destination, shard)) for shard in range(len(files)))

    remaining, dropped = without_emptied(destination, job)
    manifest, shapes = _manifest(remaining, files, reports())
    if not manifest.images:
        raise UserError(
            f"{destination}: all {job.images} images were skipped; the first: "
            f"{manifest.skipped[0]['reason']}"
        )
    write_index(destination, [report.bounds for report in reports()])
    write_image_index(
        destination, [image_rows(r.begins, r.sizes[:, 0], r.labels) for r in reports()]
    )
    write_statistics(
        destination, Collector(remaining.num_classes, manifest.images).collect(reports)
    )
    shape = (*shapes.pop(), 3) if len(shapes) == 1 else (None, None, 3)
    _write_descriptions(
        destination, remaining, dataclasses.replace(manifest, dropped=dropped), shape
    )
    clean(destination)
    return read_dataset_info(destination)


def _write_descriptions(
    destination: Path, job: Job, manifest: Manifest, image_shape: Sequence[int | None]
) -> None:
    """Write metadata and manifest, which states the digests of all that stands beside the shards.

    dataset_info.json is the last.
    """
    described = metadata_files(
        Metadata(
            name=job.name,
            split=SPLIT,
            image_shape=image_shape,
            num_classes=job.num_classes,
            class_names=job.class_names,
            shard_counts=[shard["images"] for shard in manifest.shards],
            num_bytes=sum(shard["bytes"] for shard in manifest.shards),
            description=job.description,
            landmarks=job.landmarks,
        )
    )
    files = {name: hashlib.sha256(content).hexdigest() for name, content in described.items()}
    for name in (INDEX_FILE, IMAGE_INDEX_FILE, STATISTICS_FILE):
        files[name] = file_digest(destination / name)
    info = described.pop(INFO_FILE)
    for name, content in described.items():
        write_bytes(destination / name, content)
    write_manifest(destination, dataclasses.replace(manifest, files=files))
    write_bytes(destination / INFO_FILE, info)


def clean(destination: Path) -> None:
    """Remove what a complete data set does not need, and what a killed finish has left behind."""
    shutil.rmtree(destination / FOLDER, ignore_errors=True)
    for left in (*destination.glob(".*.tmp"), *destination.glob(f"{METADATA_PREFIX}*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _manifest(
    job: Job, files: list[Path], reports: Iterator[ShardReport]
) -> tuple[Manifest, set[tuple[int, int]]]:
    """Return the manifest, and the images' different heights and widths (two at most are kept)."""
    shards: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    turned: list[dict[str, Any]] = []
    multiset = 0
    shapes: set[tuple[int, int]] = set()
    for file, report in zip(files, reports, strict=True):
        shards.append(
            {
                "file": file.name,
                "images": len(report.labels),
                "bytes": int(report.bounds[-1]),
                "sha256": report.sha256,
            }
        )
        skipped += report.skipped
        turned += report.turned
        multiset += report.multiset
        if len(shapes) < 2 and len(report.labels):
            sizes = report.sizes[:, 1:]
            different = sizes[(sizes != sizes[0]).any(1)]
            shapes |= {(int(h), int(w)) for h, w in (sizes[0], *different[:1])}
    for entries in (skipped, turned):
        entries.sort(key=lambda entry: entry["index"])
    names = "\n".join(job.class_names or ())
    return Manifest(
        name=job.name,
        source=Path(job.source).name,
        description=job.description,
        fingerprint=job.fingerprint,
        seed=job.seed,
        shard_size=job.shard_size,
        check=job.check,
        on_error=job.on_error,
        source_images=job.images,
        images=sum(shard["images"] for shard in shards),
        classes=job.num_classes,
        class_names_sha256=hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
        multiset_sha256=f"{multiset % _MODULUS:064x}",
        shards=shards,
        skipped=skipped,
        turned=turned,
    ), shapes
