"""Checkpoints by Orbax, and only here: asynchronous, atomic, the last k and the best kept.

A checkpoint holds the logical training state (parallel.py: no padding, no device layout) and, as
JSON, the config and the position in the data.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from uniface_jax.errors import UserError
from uniface_jax.step import TrainState, Weights

Tree = Any
FOLDER = "checkpoints"
BEST_METRIC = "auc"


def _to_tree(state: TrainState) -> dict[str, Any]:
    """Named dictionaries, so that a checkpoint can be read without this project's classes."""
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


class Checkpoints:
    """The checkpoints of one workdir, in workdir/checkpoints/STEP."""

    def __init__(self, workdir: Path, keep: int = 1) -> None:
        policy = AnyPreservationPolicy(
            [
                LatestN(keep),
                BestN(
                    get_metric_fn=lambda metrics: metrics[BEST_METRIC],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._workdir = workdir
        self._manager = ocp.CheckpointManager(
            (workdir / FOLDER).absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy, cleanup_tmp_directories=True
            ),
            item_names=("state", "run"),
        )

    def latest(self) -> int | None:
        """The newest step that was saved whole, None where there is none."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, run: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Saves the logical state in the background; waits for an earlier save that still runs.

        `run` is JSON (config and position in the data). With `metrics`, which must hold
        BEST_METRIC, the checkpoint competes for being the best. A step that is there already is
        left as it is.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_to_tree(state)), run=ocp.args.JsonSave(dict(run))
        )
        self._manager.save(step, args=items, metrics=dict(metrics) if metrics else None, force=True)

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The logical state of `step` and its run JSON; UserError where shapes are not `like`'s."""
        folder = self._workdir / FOLDER / str(step)
        state, run = read(folder)
        if other := first_other_shape(state, like):
            name, found, wanted = other
            raise UserError(f"{folder}: {name} has shape {found}, this config needs {wanted}")
        return state, run

    def wait(self) -> None:
        """Returns once all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for all saves and releases the directory."""
        self._manager.close()


def first_other_shape(found: Tree, wanted: Tree) -> tuple[str, Any, Any] | None:
    """The first array by name whose shape differs: (name, shape found, shape wanted).

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
    """A workdir, or one of its checkpoints/STEP, -> (workdir, step); a workdir means its newest.

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


def read(path: str | Path) -> tuple[TrainState, dict[str, Any]]:
    """The host arrays and the run JSON of a workdir's newest checkpoint, or of a checkpoint.

    Raises UserError where there is none, or where it cannot be read.
    """
    workdir, step = locate(path)
    folder = (workdir / FOLDER / str(step)).absolute()
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.StandardCheckpointHandler(), run=ocp.JsonCheckpointHandler()
    )
    try:
        with ocp.Checkpointer(handler) as checkpointer:
            metadata = checkpointer.metadata(folder).item_metadata["state"]
            abstract = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), dict(metadata))
            items = checkpointer.restore(
                folder,
                ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), run=ocp.args.JsonRestore()
                ),
            )
        return _from_tree(items["state"]), items["run"]
    except (ValueError, KeyError, OSError, TypeError) as e:
        raise UserError(f"{folder}: not a readable checkpoint of this project ({e})") from e
