"""Keys that others decide about: what a command line names counts, or it is an error."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from uniface_jax import losses, models
from uniface_jax.config.parts import IRESNET_KEYS
from uniface_jax.errors import UserError
from uniface_jax.registry import Registry

# A key counts only where another one has one of these values.
_COUNTS_WITH: Mapping[str, tuple[str, tuple[str | bool, ...]]] = {
    "loss.sample_scale": ("loss.with_samples", (True,)),
    "loss.sample_margin": ("loss.with_samples", (True,)),
    "loss.sample_after_epochs": ("loss.with_samples", (True,)),
    "distill.weight": ("distill.method", ("cosine",)),
    "optim.momentum": ("optim.name", ("sgd", "muon")),
    "optim.beta1": ("optim.name", ("adamw", "lamb", "muon")),
    "optim.beta2": ("optim.name", ("adamw", "lamb", "muon")),
    "optim.eps": ("optim.name", ("adamw", "lamb", "muon")),
    "optim.milestones": ("optim.schedule", ("steps",)),
    "optim.factor": ("optim.schedule", ("steps",)),
    "optim.power": ("optim.schedule", ("polynomial",)),
    "optim.warmup_epochs": ("optim.schedule", ("polynomial", "cosine", "constant")),
    "optim.warmup_steps": ("optim.schedule", ("polynomial", "cosine", "constant")),
    "optim.as_published": ("optim.schedule", ("polynomial",)),
    "nonfinite.limit": ("nonfinite.action", ("skip",)),
}

# Sections whose keys count where one of them is not as it is by default.
_SECTIONS = (("distill", "teacher", "empty"), ("quality", "weight", "0"))

# Lengths in epochs, the keys that count instead where they are not None, and of what they are.
_LENGTHS = (
    ("epochs", "steps", "to train"),
    ("optim.warmup_epochs", "optim.warmup_steps", "to warm up"),
)


def resolved(config: ConfigDict, named: Collection[str]) -> ConfigDict:
    """Return `config` after apply_named, whose notes are printed on standard error."""
    for note in apply_named(config, named):
        print(f"note: {note}", file=sys.stderr)
    return config


def apply_named(config: ConfigDict, named: Collection[str]) -> list[str]:
    """Let the keys that a command line names count, in place, over those of its recipe.

    A length in epochs takes away the recipe's in steps, which would count instead (_LENGTHS).

    Args:
        config: the recipe's, with what the command line gives in it.
        named: the dotted paths of the keys that the command line gives.

    Returns:
        Notes for the user: keys that are named and do nothing, and harm nothing.

    Raises:
        UserError: two keys are named of which only one can count, or one that does not count with
            the value that another key has.
    """
    for epochs, steps, what in _LENGTHS:
        _choose_length(config, named, (epochs, steps), what)
    for key, (other, values) in _COUNTS_WITH.items():
        found = _value(config, other)
        if key in named and found not in values:
            wanted = " or ".join(map(str, values))
            raise UserError(
                f"config.{key}={_value(config, key)}: counts with {other}={wanted} alone, "
                f"and {other} is {found}; give both, or leave it out"
            )
    for section, decides, without in _SECTIONS:
        if not config[section][decides]:
            for key in sorted(named):
                if key.startswith(f"{section}.") and key != f"{section}.{decides}":
                    raise UserError(
                        f"config.{key}={_value(config, key)}: counts with {section}.{decides} "
                        f"alone, which is {without}; give both, or leave it out"
                    )
    for key in sorted(named):
        section, _, rest = key.partition(".")
        hook = rest.partition(".")[0]
        if section == "hooks" and hook != "names" and hook not in config.hooks.names:
            raise UserError(
                f"config.{key}={_value(config, key)}: counts with {hook} in hooks.names alone, "
                f"which are {', '.join(config.hooks.names) or 'empty'}; give both, or leave it out"
            )
    _check_parts(config, "model", models.REGISTRY, named)
    _check_parts(config, "loss", losses.LOSSES, named)
    if not config.eval.data:
        return [
            f"config.{key}={_value(config, key)} does nothing: config.eval.data is empty"
            for key in sorted(named)
            if key.startswith("eval.") and key != "eval.data"
        ]
    return []


def _choose_length(
    config: ConfigDict, named: Collection[str], keys: tuple[str, str], what: str
) -> None:
    """Let a named length in epochs count, in place; UserError where that in steps is named too."""
    epochs, steps = keys
    if epochs not in named or _value(config, steps) is None:
        return
    if steps in named:
        raise UserError(
            f"config.{epochs}={_value(config, epochs):g} and config.{steps}="
            f"{_value(config, steps)}: either says how long {what}; give one of them"
        )
    config.update_from_flattened_dict({steps: None})


def _check_parts(
    config: ConfigDict, section: str, registry: Registry[Any], named: Collection[str]
) -> None:
    """Raise UserError for a named key of a part that is not the one in use."""
    used = config[section].name
    if used not in registry:
        return  # which is said when it is made
    family = models.family(used) if section == "model" else ""
    lacking = () if section == "loss" or family == "iresnet" else IRESNET_KEYS
    if section == "model" and not family:
        lacking = (*lacking, "remat")
    for key in named:
        path = key.split(".")
        if path[0] != section or len(path) < 2:
            continue
        foreign = len(path) > 2 and path[1] != (family or used)
        if foreign or path[1] in lacking:
            raise UserError(
                f"config.{key}={_value(config, key)}: not a key of {section}.name={used}, which "
                "this run uses"
            )


def _value(config: ConfigDict, path: str) -> Any:
    found: Any = config
    for key in path.split("."):
        found = found[key]
    return found
