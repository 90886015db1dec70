"""Checks of a training set before the first step: what would end, or mislead, the run later."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.data.formats.image_headers import inspect
from uniface_jax.data.formats.image_size import IMAGE_SIZE
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError
from uniface_jax.models import Network
from uniface_jax.models.vit import FUSED_ON
from uniface_jax.runtime.chips import Chip, multiplies
from uniface_jax.runtime.profiling import parse_range
from uniface_jax.train.from_config import Recipe, warmup_steps

CHECK_SECONDS = 5.0  # of looking at images, at most
WAYS_ON = (  # of a run whose training set has changed; a workdir follows
    "restore the data set, go on with it as it is now (--config.data.on_change=accept; the order "
    "of images is another from there on), or use another --workdir than"
)
MAX_NOTES = 5  # of a source, that are shown
_STRIDE = 7919  # a prime: images from all over the set, also where time ends before all are seen


def check_images(source: Source, skip: bool, seconds: float = CHECK_SECONDS) -> list[str]:
    """Look at the images of a source that says nothing of their size: structure and size.

    All are looked at where `seconds` suffice, else as many as they do, from all over the set.

    Args:
        source: of the images; those whose size it knows are taken to be checked, as convert does.
        skip: count those that cannot be used, instead of refusing.
        seconds: of looking.

    Returns:
        Warnings for the user: how many cannot be used, and the first of them.

    Raises:
        UserError: without `skip`, names an image that cannot be used, and the ways out.
    """
    if source.image_shape is not None:
        return []
    count, deadline = len(source), time.monotonic() + seconds
    stride = _STRIDE if count % _STRIDE else 1
    seen, unusable = 0, list[str]()
    while seen < count and time.monotonic() < deadline:
        if fault := _fault(source, seen * stride % count):
            if not skip:
                raise UserError(
                    f"{fault}; mend it, leave it out of the set, or let others stand in for such "
                    "images: --config.data.on_error=skip"
                )
            unusable.append(fault)
        seen += 1
    if not unusable:
        return []
    return [
        f"{len(unusable)} of {seen} images that were looked at cannot be used, and others stand in "
        f"for them (config.data.on_error): {min(unusable)}"
    ]


def _fault(source: Source, index: int) -> str:
    """Return why an image cannot be used, as decoding it would say; "" where its header is well."""
    try:
        item = source[index]
        where = f"{source.name}: record {index} ({item.name})"
        _, height, width = inspect(item.image, where)
    except UserError as e:
        return str(e)
    if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
        return (
            f"{where}: {width}x{height} pixels, expected {IMAGE_SIZE}x{IMAGE_SIZE}; "
            "python -m uniface_jax.align makes them"
        )
    return ""


def check_platform(network: Network, platform: str) -> None:
    """Raise UserError for kernels that `platform` (JAX's name) does not have."""
    kernels = getattr(network, "attention", "einsum")
    needed = FUSED_ON.get(kernels, platform)
    if platform != needed:
        raise UserError(
            f"config.model.vit.attention={kernels}: runs on a {needed.upper()} alone, and this is "
            f"a {platform.upper()}; einsum runs on all"
        )


def widened_products(config: ConfigDict, chip: Chip | None, name: str) -> list[str]:
    """Return what the user should know of products in 8 bits on such a device, a line each.

    name: of the device, for the user. Nothing is said of a device that does not tell what it is.
    """
    asked = configs.products_in_8_bits(config) if chip else {}
    return [
        f"config.{key}={dtype}: {name} has no products of such factors; they are rounded so and "
        "widened again, which costs what is to be saved"
        for key, dtype in asked.items()
        if chip and not multiplies(chip, dtype)
    ]


def warnings_of(recipe: Recipe, source: Source, num_devices: int) -> list[str]:
    """Return what the user should know of a run before it starts, a line each.

    Raises UserError for a run of one class, in which there are no negatives and nothing to learn,
    and for a trace of steps that it does not have.
    """
    config, classes = recipe.config, recipe.num_classes
    if classes < 2:
        raise UserError(
            f"{source.name}: {classes} class, so that there are no negatives; expected a folder, a "
            "label or a list entry for each of several people"
        )
    found = [*source.notes[:MAX_NOTES]]
    if len(source.notes) > MAX_NOTES:
        found.append(f"{source.name}: {len(source.notes) - MAX_NOTES} further notes of this kind")
    rate = config.head.sampling_rate
    rows = -(-classes // num_devices)
    drawn, batch = int(rows * rate) * num_devices, distinct_classes(config.batch_size, classes)
    if rate < 1 and drawn <= batch < classes:
        found.append(
            f"config.head.sampling_rate={rate:g}: {drawn} of {classes} classes a step, of which a "
            f"batch of {config.batch_size} alone holds about {batch:.0f}: other people are hardly "
            "ever negatives; take a larger rate, or a smaller batch"
        )
    traced, total = parse_range(config.profile), recipe.schedule.total_steps
    if traced and traced[0] >= total:
        raise UserError(f"config.profile={config.profile}: the run ends at step {total}")
    if warmup_steps(config, recipe.schedule) >= total:
        key = "warmup_epochs" if config.optim.warmup_steps is None else "warmup_steps"
        found.append(
            f"config.optim.{key}={config.optim[key]:g}: the run ends before, at step {total}; the "
            "learning rate only rises"
        )
    return found


def changed(saved: Mapping[str, Any], recipe: Recipe, source: str) -> str:
    """Return in words how the training set differs from that of a checkpoint; "" where it does not.

    Raises UserError where the classes are others: the prototypes are those of the former ones.
    """
    if saved["num_classes"] != recipe.num_classes:
        raise UserError(
            f"{source}: num_classes is {recipe.num_classes}, but the run was trained on "
            f"{saved['num_classes']}; restore the data set, or start another run from it: "
            "--config.finetune=WORKDIR --workdir=NEW"
        )
    if saved["num_examples"] == recipe.num_images:
        return ""
    return (
        f"{source}: num_examples is {recipe.num_images}, but the run was trained on "
        f"{saved['num_examples']}"
    )


def distinct_classes(batch_size: int, classes: int) -> float:
    """Return how many different classes a batch has on average, were all equally frequent.

    Example:
        >>> round(distinct_classes(64, 30), 1)
        26.6
    """
    return float(classes * -np.expm1(batch_size * np.log1p(-1 / classes)))
