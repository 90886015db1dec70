"""Converts a source into a TFRecord data set: in parallel, in a seeded order, resumable.

The work is fixed by a plan (plan.py) and split into shards (shard.py) that any process on any
machine may write; the last step (finish.py) makes them a data set. The bytes of the result depend
on the source, the seed, the shards' size and the checks alone.
"""

import contextlib
import errno
import fcntl
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.data.conversion import plan as plans
from uniface_jax.data.conversion import workers as pool
from uniface_jax.data.conversion.finish import clean, finish
from uniface_jax.data.conversion.manifest import MANIFEST_FILE, read_manifest
from uniface_jax.data.conversion.plan import Plan
from uniface_jax.data.conversion.shard import ShardTask, is_finished, write_shard
from uniface_jax.data.formats.tfrecord_info import INFO_FILE, SPLIT, DatasetInfo, read_dataset_info
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError

_SMALL = 2000  # images that are converted faster than processes start
_SAMPLED = 100_000  # images whose sizes are looked up for the space on disk
_RECORD_BYTES = 160  # of a record beyond image and name, with its places in index and report
_SPARE_BYTES = 1 << 24  # metadata, statistics and plot


def convert(
    source: Source,
    destination: Path | str,
    *,
    name: str,
    seed: int = 0,
    shard_size: int | None = None,
    check: str = "structure",
    on_error: str = "fail",
    part: tuple[int, int] = (0, 1),
    workers: int | None = None,
    description: str = "",
) -> DatasetInfo | None:
    """Writes `source` to the folder `destination` as a data set with one split, train.

    The order is shuffled once by `seed`. shard_size: images in a file, None is 20,000 or what keeps
    the data set below 512 files. check: "structure" is image_headers.inspect, "decode" a full
    decode as well. on_error: "skip" leaves out what cannot be read or checked, and the manifest
    lists it. part: (i, n) writes every n-th shard from the i-th on and leaves the finish to
    finish(). workers: processes, None is one a core; a small source is converted in this process.

    Shards that an earlier run of the same work has finished are kept. Returns what the data set
    says of itself, None where only a part was written. Raises UserError when `name` is not of
    letters, digits and underscores beginning with a letter, when a class has a name that the data
    set's file of them cannot hold, when `destination` holds another data
    set or the beginning of other work or is being written by another process, when the disk is too
    small or becomes full, and, naming the image, when one cannot be used.
    """
    destination = Path(destination)
    index, count = _checked_part(part)
    wanted = _plan(source, name, seed, shard_size, check, on_error, description)
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{destination}: a file; expected a folder, or nothing")
    if (destination / INFO_FILE).exists():
        _check_is_complete(destination, wanted)
        return read_dataset_info(destination)
    with _disk_errors(destination), _locked(destination, part):
        _begin(destination, wanted)
        shards = range(index, wanted.num_shards, count)
        _remove_temporary(destination, wanted, shards)
        try:
            _write(source, destination, wanted, shards, workers)
        finally:
            _remove_temporary(destination, wanted, shards)
        return finish(destination) if count == 1 else None


def _checked_part(part: tuple[int, int]) -> tuple[int, int]:
    index, count = part
    if not 0 <= index < count:
        raise UserError(f"shard {index}/{count}: expected i/n with i from 0 to n-1")
    return index, count


def _plan(
    source: Source,
    name: str,
    seed: int,
    shard_size: int | None,
    check: str,
    on_error: str,
    description: str,
) -> Plan:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"name {name!r}: a data set's name is letters, digits and underscores")
    if shard_size is not None and shard_size < 1:
        raise UserError(f"shard_size {shard_size}: expected 1 or more")
    for key, value, allowed in (
        ("check", check, plans.CHECKS),
        ("on_error", on_error, plans.ON_ERROR),
    ):
        if value not in allowed:
            raise UserError(f"{key} {value!r}: expected one of {', '.join(allowed)}")
    _check_class_names(source)
    return Plan(
        name,
        seed,
        shard_size or plans.default_shard_size(len(source)),
        check,
        on_error,
        len(source),
        source.num_classes,
        source.fingerprint(),
        source.class_names,
        source.name,
        description,
    )


def _check_class_names(source: Source) -> None:
    """Raises UserError naming a class whose name is not what a line of a text file gives back.

    TFDS reads the names without the blanks around them and leaves out those that are then empty.
    """
    seen: dict[str, str] = {}
    for name in source.class_names or ():
        stripped = name.strip()
        other = seen.setdefault(stripped, name)
        if not stripped or other != name or len(name.splitlines()) > 1 or not _is_text(name):
            also = f" beside {other!r:.80}" if other != name else ""
            raise UserError(
                f"{source.name}: a class called {name!r:.80}{also}: a data set keeps the names of "
                "classes as lines of UTF-8 text, without blanks around them; rename it"
            )


def _is_text(name: str) -> bool:
    """False for what os.fsdecode makes of a file's name that is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_is_complete(destination: Path, wanted: Plan) -> None:
    """Raises UserError unless the data set in `destination` is what `wanted` would write."""
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


def _begin(destination: Path, wanted: Plan) -> None:
    """Writes the plan, or compares it with the one of an earlier run."""
    begun = plans.read_plan(destination)
    different = begun and plans.difference(begun, wanted)
    if begun and different:
        if any(begun.shard_file(destination, shard).exists() for shard in range(begun.num_shards)):
            raise UserError(
                f"{destination}: holds the beginning of another conversion: {different}; finish "
                "that one, or remove the folder"
            )
        shutil.rmtree(destination / plans.FOLDER, ignore_errors=True)
    if begun is None or different:
        plans.write_plan(destination, wanted)


def _write(
    source: Source, destination: Path, plan: Plan, shards: range, workers: int | None
) -> None:
    """Writes those of the shards that are not there yet."""
    files = {shard: plan.shard_file(destination, shard) for shard in shards}
    missing = [
        shard
        for shard, file in files.items()
        if not is_finished(file, plans.report_file(destination, shard))
    ]
    if not missing:
        return
    order = plan.order()
    todo = sum(len(plan.positions(order, shard)) for shard in missing)
    total = sum(len(plan.positions(order, shard)) for shard in shards)
    _check_space(source, destination, todo)
    if workers is None:
        workers = 1 if todo <= _SMALL else pool.cores()

    def tasks() -> Iterator[ShardTask]:
        for shard in missing:
            positions = plan.positions(order, shard)
            yield ShardTask(
                source.part(positions),
                positions,
                source.sizes(positions),
                files[shard],
                plans.report_file(destination, shard),
                plan,
                source.name,
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


def _check_space(source: Source, destination: Path, images: int) -> None:
    """Raises UserError when the images still to be written will not fit on the disk."""
    sample = np.linspace(0, len(source) - 1, min(len(source), _SAMPLED)).astype(np.int64)
    needed = int((source.sizes(sample).mean() + _RECORD_BYTES) * images) + _SPARE_BYTES
    free = shutil.disk_usage(destination).free
    if free < needed:
        raise UserError(
            f"{destination}: {free / 2**20:.0f} MiB free, about {needed / 2**20:.0f} MiB are "
            f"needed for {images} images; nothing was written"
        )


def _remove_temporary(destination: Path, plan: Plan, shards: range) -> None:
    """Removes what a killed run has left half-written, of these shards alone."""
    for file in destination.glob(f".{plan.name}-*.tmp"):
        number = re.match(rf"\.{plan.name}-{SPLIT}\.tfrecord-(\d+)-of-", file.name)
        if number and int(number[1]) in shards:
            file.unlink(missing_ok=True)
    for file in (destination / plans.FOLDER).glob(".shard-*.tmp"):
        number = re.match(r"\.shard-(\d+)\.npz\.", file.name)
        if number and int(number[1]) in shards:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(destination: Path, part: tuple[int, int]) -> Iterator[None]:
    """Keeps a second process from the same part of the same work while this one is at it."""
    folder = destination / plans.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"lock-{part[0]}-of-{part[1]}").open("w") as file:
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
    """Writes `source` to the folder `destination` as a data set with one split, train.

    conversion.run.convert with its checks, in this process; returns what the data set says of
    itself and raises UserError as it does.
    """
    info = convert(
        source,
        destination,
        name=name,
        seed=seed,
        shard_size=shard_size,
        workers=1,
        description=description,
    )
    assert info is not None
    return info
