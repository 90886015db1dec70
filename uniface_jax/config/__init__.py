"""The configuration: every key with its default, what is allowed, and the checks before any work.

A recipe in configs/ takes `base()` and changes what it needs. Keys and types are fixed by base();
ranges are checked by `check`. What is registered from outside adds keys of its own (registry.py).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from uniface_jax import losses, models
from uniface_jax.data.input.augment import AUGMENTATIONS, MAX_VALUES, Augment
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.registry import Entry, Range, Registry, above, at_least, import_parts, one_of
from uniface_jax.runtime.profiling import parse_range


def base(imports: Sequence[str] = ()) -> ConfigDict:
    """Return the release's CASIA recipe without its data set.

    None means "as the named thing has it". imports: modules whose parts are registered first, so
    that their hyperparameters are keys; they become config.imports.

    >>> base().optim.lr
    0.1
    """
    import_parts(imports)
    config = ConfigDict()
    config.seed = 0  # of initialisation, shuffling, augmentation, dropout and class sampling
    config.imports = tuple(imports)  # modules that register losses, networks, … from outside
    for add in (_data, _model, _loss, _head, _optim, _run):
        add(config)
    for path, entry in _parts():
        section = config
        for key in path.split("."):
            section = section[key]
        section[entry.name] = ConfigDict(entry.defaults)
    return config


def _data(config: ConfigDict) -> None:
    """Add the data and what is done to its images."""
    config.data = ConfigDict()
    config.data.train = ""  # what convert wrote, any source it reads, or synthetic:CLASSES:IMAGES
    # What makes data.train where it is missing: NAME:FOLDER, of data.faces.preparation.
    config.data.prepare = ""
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


def _model(config: ConfigDict) -> None:
    """Add the network. Those from outside have embedding_size, dtype and keys of their own."""
    config.model = ConfigDict()
    config.model.name = "lresnet50"  # of models.NETWORKS
    config.model.stage_sizes = placeholder(tuple)  # blocks a stage
    config.model.width = 64  # channels of the stem; stage k has width * 2**k
    config.model.embedding_size = 512  # D, the length of a feature
    config.model.stem_stride = 1  # 2 halves all maps: a quarter of the work
    config.model.dropout = placeholder(float)  # before the last linear layer
    config.model.dtype = "float32"  # of the computation; parameters stay float32
    config.model.remat = False  # recompute blocks in the backward pass: less memory, more time
    config.model.bn_momentum = 0.1  # weight of new statistics in the running ones


def _loss(config: ConfigDict) -> None:
    """Add the loss. None is the loss's own default; those from outside have their own keys."""
    config.loss = ConfigDict()
    config.loss.name = "uce"  # of losses.LOSSES
    config.loss.scale = placeholder(float)  # s, by which cosines are multiplied
    config.loss.margin = placeholder(float)  # m, of the cosine or, for arcface, in radians
    config.loss.negative_weight = placeholder(float)  # λ of uce and bce
    config.loss.m1 = placeholder(float)  # factor of the angle: combined, sphereface…
    config.loss.m2 = placeholder(float)  # radians added to the angle: combined
    config.loss.m3 = placeholder(float)  # taken from the cosine: combined
    config.loss.interclass_filtering = placeholder(float)  # arcface, cosface, combined; 0 is off
    config.loss.gradient = placeholder(str)  # of arcface, combined, sphereface
    config.loss.balance = placeholder(float)  # λ of sphereface2
    config.loss.exponent = placeholder(float)  # t of sphereface2
    config.loss.loss_weight = placeholder(float)  # sphereface2, sphereface_r
    config.loss.concentration = placeholder(float)  # h of adaface


def _head(config: ConfigDict) -> None:
    """Add the head."""
    config.head = ConfigDict()
    config.head.sampling_rate = 1.0  # r, the share of classes in each step
    # MiB for the block of classes in work. The kernel of uce and bce on CPUs has blocks of its own.
    config.head.block_memory = placeholder(float)
    config.head.product_dtype = "float32"  # of matrix products; sums are float32


def _optim(config: ConfigDict) -> None:
    """Add SGD and its schedule."""
    config.optim = ConfigDict()
    config.optim.lr = 0.1  # learning rate, the highest one of the schedule
    config.optim.momentum = 0.9  # of SGD
    config.optim.weight_decay = 5e-4  # of all weights, biases and slopes
    config.optim.clip = 10.0  # of the global gradient norm
    config.optim.schedule = "steps"  # how the learning rate falls
    config.optim.milestones = (16, 24)  # epochs, of schedule "steps"
    config.optim.factor = 0.1  # at each milestone
    config.optim.power = 2.0  # of schedule "polynomial"
    config.optim.warmup_epochs = 0.0  # of schedules "polynomial" and "cosine"


def _run(config: ConfigDict) -> None:
    """Add the run: its length, and what happens beside the steps."""
    config.batch_size = 512  # over all devices
    config.micro_batches = 4  # on each device; batch norm sees batch_size/devices/micro_batches
    config.epochs = 28.0  # passes over the training set, fractions too
    config.steps = placeholder(int)  # instead of epochs
    config.parallel = "auto"  # pmap in one process, shard_map in several
    config.finetune = ""  # workdir or checkpoint whose network (and matching head) is the start

    config.eval = ConfigDict()
    config.eval.data = ""  # .bin files or folders of them, separated by commas
    config.eval.every_steps = 2000  # and after the last step
    config.eval.batch_size = 64  # images embedded at a time

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 2000  # and after the last step
    config.checkpoint.keep = 3  # the last ones, and the best by ROC-AUC beside them

    config.log = ConfigDict()
    config.log.every_steps = 100  # and after the last step

    config.nonfinite = ConfigDict()  # a loss or gradient that is not finite
    config.nonfinite.action = "stop"  # or "skip": leave the state as it was, count, go on
    config.nonfinite.limit = 20  # skipped steps in a row that stop the run after all

    config.watchdog_seconds = 1800.0  # without any progress end the run; 0 is never

    config.profile = ""  # "10:15" traces steps 10 to 14 into workdir/profile
    config.compilation_cache = "auto"  # the user's cache folder; another folder; "" for none

    config.debug = ConfigDict()
    config.debug.nans = False  # stop where the first NaN is computed, naming the operation; slow
    config.debug.checks = False  # check values inside the step (labels, features, prototypes…)


# Keys that may differ when a run is resumed: they do not change what is computed.
CHANGEABLE_KEYS = (
    "eval.", "checkpoint.", "log.", "parallel", "data.prepare", "data.threads",
    "data.decoders", "finetune",
    "micro_batches",  # follows the number of devices; train/batch_norm_groups.py
    "nonfinite.", "watchdog_seconds", "debug.", "profile", "compilation_cache",
)  # fmt: skip

DTYPES = ("float32", "bfloat16")

_FRACTION = Range("from 0 to below 1", lambda value: 0 <= value < 1)
_SHARE = Range("above 0, at most 1", lambda value: 0 < value <= 1)

_RANGES: Mapping[str, Range] = {
    "seed": Range("from 0 to 2**31 - 1", lambda value: 0 <= value < 2**31),
    "data.threads": above(0),
    "data.decoders": one_of("auto", "threads", "processes"),
    "model.stage_sizes": Range(
        "four positive counts",
        lambda value: value is None or (len(value) == 4 and all(n > 0 for n in value)),
    ),
    "model.width": above(0),
    "model.embedding_size": above(0),
    "model.stem_stride": Range("1 or 2", lambda value: value in (1, 2)),
    "model.dropout": Range("from 0 to below 1", lambda value: value is None or 0 <= value < 1),
    "model.dtype": one_of(*DTYPES),
    "model.bn_momentum": _SHARE,
    "head.sampling_rate": _SHARE,
    "head.block_memory": Range("> 0", lambda value: value is None or value > 0),
    "head.product_dtype": one_of(*DTYPES),
    "optim.lr": above(0),
    "optim.momentum": _FRACTION,
    "optim.weight_decay": _FRACTION,
    "optim.clip": above(0),
    "optim.schedule": one_of("steps", "polynomial", "cosine"),
    "optim.milestones": Range(
        "increasing epochs > 0",
        lambda value: all(a < b for a, b in zip((0, *value), value, strict=False)),
    ),
    "optim.factor": above(0),
    "optim.power": above(0),
    "optim.warmup_epochs": at_least(0),
    "batch_size": above(0),
    "micro_batches": above(0),
    "epochs": above(0),
    "steps": Range("> 0", lambda value: value is None or value > 0),
    "parallel": one_of("auto", "pmap", "shard_map"),
    "eval.every_steps": above(0),
    "eval.batch_size": above(0),
    "checkpoint.every_steps": above(0),
    "checkpoint.keep": above(0),
    "log.every_steps": above(0),
    "nonfinite.action": one_of("stop", "skip"),
    "nonfinite.limit": above(0),
    "watchdog_seconds": at_least(0),
}


def _parts() -> Iterator[tuple[str, Entry[Any]]]:
    """Give every part from outside that has config keys, behind the section they stand in."""
    registries: Sequence[Registry[Any]] = (AUGMENTATIONS, models.REGISTRY, losses.LOSSES)
    for registry in registries:
        for entry in registry.from_outside():
            yield registry.section, entry


def _ranges() -> dict[str, Range]:
    """Return the ranges of all keys that have one, of what is registered now as well."""
    declared = {
        f"{section}.{entry.name}.{key}": hyperparameter.range
        for section, entry in _parts()
        for key, hyperparameter in entry.hyperparameters.items()
    }
    return {"model.name": one_of(*models.REGISTRY), **_RANGES, **declared}


def allowed(key: str) -> str:
    """Return in words which values a key may have, as in "> 0"; "" for any of its type."""
    section, _, name = key.rpartition(".")
    if section == "loss":
        return losses.allowed(name)
    if section == "data.augment" and name in MAX_VALUES:
        return f"from 0 to {MAX_VALUES[name]:g}"
    if key == "profile":
        return "empty, or START:STOP"
    ranges = _ranges()
    return ranges[key].words if key in ranges else ""


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Return every key by its dotted path, {"optim.lr": 0.1, …}, tuples as lists, as JSON has."""
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
    """Raise UserError with the first key whose value is not allowed on so many devices."""
    check_values(config)
    check_batch(config, num_devices)


def check_values(config: ConfigDict) -> None:
    """Raise UserError with the first key whose value is not allowed on any devices.

    Imports the modules of config.imports first: their parts have keys too, which may be missing
    and then have their defaults.
    """
    import_parts(config.get("imports", ()))
    expected = flatten(base())
    optional = {
        f"{section}.{entry.name}.{key}"
        for section, entry in _parts()
        for key in entry.hyperparameters
    }
    given = flatten(config)
    for key in given:
        if key not in expected:
            raise UserError(f"config.{key}: no such key; --print_config prints all of them")
    for key in expected:
        if key not in given and key not in optional:
            raise UserError(
                f"config.{key}: missing; start the recipe from uniface_jax.config.base()"
            )
    for key, allowed_values in _ranges().items():
        if key in given and not allowed_values.test(given[key]):
            raise UserError(f"config.{key}={given[key]}: must be {allowed_values.words}")
    Augment.from_mapping(config.data.augment.to_dict())
    create_loss(config)
    parse_range(config.profile)


def check_batch(config: ConfigDict, num_devices: int) -> None:
    """Raise UserError, with the ways out, where so many devices cannot share batch_size."""
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
    """Return the loss that config.loss names, with its hyperparameters."""
    name, shared, own = _chosen(config.loss)
    if losses.LOSSES.entry(name, f"loss.name={name!r}").builtin:
        return losses.create(name, **shared)
    for key, value in shared.items():
        if value is not None:
            raise UserError(
                f"config.loss.{key}={value}: {name} has keys of its own, "
                f"{', '.join(f'loss.{name}.{key}' for key in own) or 'none'}"
            )
    return losses.create(name, **own)


def create_network(config: ConfigDict, dtype: str | None = None) -> models.Network:
    """Return the network that config.model names; `dtype` replaces the configured one.

    One from outside has embedding_size, dtype and its own keys; the others do not concern it.
    """
    name, shared, own = _chosen(config.model)
    shared.pop("bn_momentum")  # of the training step, not of the network
    shared["dtype"] = dtype or shared["dtype"]
    if models.REGISTRY.entry(name, f"model.name={name!r}").builtin:
        return models.create(name, **shared)
    return models.create(
        name, embedding_size=shared["embedding_size"], dtype=shared["dtype"], **own
    )


def _chosen(section: ConfigDict) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the name of a section's part, the keys of all parts, and those of this one alone."""
    values = section.to_dict()
    name = values.pop("name")
    shared = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    return name, shared, dict(values.get(name) or {})


def completed(values: Mapping[str, Any]) -> ConfigDict:
    """Return base() with `values`, nested as a config is, laid over it: what they lack is default.

    Keys that base() does not have stay, for those who know them.
    """
    config = base(tuple(values.get("imports", ())))
    with config.unlocked():
        config.update(values)
    return config


def from_json(text: str, workdir: Path | None = None) -> ConfigDict:
    """Return a config as `to_json` wrote it; keys that were not there yet have their defaults.

    The modules of its `imports` are imported, but none that is inside of `workdir`, where the text
    is from. Raises ValueError for what is no JSON, or no JSON of a config.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("no object of config keys")
    import_parts(values.get("imports", ()), "config.imports", workdir)
    try:
        return completed(values)
    except (AttributeError, TypeError) as e:  # a value where a section is, or of another type
        raise ValueError(str(e)) from e


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON."""
    return json.dumps(config.to_dict(), indent=2)


def claim_workdir(workdir: Path, config: ConfigDict) -> None:
    """Write config.json into the workdir, or check that the one there is of the same run.

    Raises UserError naming the first key that differs, with both values.
    """
    path = workdir / "config.json"
    config = completed(config.to_dict())
    if path.exists():
        try:
            owner = flatten(from_json(path.read_text(), workdir))
        except (TypeError, AttributeError, ValueError) as e:
            raise UserError(f"{path}: not the config of a run ({e}); use another --workdir") from e
        for key, value in flatten(config).items():
            if not key.startswith(CHANGEABLE_KEYS) and owner.get(key) != value:
                raise UserError(
                    f"{workdir}: belongs to a run with config.{key}={owner.get(key)}, this one has "
                    f"{value}; use another --workdir, or that value to resume it"
                )
    write_bytes(path, (to_json(config) + "\n").encode())
