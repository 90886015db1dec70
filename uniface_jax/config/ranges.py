"""Ranges of the configuration's keys, and the checks before any work."""

import math
import re
from collections.abc import Mapping

from ml_collections import ConfigDict

from uniface_jax import losses, models
from uniface_jax.config import multipliers
from uniface_jax.config.keys import base, flatten, parts_from_outside
from uniface_jax.config.parts import check_loss
from uniface_jax.data.input.augment import MAX_VALUES, Augment
from uniface_jax.data.input.balance import BALANCES
from uniface_jax.data.sources.joined import PEOPLE
from uniface_jax.errors import UserError
from uniface_jax.models.kprpe import LANDMARKS
from uniface_jax.models.vit import ATTENTIONS
from uniface_jax.registry import Range, above, at_least, import_parts, one_of
from uniface_jax.runtime.hooks import HOOKS
from uniface_jax.runtime.low_precision import LARGEST
from uniface_jax.runtime.profiling import parse_range

MAX_RATIO = 1000  # of config.data.ratios
DTYPES = ("float32", "bfloat16")
_UNBOUNDED = ("optim.clip",)  # keys that may be infinite: nothing is clipped then

_FRACTION = Range("from 0 to below 1", lambda value: 0 <= value < 1)
_OPTIONAL_FRACTION = Range("from 0 to below 1", lambda value: value is None or 0 <= value < 1)
_COUNT = Range("> 0", lambda value: value is None or value > 0)
_FOUR_COUNTS = Range(
    "four positive counts",
    lambda value: value is None or (len(value) == 4 and all(n > 0 for n in value)),
)
_PATCH = Range(
    f"from 1 to {models.IMAGE_SIZE}", lambda value: value is None or 1 <= value <= models.IMAGE_SIZE
)
_OPTIONAL_8_BITS = Range(
    f"one of {', '.join(LARGEST)}", lambda value: value is None or value in LARGEST
)
_SHARE = Range("above 0, at most 1", lambda value: 0 < value <= 1)

_RANGES: Mapping[str, Range] = {
    "seed": Range("from 0 to 2**31 - 1", lambda value: 0 <= value < 2**31),
    "data.people": one_of(*PEOPLE),
    "data.ratios": Range(
        f"numbers above 0, at most {MAX_RATIO}, one for each set of data.train",
        lambda value: all(
            type(ratio) in (int, float) and 0 < ratio <= MAX_RATIO for ratio in value
        ),
    ),
    "data.balance": one_of(*BALANCES),
    "data.class_cap": _COUNT,
    "data.label_noise": Range("from 0 to 1", lambda value: 0 <= value <= 1),
    "data.threads": above(0),
    "data.decoders": one_of("auto", "threads", "processes"),
    "data.on_error": one_of("fail", "skip"),
    "data.on_change": one_of("fail", "accept"),
    "model.stage_sizes": _FOUR_COUNTS,
    "model.width": above(0),
    "model.embedding_size": above(0),
    "model.stem_stride": Range("1 or 2", lambda value: value in (1, 2)),
    "model.dropout": _OPTIONAL_FRACTION,
    "model.dtype": one_of(*DTYPES),
    "model.bn_momentum": _SHARE,
    "model.kernels": one_of("auto", "plain", "folded"),
    **{
        f"model.{family}.{key}": allowed
        for family in ("vit", "kprpe")
        for key, allowed in {
            **dict.fromkeys(("dim", "depth", "heads", "mlp_ratio"), _COUNT),
            "patch": _PATCH,
            "drop_path": _OPTIONAL_FRACTION,
            "product_dtype": _OPTIONAL_8_BITS,
        }.items()
    },
    "model.kprpe.landmarks": one_of(*LANDMARKS),
    "model.vit.mask_ratio": _OPTIONAL_FRACTION,
    "model.vit.attention": one_of(*ATTENTIONS),
    "model.mobilefacenet.blocks": _FOUR_COUNTS,
    "model.mobilefacenet.scale": _COUNT,
    "loss.sample_scale": Range("> 0", lambda value: value is None or value > 0),
    "loss.sample_margin": Range(
        "from 0 to below 1.5", lambda value: value is None or 0 <= value < 1.5
    ),
    "loss.sample_after_epochs": Range(">= 1", lambda value: value is None or value >= 1),
    "head.sampling_rate": _SHARE,
    "head.pair_whisker": Range(">= 0", lambda value: value is None or value >= 0),
    "head.subcentres": Range("from 1 to 100", lambda value: 1 <= value <= 100),
    "head.init_std": Range("> 0", lambda value: value is None or value > 0),
    "head.block_memory": Range("> 0", lambda value: value is None or value > 0),
    "head.product_dtype": one_of(*DTYPES, *LARGEST),
    "quality.weight": at_least(0),
    "quality.beta": above(0),
    "distill.method": one_of("cosine", "centers"),
    "distill.weight": above(0),
    "distill.input_scale": one_of("auto", "unit", "raw", "zero_one"),
    "distill.channel_order": one_of("auto", "rgb", "bgr"),
    "optim.lr": above(0),
    "optim.name": one_of("sgd", "adamw", "lamb", "muon"),
    "optim.momentum": _FRACTION,
    "optim.beta1": _FRACTION,
    "optim.beta2": _FRACTION,
    "optim.eps": above(0),
    "optim.weight_decay": _FRACTION,
    "optim.decay": one_of("auto", "coupled", "decoupled"),
    "optim.decay_on": one_of("all", "matrices"),
    "optim.clip": above(0),
    "optim.clip_on": one_of("all", "network"),
    "optim.ema": _FRACTION,
    "optim.schedule": one_of("steps", "polynomial", "cosine", "constant"),
    "optim.milestones": Range(
        "increasing epochs > 0",
        lambda value: all(a < b for a, b in zip((0, *value), value, strict=False)),
    ),
    "optim.factor": above(0),
    "optim.power": above(0),
    "optim.warmup_epochs": at_least(0),
    "optim.warmup_steps": Range(">= 0", lambda value: value is None or value >= 0),
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
    "hooks.wandb.project": Range(
        "a name without / \\ # ? % :", lambda value: bool(value) and not set(value) & set("/\\#?%:")
    ),
    "hooks.wandb.mode": one_of("offline", "online"),
    "hooks.mlflow.experiment": Range("not empty", lambda value: bool(value.strip())),
    "hooks.mlflow.uri": Range(
        "empty, databricks or SCHEME://PLACE",
        lambda value: value in ("", "databricks") or bool(re.match(r"[a-z][\w+-]*://", value)),
    ),
}


def _ranges() -> dict[str, Range]:
    """Return the ranges of all keys that have one, of what is registered now as well."""
    declared = {
        f"{section}.{entry.name}.{key}": hyperparameter.range
        for section, entry in parts_from_outside()
        for key, hyperparameter in entry.hyperparameters.items()
    }
    return {"model.name": one_of(*models.REGISTRY), **_RANGES, **declared}


def allowed(key: str) -> str:
    """Return in words which values a key may have, as in "> 0"; "" for any of its type."""
    section, _, name = key.rpartition(".")
    if section == "loss" and name not in losses.SAMPLE_KEYS:
        return losses.allowed(name)
    if section == "data.augment" and name in MAX_VALUES:
        return f"from 0 to {MAX_VALUES[name]:g}"
    if key == "profile":
        return "empty, or START:STOP"
    if key in multipliers.KEYS:
        return f"empty, or {multipliers.form(key)}"
    ranges = _ranges()
    return ranges[key].words if key in ranges else ""


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
        for section, entry in parts_from_outside()
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
    check_ranges(config)


def check_ranges(config: ConfigDict) -> None:
    """Raise UserError with the first key that is not in its range, if it has one, or infinite."""
    given = flatten(config)
    for key, allowed_values in _ranges().items():
        if key in given and not allowed_values.test(given[key]):
            raise UserError(f"config.{key}={given[key]}: must be {allowed_values.words}")
    for key, value in given.items():
        numbers = value if isinstance(value, list) else [value]
        if key not in _UNBOUNDED and any(x in (math.inf, -math.inf) for x in numbers):
            raise UserError(f"config.{key}={value}: must be finite")
    Augment.from_mapping(config.data.augment.to_dict())
    check_loss(config)
    for name in config.hooks.names:
        HOOKS.entry(name, f"config.hooks.names={name!r}")
    parse_range(config.profile)
    for key in multipliers.KEYS:
        multipliers.parse(given[key], key)


def check_batch(config: ConfigDict, num_devices: int) -> None:
    """Raise UserError, with the ways out, where so many devices cannot share batch_size."""
    groups = num_devices * config.micro_batches
    if config.batch_size % groups:
        raise UserError(
            f"config.batch_size={config.batch_size}: must be divisible by {num_devices} devices x "
            f"{config.micro_batches} micro_batches = {groups}; {_ways_out(config, num_devices)}"
        )
    known = models.REGISTRY.entry(config.model.name).builtin  # and has batch norm
    if known and not config.model.frozen_statistics and config.batch_size // groups < 2:
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
