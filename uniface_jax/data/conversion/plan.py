"""What a conversion is going to write, fixed before its first byte so that it can be resumed.

DEST/.conversion/ holds plan.json and, beside each finished shard, a report of what is in it. It is
gone when the data set is complete.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.data.formats.tfrecord_info import SPLIT
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json

FOLDER = ".conversion"
PLAN_FILE = "plan.json"
CHECKS = ("structure", "decode")
ON_ERROR = ("fail", "skip")
DEFAULT_SHARD_SIZE, MOST_SHARDS = 20_000, 512
# Where the source lies may differ between machines and runs; what is in it may not.
_FREE = ("source", "description")


@dataclass(frozen=True)
class Plan:
    """A conversion of `images` images of `num_classes` classes into the data set `name`.

    check: "structure" or "decode", what an image must pass. on_error: "fail" or "skip".
    fingerprint: of the source, see items.Source. class_names: C names in label order, or None.
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

    @property
    def num_shards(self) -> int:
        """How many files the data set will have."""
        return -(-self.images // self.shard_size)

    def order(self) -> np.ndarray:
        """The source's positions in the order of the data set: int64 [images]."""
        return np.random.RandomState(self.seed).permutation(self.images)

    def positions(self, order: np.ndarray, shard: int) -> np.ndarray:
        """The part of `order` that goes into `shard`."""
        return order[shard * self.shard_size : (shard + 1) * self.shard_size]

    def shard_file(self, destination: Path, shard: int) -> Path:
        """Where `shard` lies when it is finished."""
        numbers = f"{shard:05d}-of-{self.num_shards:05d}"
        return destination / f"{self.name}-{SPLIT}.tfrecord-{numbers}"


def default_shard_size(images: int) -> int:
    """20,000 images, or as many as keep the data set below 512 files."""
    return max(DEFAULT_SHARD_SIZE, -(-images // MOST_SHARDS))


def report_file(destination: Path, shard: int) -> Path:
    """Where the report of a shard lies until the data set is complete."""
    return destination / FOLDER / f"shard-{shard:05d}.npz"


def write_plan(destination: Path, plan: Plan) -> None:
    """Writes `plan` into `destination`, whose folder is made."""
    content = json.dumps(dataclasses.asdict(plan), indent=1)
    write_bytes(destination / FOLDER / PLAN_FILE, content.encode())


def read_plan(destination: Path) -> Plan | None:
    """The plan in `destination`, None where no conversion was begun; UserError when malformed."""
    file = destination / FOLDER / PLAN_FILE
    if not file.exists():
        return None
    values = read_json(file, "remove it to begin again")
    try:
        plan = Plan(**values)
        for field in dataclasses.fields(Plan):
            value = getattr(plan, field.name)
            if field.name == "class_names":
                valid = value is None or (type(value) is list and len(value) == plan.num_classes)
            else:
                valid = type(value) is field.type
            if not valid:
                raise TypeError(f"{field.name} is a {type(value).__name__}")
    except TypeError as e:
        raise UserError(f"{file}: not a conversion's plan ({str(e)[:80]}); remove it") from e
    if plan.shard_size < 1 or plan.images < 1:
        raise UserError(f"{file}: {plan.images} images in shards of {plan.shard_size}; remove it")
    return plan


def difference(begun: Plan, wanted: Plan) -> str | None:
    """In words what `wanted` asks for and `begun` did not; None where they are the same work."""
    for field in dataclasses.fields(Plan):
        before, now = getattr(begun, field.name), getattr(wanted, field.name)
        if field.name not in _FREE and before != now:
            if field.name in ("fingerprint", "class_names"):
                return "another source, or a source that has changed since"
            return f"{field.name} {before!r}, not {now!r}"
    return None
