"""Job of a conversion: what it is going to write, fixed before the first byte.

So a conversion can be resumed, and its parts can run on several machines. DEST/.conversion/ holds
plan.json, the job, and beside each finished shard a report of what is in it. The folder is gone
when the data set is complete.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.tfrecord_info import SPLIT
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.printable import printable

FOLDER = ".conversion"
JOB_FILE = "plan.json"  # its name since before jobs were called so: begun ones can be resumed
CHECKS = ("structure", "decode")
ON_ERROR = ("fail", "skip")
DEFAULT_SHARD_SIZE = 20_000  # images
MAX_SHARDS = 512  # from where the default size of a shard grows
# Where the source lies may differ between machines and runs; what is in it may not.
_UNCOMPARED_KEYS = ("source", "description")


@dataclass(frozen=True)
class ConversionSettings:
    """Settings that decide the bytes of a converted data set, beside its source.

    Attributes:
        name: of the data set: letters, digits and underscores, beginning with a letter.
        seed: of the one shuffle, 0..2^32-1.
        shard_size: images in a file; None is 20,000, or what keeps the data set below 512 files.
        check: what an image must pass; "structure" is image_headers.inspect, "decode" a full decode
            as well.
        on_error: "fail" ends the conversion at an image that cannot be read or checked, "skip"
            leaves it out, and the manifest lists it.
        description: a text for the data set's metadata.

    Raises:
        UserError: a value is not allowed; the message names the key.
    """

    name: str
    seed: int = 0
    shard_size: int | None = None
    check: str = "structure"
    on_error: str = "fail"
    description: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise UserError(
                f"name {self.name!r}: a data set's name is letters, digits and underscores"
            )
        if self.shard_size is not None and self.shard_size < 1:
            raise UserError(f"shard_size {self.shard_size}: expected 1 or more")
        for key, allowed in (("check", CHECKS), ("on_error", ON_ERROR)):
            value = getattr(self, key)
            if value not in allowed:
                raise UserError(f"{key} {value!r}: expected one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Job:
    """A conversion of `images` images of `num_classes` classes into the data set `name`.

    Attributes:
        name, seed, shard_size, check, on_error, description: see ConversionSettings.
        fingerprint: of the source, see sources.base.Source.
        class_names: C names in label order, or None.
        source: what messages call the source.
        landmarks: True where the source has five landmarks of every image, which are kept.
    """

    name: str
    seed: int
    shard_size: int
    check: str
    on_error: str
    images: int
    num_classes: int
    fingerprint: str
    class_names: list[str] | None
    source: str
    description: str
    landmarks: bool = False

    @property
    def num_shards(self) -> int:
        """Return the number of files that the data set will have."""
        return -(-self.images // self.shard_size)

    def order(self) -> np.ndarray:
        """Return the source's positions in the order of the data set: int64 [images]."""
        return np.random.RandomState(self.seed).permutation(self.images)

    def positions(self, order: np.ndarray, shard: int) -> np.ndarray:
        """Return the part of `order` that goes into `shard`."""
        return order[shard * self.shard_size : (shard + 1) * self.shard_size]

    def shard_file(self, destination: Path, shard: int) -> Path:
        """Return where `shard` lies when it is finished."""
        numbers = f"{shard:05d}-of-{self.num_shards:05d}"
        return destination / f"{self.name}-{SPLIT}.tfrecord-{numbers}"


def create_job(source: Source, settings: ConversionSettings) -> Job:
    """Return the job of converting `source`."""
    return Job(
        name=settings.name,
        seed=settings.seed,
        shard_size=settings.shard_size or default_shard_size(len(source)),
        check=settings.check,
        on_error=settings.on_error,
        images=len(source),
        num_classes=source.num_classes,
        fingerprint=source.fingerprint(),
        class_names=stored_names(source.class_names),
        source=source.name,
        description=settings.description,
        landmarks=getattr(source, "has_landmarks", False),  # a source need be no subclass
    )


def default_shard_size(images: int) -> int:
    """Return 20,000 images, or as many as keep the data set below 512 files."""
    return max(DEFAULT_SHARD_SIZE, -(-images // MAX_SHARDS))


def report_file(destination: Path, shard: int) -> Path:
    """Return where the report of a shard lies until the data set is complete."""
    return destination / FOLDER / f"shard-{shard:05d}.npz"


def write_job(destination: Path, job: Job) -> None:
    """Write `job` into `destination`, whose folder is made."""
    content = json.dumps(dataclasses.asdict(job), indent=1)
    write_bytes(destination / FOLDER / JOB_FILE, content.encode())


def read_job(destination: Path) -> Job | None:
    """Return the job begun in `destination`, None where there is none.

    Raises:
        UserError: the file is not one that write_job has written.
    """
    file = destination / FOLDER / JOB_FILE
    if not file.exists():
        return None
    values = read_json(file, "remove it to begin again")
    try:
        job = Job(**values)
        for field in dataclasses.fields(Job):
            value = getattr(job, field.name)
            if field.name == "class_names":
                valid = value is None or (type(value) is list and len(value) == job.num_classes)
            else:
                valid = type(value) is field.type
            if not valid:
                raise TypeError(f"{field.name} is a {type(value).__name__}")
    except TypeError as e:
        raise UserError(f"{file}: not the job of a conversion ({str(e)[:80]}); remove it") from e
    if job.shard_size < 1 or job.images < 1:
        raise UserError(f"{file}: {job.images} images in shards of {job.shard_size}; remove it")
    return job


def difference(begun: Job, wanted: Job) -> str | None:
    """Return in words what `wanted` asks for and `begun` did not; None for the same work."""
    for field in dataclasses.fields(Job):
        before, now = getattr(begun, field.name), getattr(wanted, field.name)
        if field.name not in _UNCOMPARED_KEYS and before != now:
            if field.name in ("fingerprint", "class_names"):
                return "another source, or a source that has changed since"
            return f"{field.name} {before!r}, not {now!r}"
    return None


def stored_names(names: Sequence[str] | None) -> list[str] | None:
    r"""Return the names of classes as a data set keeps them, or None.

    They are lines of UTF-8 text, which TFDS reads without the blanks around them and leaves out
    where they are then empty: what is no such line is escaped, and of equal ones the later have
    their number behind them.

    Example:
        >>> print(*stored_names(["ann", " ann", "a\nb", "Zo\udceb"]))
        ann ann-1 a\nb Zo\xeb
    """
    if names is None:
        return None
    stored: list[str] = []
    seen = set(names)
    for label, name in enumerate(names):
        line = "".join(printable(name).splitlines()).strip() or "_"
        while line != name and line in seen:
            line = f"{line}-{label}"
        seen.add(line)
        stored.append(line)
    return stored


def remaining_names(
    names: Sequence[str] | None, num_classes: int, dropped: Sequence[int]
) -> list[str] | None:
    """Return the names of classes without those taken out: numbers where they had none.

    Example:
        >>> remaining_names(None, 4, [1])
        ['0', '2', '3']
    """
    if not dropped:
        return None if names is None else list(names)
    out = set(dropped)
    kept = (label for label in range(num_classes) if label not in out)
    return [str(label) if names is None else names[label] for label in kept]
