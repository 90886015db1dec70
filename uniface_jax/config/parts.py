"""Loss and the network that a config names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ml_collections import ConfigDict

from uniface_jax import losses, models
from uniface_jax.errors import UserError
from uniface_jax.losses.additive import uss
from uniface_jax.runtime.low_precision import LARGEST

IRESNET_KEYS = ("stage_sizes", "width", "stem_stride", "dropout")  # of config.model


def create_loss(config: ConfigDict) -> losses.Loss:
    """Return the loss that config.loss names, with its hyperparameters and config.head's.

    Raises UserError where pairs of samples are to be logits of a loss that has none.
    """
    name, given = _loss(config)
    loss, whisker = losses.create(name, **given), config.head.pair_whisker
    if whisker is not None and loss.family != "softmax":
        raise UserError(
            f"config.head.pair_whisker={whisker:g}: pairs of samples become logits of a softmax, "
            f"and {name} is a sum of binary decisions; leave it out, or take another loss.name"
        )
    if loss.expectation is not None and (config.loss.with_samples or config.distill.teacher):
        raise UserError(
            f"config.loss.name={name}: keeps an expectation of each class, where loss.with_samples "
            "has a memory and a distilled run perhaps centers; leave these out"
        )
    return replace(loss, subcentres=config.head.subcentres, pair_whisker=whisker)


def create_sample_loss(config: ConfigDict) -> losses.Loss | None:
    """Return the loss between samples that comes beside config.loss, None for none."""
    if not config.loss.with_samples:
        return None
    given = {"scale": config.loss.sample_scale, "margin": config.loss.sample_margin}
    return uss(**{key: value for key, value in given.items() if value is not None})


def check_loss(config: ConfigDict) -> None:
    """Raise UserError for a loss or hyperparameter that is not allowed; the loss is not made."""
    name, given = _loss(config)
    losses.checked(name, given)


def _loss(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """Return the name of the loss, and the hyperparameters that are given to it."""
    name, shared, own = _chosen(config.loss)
    shared = {key: value for key, value in shared.items() if key not in losses.SAMPLE_KEYS}
    if losses.LOSSES.entry(name, f"loss.name={name!r}").builtin:
        return name, shared
    for key, value in shared.items():
        if value is not None:
            raise UserError(
                f"config.loss.{key}={value}: {name} has keys of its own, "
                f"{', '.join(f'loss.{name}.{key}' for key in own) or 'none'}"
            )
    return name, own


def create_network(config: ConfigDict, dtype: str | None = None) -> models.Network:
    """Return the network that config.model names; `dtype` replaces the configured one.

    With `dtype`, as features are computed, attention is XLA's, whatever kernels trained, and no
    product is in 8 bits.

    One from outside has embedding_size, dtype and its own keys; the others do not concern it, as
    IRESNET_KEYS do not concern another family.
    """
    name, shared, own = _chosen(config.model)
    shared.pop("bn_momentum")  # of the training step, not of the network
    folded = shared.pop("kernels") == "folded"
    shared["dtype"] = dtype or shared["dtype"]
    family = models.family(name)
    if family == "iresnet":
        return models.create(name, fold=folded, **shared)
    if folded:
        raise UserError(
            f"config.model.kernels=folded: {name} has no batch norm in front of a convolution, as "
            "IResNets have; leave it out"
        )
    if not family and shared["frozen_statistics"]:
        raise UserError(
            f"config.model.frozen_statistics=True: {name} is a network from outside, whose batch "
            "norm is its own; give it a hyperparameter for this"
        )
    for key in IRESNET_KEYS if family else (*IRESNET_KEYS, "remat", "frozen_statistics"):
        del shared[key]
    own = config.model[family].to_dict() if family else own
    if dtype and family == "vit":
        own["attention"] = "einsum"
    if dtype and family in ("vit", "kprpe"):
        own["product_dtype"] = None
    return models.create(name, **shared, **own)


def products_in_8_bits(config: ConfigDict) -> dict[str, str]:
    """Return the keys that ask for products of factors of 8 bits in training, with the type."""
    keys = {"head.product_dtype": config.head.product_dtype}
    family = models.family(config.model.name)
    if family in ("vit", "kprpe"):
        keys[f"model.{family}.product_dtype"] = config.model[family].product_dtype
    return {key: value for key, value in keys.items() if value in LARGEST}


def with_kernels(config: ConfigDict, gpu: bool) -> ConfigDict:
    """Return the config with a network that suits the device, where it leaves that to the device.

    gpu: whether it is one.
    """
    if config.model.kernels != "auto":
        return config
    chosen = config.copy_and_resolve_references()
    folded = gpu and models.family(config.model.name) == "iresnet"
    chosen.model.kernels = "folded" if folded else "plain"
    return chosen


def _chosen(section: ConfigDict) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the name of a section's part, the keys of all parts, and those of this one alone."""
    values = section.to_dict()
    name = values.pop("name")
    shared = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    return name, shared, dict(values.get(name) or {})
