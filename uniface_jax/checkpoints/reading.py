"""Reads checkpoints by Orbax; saving.py writes them, and no other file knows Orbax.

A checkpoint holds the training state and, as JSON, the config and the position in the data. The
padding rows of the last shards are on disk after row num_classes of the data's position and are
cut off, or made anew, by every reader: what is read is the logical state, on any number of devices
and processes. Every process reads the shards that it needs, so that none ever holds all prototypes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from uniface_jax.errors import UserError
from uniface_jax.state import TrainState, Weights, class_sharded

Tree = Any
FOLDER = "checkpoints"
CORRUPT_FOLDER = "corrupt_checkpoints"  # beside it: what could not be read, set aside
BEST_METRIC = "auc"
TEMPORARY = ".orbax-checkpoint-tmp"  # in the names of what is not whole yet


class UnreadableError(UserError):
    """A checkpoint that is damaged, or of no known form."""


def to_tree(state: TrainState) -> dict[str, Any]:
    """Turn a state into named dictionaries, to be read without this project's classes."""
    tree = state._asdict()
    return {**tree, "weights": state.weights._asdict(), "momentum": state.momentum._asdict()}


def _from_tree(tree: Mapping[str, Any]) -> TrainState:
    return TrainState(
        step=tree["step"],
        weights=Weights(**tree["weights"]),
        momentum=Weights(**tree["momentum"]),
        batch_stats=tree["batch_stats"],
        loss_statistics=tree.get("loss_statistics") or {},
    )


@contextmanager
def _reading(folder: Path) -> Iterator[ocp.Checkpointer]:
    """Open a reader that waits for no other process: one may fail where others succeed.

    What a damaged checkpoint makes it raise becomes UnreadableError.
    """
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        run=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
    )
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield checkpointer
    except (UserError, PermissionError, RuntimeError, MemoryError):
        raise  # no word about the checkpoint: no rights, or no room in a device's memory
    except Exception as e:  # Orbax raises many kinds, Exception itself among them
        reason = " ".join(str(e).split())[:300]
        raise UnreadableError(
            f"{folder}: not a readable checkpoint of this project ({reason})"
        ) from e


def score_of(folder: Path) -> float | None:
    """Return the score of a checkpoint; None where it was not measured, or cannot be read."""
    try:
        with _reading(folder) as checkpointer:
            only = ocp.args.Composite(run=ocp.args.JsonRestore())
            return float(checkpointer.restore(folder, only)["run"]["metrics"][BEST_METRIC])
    except UserError:
        return None


def _open(checkpointer: ocp.Checkpointer, folder: Path) -> tuple[TrainState, dict[str, Any]]:
    """Return the shapes and dtypes as they are on disk, and the run JSON."""
    metadata = checkpointer.metadata(folder).item_metadata["state"]
    stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), metadata.tree)
    run = checkpointer.restore(folder, ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
    return _from_tree(stored), run


def _logical(stored: TrainState, run: Mapping[str, Any]) -> TrainState:
    """Return the shapes of what `stored` holds, without padding rows."""
    shapes: TrainState = jax.tree.map(
        lambda x, rows: jax.ShapeDtypeStruct((*rows, *x.shape[len(rows) :]), x.dtype),
        stored, _rows(run, stored),
    )  # fmt: skip
    return shapes


def _rows(run: Mapping[str, Any], stored: TrainState) -> Tree:
    """Count the logical rows of each array: None where all are."""
    classes = run["data"].get("num_classes", 0)

    def rows(x: Any, sharded: bool) -> tuple[int, ...]:
        # A foreign network without a head has one row and no classes (weights/workdir.py).
        return (min(classes, x.shape[0]) or x.shape[0],) if sharded else ()

    return jax.tree.map(rows, stored, class_sharded(stored))


def restore_state(
    folder: Path, template: TrainState, abstract: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """Restore a checkpoint's global state and run JSON; UserError for other shapes."""
    with _reading(folder) as checkpointer:
        stored, run = _open(checkpointer, folder)
        if other := first_other_shape(_logical(stored, run), abstract):
            name, theirs, ours = other
            raise UserError(f"{folder}: {name} has shape {theirs}, this config needs {ours}")
        tree = to_tree(template)
        restore = ocp.args.PyTreeRestore(item=tree, restore_args=_placed(tree))
        items = checkpointer.restore(folder, ocp.args.Composite(state=restore))
    return _from_tree(items["state"]), run


def read(path: str | Path) -> tuple[TrainState, dict[str, Any]]:
    """Read the logical state and run JSON of a checkpoint, or of a workdir's newest.

    Raises UserError where there is none, UnreadableError where it is damaged.
    """
    _, folder = _located(path)
    with _reading(folder) as checkpointer:
        stored, run = _open(checkpointer, folder)
        tree = to_tree(stored)
        arguments = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restore = ocp.args.PyTreeRestore(item=tree, restore_args=arguments)
        state = _from_tree(checkpointer.restore(folder, ocp.args.Composite(state=restore))["state"])
        return jax.tree.map(
            lambda x, rows: x[slice(*rows)] if rows else x, state, _rows(run, stored)
        ), run


def read_network(path: str | Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Read the step, the network's variables as host arrays and the run JSON, as `read`.

    Prototypes and momentum, which may be more than this machine holds, stay on disk.
    """
    step, folder = _located(path)
    with _reading(folder) as checkpointer:
        stored, run = _open(checkpointer, folder)
        wanted = {"weights": {"network": stored.weights.network}, "batch_stats": stored.batch_stats}
        arguments = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        tree = _restore_part(checkpointer, folder, wanted, arguments)
    variables = {"params": tree["weights"]["network"], "batch_stats": tree["batch_stats"]}
    return step, variables, run


def read_into(path: str | Path, state: TrainState, abstract: TrainState) -> TrainState:
    """Read into `state` what another training can give: network, statistics, maybe head.

    `state` is global (runtime.parallel), `abstract` has its logical shapes. Prototypes and bias are
    taken where both have these. Raises UserError where the network is another one, or where there
    is no readable checkpoint.
    """
    _, folder = _located(path)
    with _reading(folder) as checkpointer:
        stored, run = _open(checkpointer, folder)
        logical = _logical(stored, run)
        if other := first_other_shape(logical.weights.network, abstract.weights.network):
            name, theirs, ours = other
            raise UserError(
                f"{name} has shape {theirs}, this config's network has {ours}; give the same "
                "config.model"
            )
        weights, heads = {"network": state.weights.network}, ("prototypes", "bias")
        if all(
            getattr(logical.weights, name).shape == getattr(abstract.weights, name).shape
            for name in heads
        ):
            weights |= {name: getattr(state.weights, name) for name in heads}
        wanted = {"weights": weights, "batch_stats": state.batch_stats}
        tree = _restore_part(checkpointer, folder, wanted, _placed(wanted))
    return state._replace(
        weights=state.weights._replace(**tree["weights"]), batch_stats=tree["batch_stats"]
    )


def _restore_part(
    checkpointer: ocp.Checkpointer, folder: Path, wanted: Tree, arguments: Tree
) -> dict[str, Any]:
    """Restore the arrays that `wanted` names, and nothing else of the state."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), wanted)
    restore = ocp.args.PyTreeRestore(item=shapes, restore_args=arguments, partial_restore=True)
    restored: dict[str, Any] = checkpointer.restore(folder, ocp.args.Composite(state=restore))[
        "state"
    ]
    return restored


def _placed(arrays: Tree) -> Tree:
    """Ask for arrays where and as large as these are.

    Not strict: rows beyond those on disk become zeros, padding rows there are left.
    """
    return jax.tree.map(
        lambda x: ocp.ArrayRestoreArgs(
            sharding=x.sharding, global_shape=x.shape, dtype=x.dtype, strict=False
        ),
        arrays,
    )


def first_other_shape(found: Tree, wanted: Tree) -> tuple[str, Any, Any] | None:
    """Find the first array by name whose shape differs: (name, found, wanted).

    The shape of an array that is missing is "none". None where all agree.
    """
    ours, theirs = (
        {
            jax.tree_util.keystr(path): np.shape(x)
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (found, wanted)
    )
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            return name, ours.get(name, "none"), theirs.get(name, "none")
    return None


def locate(path: str | Path) -> tuple[Path, int]:
    """Find (workdir, step) of a workdir's newest checkpoint, or of workdir/checkpoints/STEP.

    Raises UserError where there is no finished checkpoint.
    """
    given = Path(path)
    if given.parent.name == FOLDER and given.name.isdigit():
        workdir, wanted = given.parent.parent, int(given.name)
    else:
        workdir, wanted = given, None
    folder = workdir / FOLDER
    steps = sorted(ocp.utils.checkpoint_steps(folder.absolute())) if folder.is_dir() else []
    if not steps or (wanted is not None and wanted not in steps):
        found = f"has steps {', '.join(map(str, steps))}" if steps else "has no finished checkpoint"
        raise UserError(f"{path}: {folder} {found}; give a workdir of uniface_jax.train")
    return workdir, steps[-1] if wanted is None else wanted


def _located(path: str | Path) -> tuple[int, Path]:
    """Find the step as `locate` does, and its folder."""
    workdir, step = locate(path)
    return step, (workdir / FOLDER / str(step)).absolute()
