"""A run on another number of devices: the batch and batch norm's groups stay what they were.

What a run computes depends on batch_size and on how many samples batch norm sees together, which is
batch_size / devices / micro_batches. The latter is kept in workdir/layout.json, and micro_batches
follows from it when the run is resumed elsewhere.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json

LAYOUT_FILE = "layout.json"


def adapt(config: ConfigDict, workdir: Path, num_devices: int) -> ConfigDict:
    """Return the config with the micro_batches that keep the groups of the run in `workdir`.

    Raises UserError, with the ways out, where these devices cannot have such groups, and where
    config.micro_batches asks for other groups.
    """
    path = workdir / LAYOUT_FILE
    if not path.exists():
        return config
    try:
        record = read_json(path, "use another --workdir")
        group, micro_batches = int(record["batch_norm_group"]), int(record["micro_batches"])
        groups = config.batch_size // group
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, ZeroDivisionError) as e:
        raise UserError(f"{path}: not the layout of a run ({e}); use another --workdir") from e
    if config.batch_size % group:
        return config  # another batch_size: the workdir's config will be compared, and says so
    if groups % num_devices:
        fitting = [str(n) for n in range(1, groups + 1) if groups % n == 0]
        raise UserError(
            f"{workdir}: batch_size {config.batch_size} in batch norm's groups of {group} cannot "
            f"be shared by {num_devices} devices; resume on {', '.join(fitting)} devices, or "
            f"start another run from it: --config.finetune={workdir} --workdir=NEW"
        )
    wanted = groups // num_devices
    if config.micro_batches not in (micro_batches, wanted):
        raise UserError(
            f"config.micro_batches={config.micro_batches}: the run in {workdir} has batch norm see "
            f"{group} samples; on {num_devices} devices that takes {wanted} (or leave the key out)"
        )
    adapted = config.copy_and_resolve_references()
    adapted.micro_batches = wanted
    return adapted


def record(config: ConfigDict, workdir: Path, num_devices: int, *, begun: bool = True) -> None:
    """Write the layout of a run that starts; leave the one of a run that has `begun`."""
    path = workdir / LAYOUT_FILE
    if not begun or not path.exists():
        group = config.batch_size // (num_devices * config.micro_batches)
        layout = {"batch_norm_group": group, "micro_batches": config.micro_batches}
        write_bytes(path, (json.dumps(layout) + "\n").encode())
