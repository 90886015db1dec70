"""The configuration: every key with its default, what is allowed, and the checks before any work.

A recipe in configs/ takes `base()` and changes what it needs. Keys and types are fixed by base();
ranges are checked by `check`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from uniface_jax import losses, models
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.runtime.profiling import parse_range


def base() -> ConfigDict:
    """The release's CASIA recipe without its data set; None means "as the named thing has it"."""
    config = ConfigDict()
    config.seed = 0  # of initialisation, shuffling, augmentation, dropout and class sampling

    config.data = ConfigDict()
    config.data.train = ""  # what convert wrote, any source it reads, or synthetic:CLASSES:IMAGES
    config.data.threads = 2  # that decode and augment
    config.data.decoders = "auto"  # or "threads", or "processes", one a thread
    config.data.augment = ConfigDict()  # see data.augment.Augment
    config.data.augment.flip = True  # mirror half of the images
    config.data.augment.downscale = 0.0  # probability; insightface's 0.1
    config.data.augment.blur = 0.0  # probability; insightface's 0.2
    config.data.augment.colour = 0.0  # probability of hue and saturation; insightface's 0.2
    config.data.augment.grey = 0.0  # probability; insightface's 0.1
    config.data.augment.crop = 0.0  # at most this share of the side cut off
    config.data.augment.rotate = 0.0  # at most so many degrees
    config.data.augment.translate = 0.0  # at most so many pixels
    config.data.augment.scale = 0.0  # at most this fraction larger or smaller
    config.data.augment.brightness = 0.0  # at most this fraction of the range, added
    config.data.augment.contrast = 0.0  # at most this fraction more or less
    config.data.augment.erase = 0.0  # probability of a rectangle

    config.model = ConfigDict()
    config.model.name = "lresnet50"  # of models.NETWORKS
    config.model.stage_sizes = placeholder(tuple)  # blocks a stage
    config.model.width = 64  # channels of the stem; stage k has width * 2**k
    config.model.embedding_size = 512
    config.model.stem_stride = 1
    config.model.dropout = placeholder(float)
    config.model.dtype = "float32"  # of the computation; parameters stay float32
    config.model.remat = False  # recompute blocks in the backward pass: less memory, more time
    config.model.bn_momentum = 0.1  # weight of new statistics in the running ones

    config.loss = ConfigDict()
    config.loss.name = "uce"  # of losses.LOSSES
    config.loss.scale = placeholder(float)
    config.loss.margin = placeholder(float)
    config.loss.negative_weight = placeholder(float)  # λ of uce and bce
    config.loss.m1 = placeholder(float)  # factor of the angle: combined, sphereface…
    config.loss.m2 = placeholder(float)  # radians added to the angle: combined
    config.loss.m3 = placeholder(float)  # taken from the cosine: combined
    config.loss.interclass_filtering = placeholder(float)  # arcface, cosface, combined; 0 is off
    config.loss.balance = placeholder(float)  # λ of sphereface2
    config.loss.exponent = placeholder(float)  # t of sphereface2
    config.loss.loss_weight = placeholder(float)  # sphereface2, sphereface_r
    config.loss.concentration = placeholder(float)  # h of adaface

    config.head = ConfigDict()
    config.head.sampling_rate = 1.0  # r, the share of classes in each step
    # MiB for the block of classes in work. The kernel of uce and bce on CPUs has blocks of its own.
    config.head.block_memory = placeholder(float)
    config.head.product_dtype = "float32"  # of matrix products; sums are float32

    config.optim = ConfigDict()
    config.optim.lr = 0.1
    config.optim.momentum = 0.9
    config.optim.weight_decay = 5e-4
    config.optim.clip = 10.0  # of the global gradient norm
    config.optim.schedule = "steps"
    config.optim.milestones = (16, 24)  # epochs, of schedule "steps"
    config.optim.factor = 0.1  # at each milestone
    config.optim.power = 2.0  # of schedule "polynomial"
    config.optim.warmup_epochs = 0.0  # of schedules "polynomial" and "cosine"

    config.batch_size = 512  # over all devices
    config.micro_batches = 4  # on each device; batch norm sees batch_size/devices/micro_batches
    config.epochs = 28.0
    config.steps = placeholder(int)  # instead of epochs
    config.parallel = "auto"
    config.finetune = ""  # workdir or checkpoint whose network (and matching head) is the start

    config.eval = ConfigDict()
    config.eval.data = ""  # .bin files or folders of them, separated by commas
    config.eval.every_steps = 2000  # and after the last step
    config.eval.batch_size = 64

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 2000
    config.checkpoint.keep = 3  # the last ones, and the best by ROC-AUC beside them

    config.log = ConfigDict()
    config.log.every_steps = 100

    config.nonfinite = ConfigDict()  # a loss or gradient that is not finite
    config.nonfinite.action = "stop"  # or "skip": leave the state as it was, count, go on
    config.nonfinite.limit = 20  # skipped steps in a row that stop the run after all

    config.watchdog_seconds = 1800.0  # without any progress end the run; 0 is never

    config.profile = ""  # "10:15" traces steps 10 to 14 into workdir/profile
    config.compilation_cache = "auto"  # the user's cache folder; another folder; "" for none

    config.debug = ConfigDict()
    config.debug.nans = False  # stop where the first NaN is computed, naming the operation; slow
    config.debug.checks = False  # check values inside the step (labels, features, prototypes…)
    return config


# Keys that may differ when a run is resumed: they do not change what is computed.
FREE_KEYS = (
    "eval.", "checkpoint.", "log.", "parallel", "data.threads",
    "data.decoders", "finetune",
    "micro_batches",  # follows the number of devices; train/batch_norm_groups.py
    "nonfinite.", "watchdog_seconds", "debug.", "profile", "compilation_cache",
)  # fmt: skip

_POSITIVE = ("> 0", lambda value: value > 0)
_NOT_NEGATIVE = (">= 0", lambda value: value >= 0)
_FRACTION = ("from 0 to below 1", lambda value: 0 <= value < 1)


def _one_of(*allowed: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(allowed)}", lambda value: value in allowed


DTYPES = ("float32", "bfloat16")

_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("from 0 to 2**31 - 1", lambda value: 0 <= value < 2**31),
    "data.threads": _POSITIVE,
    "data.decoders": _one_of("auto", "threads", "processes"),
    "model.name": _one_of(*models.NETWORKS),
    "model.stage_sizes": (
        "four positive counts",
        lambda value: value is None or (len(value) == 4 and all(n > 0 for n in value)),
    ),
    "model.width": _POSITIVE,
    "model.embedding_size": _POSITIVE,
    "model.stem_stride": ("1 or 2", lambda value: value in (1, 2)),
    "model.dropout": ("from 0 to below 1", lambda value: value is None or 0 <= value < 1),
    "model.dtype": _one_of(*DTYPES),
    "model.bn_momentum": ("above 0, at most 1", lambda value: 0 < value <= 1),
    "head.sampling_rate": ("above 0, at most 1", lambda value: 0 < value <= 1),
    "head.block_memory": ("> 0", lambda value: value is None or value > 0),
    "head.product_dtype": _one_of(*DTYPES),
    "optim.lr": _POSITIVE,
    "optim.momentum": _FRACTION,
    "optim.weight_decay": _FRACTION,
    "optim.clip": _POSITIVE,
    "optim.schedule": _one_of("steps", "polynomial", "cosine"),
    "optim.milestones": (
        "increasing epochs > 0",
        lambda value: all(a < b for a, b in zip((0, *value), value, strict=False)),
    ),
    "optim.factor": _POSITIVE,
    "optim.power": _POSITIVE,
    "optim.warmup_epochs": _NOT_NEGATIVE,
    "batch_size": _POSITIVE,
    "micro_batches": _POSITIVE,
    "epochs": _POSITIVE,
    "steps": ("> 0", lambda value: value is None or value > 0),
    "parallel": _one_of("auto", "pmap", "shard_map"),
    "eval.every_steps": _POSITIVE,
    "eval.batch_size": _POSITIVE,
    "checkpoint.every_steps": _POSITIVE,
    "checkpoint.keep": _POSITIVE,
    "log.every_steps": _POSITIVE,
    "nonfinite.action": _one_of("stop", "skip"),
    "nonfinite.limit": _POSITIVE,
    "watchdog_seconds": _NOT_NEGATIVE,
}


def allowed(key: str) -> str:
    """Return in words which values a key may have, as in "> 0"; "" for any of its type."""
    section, _, name = key.rpartition(".")
    if key == "model.name":
        return f"one of {', '.join(models.NETWORKS)}"
    if section == "loss":
        return losses.allowed(name)
    return _RANGES[key][0] if key in _RANGES else ""


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{"optim.lr": 0.1, …}: every key by its dotted path, tuples as lists (as JSON has them)."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, tree: Mapping[str, Any]) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = list(value) if isinstance(value, tuple) else value

    walk("", config.to_dict())
    return flat


def check(config: ConfigDict, num_devices: int) -> None:
    """Raises UserError with the first key whose value is not allowed on so many devices."""
    check_values(config)
    check_batch(config, num_devices)


def check_values(config: ConfigDict) -> None:
    """Raises UserError with the first key whose value is not allowed on any devices."""
    expected = flatten(base())
    given = flatten(config)
    for key in given:
        if key not in expected:
            raise UserError(f"config.{key}: no such key; see uniface_jax/config.py for all of them")
    for key in expected:
        if key not in given:
            raise UserError(
                f"config.{key}: missing; start the recipe from uniface_jax.config.base()"
            )
    for key, (words, test) in _RANGES.items():
        if not test(given[key]):
            raise UserError(f"config.{key}={given[key]}: must be {words}")
    create_loss(config)
    parse_range(config.profile)


def check_batch(config: ConfigDict, num_devices: int) -> None:
    """Raises UserError, with the ways out, where so many devices cannot share batch_size."""
    groups = num_devices * config.micro_batches
    if config.batch_size % groups:
        raise UserError(
            f"config.batch_size={config.batch_size}: must be divisible by {num_devices} devices x "
            f"{config.micro_batches} micro_batches = {groups}; {_ways_out(config, num_devices)}"
        )
    if config.batch_size // groups < 2:
        raise UserError(
            f"config.batch_size={config.batch_size}: leaves batch norm one sample in each of "
            f"{num_devices} devices x {config.micro_batches} micro_batches; at least 2 are needed"
        )


def _ways_out(config: ConfigDict, num_devices: int) -> str:
    share, rest = divmod(config.batch_size, num_devices)
    if not rest:
        fitting = [str(n) for n in range(1, share // 2 + 1) if share % n == 0]
        if fitting:
            return f"this batch_size goes with micro_batches={', '.join(fitting)}"
    below = config.batch_size - config.batch_size % (num_devices * config.micro_batches)
    sizes = [str(n) for n in (below, below + num_devices * config.micro_batches) if n]
    return f"take batch_size={' or '.join(sizes)}, or other devices"


def create_loss(config: ConfigDict) -> losses.Loss:
    """The loss that config.loss names, with its hyperparameters."""
    return losses.create(**config.loss.to_dict())


def create_network(config: ConfigDict, dtype: str | None = None) -> models.IResNet:
    """The network that config.model names; `dtype` replaces the configured one."""
    fields = config.model.to_dict()
    fields.pop("bn_momentum")  # of the training step, not of the network
    return models.create(**{**fields, "dtype": dtype or fields["dtype"]})


def from_json(text: str) -> ConfigDict:
    """A config as `to_json` wrote it."""
    return ConfigDict(json.loads(text), convert_dict=True)


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON."""
    return json.dumps(config.to_dict(), indent=2)


def claim_workdir(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json into the workdir, or checks that the one there is of the same run.

    Raises UserError naming the first key that differs, with both values.
    """
    path = workdir / "config.json"
    if path.exists():
        try:
            owner = flatten(from_json(path.read_text()))
        except ValueError as e:
            raise UserError(f"{path}: not the config of a run ({e}); use another --workdir") from e
        for key, value in flatten(config).items():
            if not key.startswith(FREE_KEYS) and owner.get(key) != value:
                raise UserError(
                    f"{workdir}: belongs to a run with config.{key}={owner.get(key)}, this one has "
                    f"{value}; use another --workdir, or that value to resume it"
                )
    write_bytes(path, (to_json(config) + "\n").encode())
