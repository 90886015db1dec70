"""Config as JSON, in checkpoints and in the workdir that belongs to it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from uniface_jax.config import multipliers
from uniface_jax.config.keys import completed, flatten
from uniface_jax.config.ranges import check_ranges
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import MAX_BYTES, parse_json
from uniface_jax.files.reading import read_regular
from uniface_jax.registry import import_parts

FILE = "config.json"  # of a workdir
# Keys that may differ when a run is extended: the state of training has the same form.
EXTENDABLE_KEYS = ("epochs", "steps", "optim.")
_FORM_KEYS = ("optim.name", "optim.ema")  # but these: other moments, a mean of the weights
# Keys that may differ when a run is resumed: they do not change what is computed.
CHANGEABLE_KEYS = (
    "eval.", "checkpoint.", "log.", "parallel", "data.prepare", "data.threads",
    "data.decoders", "data.on_error", "data.on_change", "finetune",
    "micro_batches",  # follows the number of devices; train/batch_norm_groups.py
    "nonfinite.", "watchdog_seconds", "debug.", "profile", "compilation_cache", "hooks.",
)  # fmt: skip
# What a key that was not there yet stood for, where that is not what it is left at today.
_BEFORE = {"model": {"kernels": "plain"}}


def from_json(text: str, workdir: Path | None = None) -> ConfigDict:
    """Return a config as `to_json` wrote it.

    Keys that were not there yet stand for what was done then, mostly their defaults. The
    modules of its `imports` are imported, but none that is inside of `workdir`, where the text is
    from. Raises ValueError alone, for what is no JSON, or no JSON of a config.
    """
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError("no object of config keys")
    import_parts(values.get("imports") or (), "config.imports", workdir)
    try:
        old = {name: {**keys, **values.get(name, {})} for name, keys in _BEFORE.items()}
        return completed({**values, **old})
    except (AttributeError, KeyError, TypeError) as e:  # of another type, or a section
        raise ValueError(" ".join(str(e).split())[:200]) from e


def as_begun(config: ConfigDict, workdir: Path) -> ConfigDict:
    """Return the config with what it leaves to the device as the run in `workdir` began with it.

    Raises UserError for a config there that is none.
    """
    if config.model.kernels != "auto" or not (workdir / FILE).exists():
        return config
    begun = config.copy_and_resolve_references()
    begun.model.kernels = _owner(workdir).model.kernels
    return begun


def _owner(workdir: Path) -> ConfigDict:
    """Return the config of the run that a workdir belongs to. Raises UserError."""
    path = workdir / FILE
    try:
        return from_json(read_regular(path, MAX_BYTES).decode("utf-8"), workdir)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    except ValueError as e:
        raise UserError(f"{path}: not the config of a run ({e}); use another --workdir") from e


def of_run(run: Mapping[str, Any], path: str | Path, workdir: Path) -> ConfigDict:
    """Return the config in a checkpoint's run JSON, as from_json does, with values in their ranges.

    path: names the checkpoint in errors. Raises UserError for what is no config.
    """
    try:
        config = from_json(run["config"], workdir)
        check_ranges(config)
    except (ValueError, TypeError) as e:
        raise UserError(f"{path}: its checkpoint holds no config of a run ({e})") from e
    return config


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON."""
    return json.dumps(config.to_dict(), indent=2)


def claim_workdir(
    workdir: Path, config: ConfigDict, *, begun: bool = True, extend: bool = False
) -> None:
    """Write config.json into the workdir, or check that the one there is of the same run.

    begun: the run there has a checkpoint; what left none owns nothing. extend: EXTENDABLE_KEYS may
    differ. Raises UserError naming the first key that differs, with both values and the ways out.
    """
    path = workdir / FILE
    config = completed(config.to_dict())
    if begun and path.exists():
        allowed = CHANGEABLE_KEYS + (EXTENDABLE_KEYS if extend else ())
        owner = flatten(_owner(workdir))
        for key, value in flatten(config).items():
            fixed = key in _FORM_KEYS or (key == "optim.multipliers" and _thaws(owner, value))
            if (fixed or not key.startswith(allowed)) and owner.get(key) != value:
                extendable = key.startswith(EXTENDABLE_KEYS) and not fixed
                raise UserError(
                    f"{workdir}: belongs to a run with config.{key}={owner.get(key)}, this one has "
                    f"{value}; use another --workdir, or that value to resume it"
                    f"{', or --extend to resume it with this one' if extendable else ''}; "
                    f"--config.finetune={workdir} --workdir=NEW starts from its weights"
                )
        # What a run began from is history when it is resumed: it may be left out, not changed.
        began = owner.get("finetune", "")
        if config.finetune not in ("", began):
            raise UserError(
                f"{workdir}: belongs to a run that began from {began or 'random weights'}, and "
                f"config.finetune={config.finetune} would not count; use another --workdir"
            )
        config.finetune = began
    write_bytes(path, (to_json(config) + "\n").encode())


def _thaws(owner: Mapping[str, Any], text: str) -> bool:
    """Return True where an adaptive optimizer may come to update what has been frozen.

    The moments of the network are of one count of updates, and those of frozen arrays of none: the
    first updates would be several times too large.
    """
    before, now = (
        [(pattern, factor > 0) for pattern, factor in multipliers.parse(each)]
        for each in (owner["optim.multipliers"], text)
    )
    if owner["optim.name"] == "sgd" or all(moves for _, moves in before):
        return False
    added = now[len(before) :]  # which count more than those before
    return now[: len(before)] != before or any(moves for _, moves in added)
