"""Any source, converted into a TFRecord data set: in parallel, in a seeded order, resumable.

The work is fixed by a job (job.py) and split into shards (shard.py) that any process on any
machine may write; the last step (finish.py) makes them a data set. The bytes of the result depend
on the source, the seed, the shards' size and the checks alone.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.data.conversion import job as jobs
from uniface_jax.data.conversion import workers as pool
from uniface_jax.data.conversion.emptied import is_relabeling
from uniface_jax.data.conversion.finish import clean, finish
from uniface_jax.data.conversion.job import ConversionSettings, Job, create_job
from uniface_jax.data.conversion.manifest import read_manifest
from uniface_jax.data.conversion.shard import ShardTask, is_finished, write_shard
from uniface_jax.data.formats.landmarks import POINTS
from uniface_jax.data.formats.seal import MANIFEST_FILE
from uniface_jax.data.formats.tfrecord_info import INFO_FILE, SPLIT, DatasetInfo, read_dataset_info
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError
from uniface_jax.files.writing import open_again

_SMALL_IMAGES = 2000  # images that are converted faster than processes start
_SAMPLED_IMAGES = 100_000  # images whose sizes are looked up for the space on disk
_RECORD_BYTES = 160  # of a record beyond image and name, with its places in index and report
_SPARE_BYTES = 1 << 24  # metadata, statistics and plot


def convert(
    source: Source,
    destination: Path | str,
    settings: ConversionSettings,
    *,
    part: tuple[int, int] = (0, 1),
    workers: int | None = None,
) -> DatasetInfo | None:
    """Write `source` to the folder `destination` as a data set with one split, train.

    Shards that an earlier run of the same job has finished are kept.

    Args:
        source: what to convert; every image is read once, those of sources that cannot tell sizes
            and fingerprint otherwise, more often.
        destination: the folder of the data set.
        settings: name, seed, size of a shard, checks.
        part: (i, n) writes every n-th shard from the i-th on and leaves the rest to finish().
        workers: processes, None is one a core; a small source is converted in this process.

    Returns:
        What the data set says of itself, None where only a part was written.

    Raises:
        UserError: `destination` holds another data set or the beginning of another job or is being
            written by another process, the disk is too small or becomes full, or an image cannot be
            used, which the message names.

    Example:
        >>> import tempfile
        >>> from uniface_jax.data.sources.synthetic import SyntheticSource
        >>> source = SyntheticSource(num_classes=3, num_images=9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     info = convert(source, folder, ConversionSettings("nine", shard_size=4))
        >>> info.num_examples, info.num_classes, len(info.shards)
        (9, 3, 3)
    """
    destination = Path(destination)
    index, count = _checked_part(part)
    wanted = create_job(source, settings)
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{destination}: a file; expected a folder, or nothing")
    if (destination / INFO_FILE).exists():
        _check_is_complete(destination, wanted)
        return read_dataset_info(destination)
    with _disk_errors(destination), _locked(destination, part):
        _begin(destination, wanted)
        shards = range(index, wanted.num_shards, count)
        if is_relabeling(destination):  # which begins when every shard is written
            return finish(destination)
        _remove_temporary(destination, wanted, shards)
        try:
            _write(source, destination, wanted, shards, workers)
        finally:
            _remove_temporary(destination, wanted, shards)
        return finish(destination) if count == 1 else None


def _checked_part(part: tuple[int, int]) -> tuple[int, int]:
    """Return index and count of a part; UserError where there is no such part."""
    index, count = part
    if not 0 <= index < count:
        raise UserError(f"shard {index}/{count}: expected i/n with i from 0 to n-1")
    return index, count


def _check_is_complete(destination: Path, wanted: Job) -> None:
    """Raise UserError unless the data set in `destination` is what `wanted` would write."""
    what = "already holds a data set"
    if not (destination / MANIFEST_FILE).exists():
        raise UserError(f"{destination}: {what}; remove it first")
    manifest = read_manifest(destination)
    for key, before in manifest.settings().items():
        now = getattr(wanted, key)
        if before != now:
            raise UserError(
                f"{destination}: {what} of {key} {before!r}, not {now!r}; remove it first"
            )
    clean(destination)


def _begin(destination: Path, wanted: Job) -> None:
    """Write the job, or compare it with the one of an earlier run."""
    begun = jobs.read_job(destination)
    different = begun and jobs.difference(begun, wanted)
    if begun and different:
        if any(begun.shard_file(destination, shard).exists() for shard in range(begun.num_shards)):
            raise UserError(
                f"{destination}: holds the beginning of another conversion: {different}; finish "
                "that one, or remove the folder"
            )
        shutil.rmtree(destination / jobs.FOLDER, ignore_errors=True)
    if begun is None or different:
        jobs.write_job(destination, wanted)


def _write(source: Source, destination: Path, job: Job, shards: range, workers: int | None) -> None:
    """Write those of the shards that are not there yet."""
    files = {shard: job.shard_file(destination, shard) for shard in shards}
    missing = [
        shard
        for shard, file in files.items()
        if not is_finished(file, jobs.report_file(destination, shard))
    ]
    if not missing:
        return
    order = job.order()
    todo = sum(len(job.positions(order, shard)) for shard in missing)
    total = sum(len(job.positions(order, shard)) for shard in shards)
    _check_space(source, destination, todo)
    if workers is None:
        workers = 1 if todo <= _SMALL_IMAGES else pool.cores()

    def tasks() -> Iterator[ShardTask]:
        for shard in missing:
            positions = job.positions(order, shard)
            yield ShardTask(
                source.part(positions),
                positions,
                source.sizes(positions),
                files[shard],
                jobs.report_file(destination, shard),
                job,
                source.name,
                _landmarks(source, positions, job) if job.landmarks else None,
            )

    progress = tqdm(
        total=total,
        initial=total - todo,
        unit=" images",
        desc="convert",
        disable=not sys.stderr.isatty(),
    )
    with progress:
        for _ in pool.run(write_shard, tasks(), min(workers, len(missing)), pool.ticking(progress)):
            pass


def _landmarks(source: Source, positions: np.ndarray, job: Job) -> np.ndarray:
    """Return the landmarks of a shard's images, nan where one has none and those are skipped."""
    try:
        return source.landmarks(positions)
    except UserError:
        if job.on_error == "fail":
            raise
    found = np.full((len(positions), POINTS, 2), np.nan, np.float32)
    for place in range(len(positions)):
        with contextlib.suppress(UserError):
            found[place] = source.landmarks(positions[place : place + 1])[0]
    return found


def _check_space(source: Source, destination: Path, images: int) -> None:
    """Raise UserError when the images still to be written will not fit on the disk."""
    sample = np.linspace(0, len(source) - 1, min(len(source), _SAMPLED_IMAGES)).astype(np.int64)
    needed = int((source.sizes(sample).mean() + _RECORD_BYTES) * images) + _SPARE_BYTES
    free = shutil.disk_usage(destination).free
    if free < needed:
        raise UserError(
            f"{destination}: {free / 2**20:.0f} MiB free, about {needed / 2**20:.0f} MiB are "
            f"needed for {images} images; nothing was written"
        )


def _remove_temporary(destination: Path, job: Job, shards: range) -> None:
    """Remove what a killed run has left half-written, of these shards alone."""
    for file in destination.glob(f".{job.name}-*.tmp"):
        number = re.match(rf"\.{job.name}-{SPLIT}\.tfrecord-(\d+)-of-", file.name)
        if number and int(number[1]) in shards:
            file.unlink(missing_ok=True)
    for file in (destination / jobs.FOLDER).glob(".shard-*.tmp"):
        number = re.match(r"\.shard-(\d+)\.npz\.", file.name)
        if number and int(number[1]) in shards:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(destination: Path, part: tuple[int, int]) -> Iterator[None]:
    """Keep a second process from the same part of the same work while this one is at it."""
    folder = destination / jobs.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_again(folder / f"lock-{part[0]}-of-{part[1]}"), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(f"{destination}: another process is converting into it") from e
        except OSError as e:
            if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise  # some network file systems have no locks: the bytes are the same anyway
        yield


@contextlib.contextmanager
def _disk_errors(destination: Path) -> Iterator[None]:
    """Raise UserError for the errors of a full or read-only disk."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{destination}: the disk is full; finished shards are kept: make room and run the "
                "same command again"
            ) from e
        raise UserError(f"{e.filename or destination}: cannot be written ({e.strerror})") from e


def write_dataset(
    source: Source,
    destination: Path | str,
    *,
    name: str,
    seed: int = 0,
    shard_size: int | None = None,
    description: str = "",
) -> DatasetInfo:
    """Write `source` to the folder `destination` in this process, with convert's default checks.

    Args and errors are those of convert and ConversionSettings.
    """
    settings = ConversionSettings(name, seed, shard_size, description=description)
    info = convert(source, destination, settings, workers=1)
    assert info is not None
    return info
