"""Loss and the network that a config names."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from uniface_jax import losses, models
from uniface_jax.errors import UserError

# Keys of config.model that only IResNets have, with their defaults.
IRESNET_KEYS: Mapping[str, Any] = {
    "stage_sizes": None, "width": 64, "stem_stride": 1, "dropout": None,
}  # fmt: skip


def create_loss(config: ConfigDict) -> losses.Loss:
    """Return the loss that config.loss names, with its hyperparameters."""
    name, given = _loss(config)
    return losses.create(name, **given)


def check_loss(config: ConfigDict) -> None:
    """Raise UserError for a loss or hyperparameter that is not allowed; the loss is not made."""
    name, given = _loss(config)
    losses.checked(name, given)


def _loss(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    """Return the name of the loss, and the hyperparameters that are given to it."""
    name, shared, own = _chosen(config.loss)
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

    One from outside has embedding_size, dtype and its own keys; the others do not concern it.
    Raises UserError for a key of IResNets alone that is set for a network of another family.
    """
    name, shared, own = _chosen(config.model)
    shared.pop("bn_momentum")  # of the training step, not of the network
    shared["dtype"] = dtype or shared["dtype"]
    if not models.REGISTRY.entry(name, f"model.name={name!r}").builtin:
        size = shared["embedding_size"]
        return models.create(name, embedding_size=size, dtype=shared["dtype"], **own)
    family = next(family for family, names in models.FAMILIES.items() if name in names)
    if family == "iresnet":
        return models.create(name, **shared)
    for key, default in IRESNET_KEYS.items():
        if shared.pop(key) != default:
            raise UserError(
                f"config.model.{key}={config.model[key]}: {name} has no such key; its own are "
                f"{', '.join(f'model.{family}.{own}' for own in config.model[family])}"
            )
    return models.create(name, **shared, **config.model[family].to_dict())


def _chosen(section: ConfigDict) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the name of a section's part, the keys of all parts, and those of this one alone."""
    values = section.to_dict()
    name = values.pop("name")
    shared = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    return name, shared, dict(values.get(name) or {})
