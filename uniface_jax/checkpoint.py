"""Checkpoints by Orbax, and only here: asynchronous, atomic, the last k and the best kept.

A checkpoint holds the training state and, as JSON, the config and the position in the data. Every
process writes its own shards of the global arrays (parallel.py) and reads those that it needs, so
that no process ever holds all prototypes. The rows that fill up the last shards are on disk after
row num_classes of the data's position and are cut off, or made anew, by every reader: what is read
is the logical state, on any number of devices and processes.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    LatestN,
    PreservationPolicy,
)

from uniface_jax import distributed
from uniface_jax.errors import UserError
from uniface_jax.step import TrainState, Weights, class_sharded

Tree = Any
FOLDER = "checkpoints"
CORRUPT_FOLDER = "corrupt_checkpoints"  # beside it: what could not be read, set aside
BEST_METRIC = "auc"
TEMPORARY = ".orbax-checkpoint-tmp"  # in the names of what is not whole yet
SAVE_TIMEOUT = 600  # seconds until processes no longer wait for one whose write failed


class UnreadableError(UserError):
    """A checkpoint that is damaged, or of no known form."""


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


def _is_not_orbax(record: logging.LogRecord) -> bool:
    # It logs one failed save as ten tracebacks; `warn` says it in a line.
    return f"{os.sep}orbax{os.sep}" not in record.pathname


class _Best(PreservationPolicy):
    """Keeps the checkpoint with the highest score by step, of several the newest.

    Orbax's own keeps scores in a file of their own, and does not start where that is damaged.
    """

    def __init__(self, scores: Mapping[int, float]) -> None:
        self._scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """As PreservationPolicy has it."""
        scored = [info.step for info in checkpoints if info.step in self._scores]
        best = max(scored, key=lambda step: (self._scores[step], step), default=None)
        return [info.step == best for info in checkpoints]


class Checkpoints:
    """The checkpoints of one workdir, in workdir/checkpoints/STEP.

    A save that fails, at once or later in the background, is reported by `warn` and leaves
    `failing` True until one succeeds; older checkpoints are removed only after a newer one is
    whole.
    """

    def __init__(
        self, workdir: Path, keep: int = 1, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._workdir = workdir
        self.folder = (workdir / FOLDER).absolute()
        logging.getLogger("absl").addFilter(_is_not_orbax)  # once, however often it is added
        self._scores: dict[int, float] = {}
        policy = AnyPreservationPolicy([LatestN(keep), _Best(self._scores)])
        self._warn = warn
        self._saving: int | None = None  # the step of a save whose end was not seen yet
        self.failing = False
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(timeout_secs=SAVE_TIMEOUT),
            ),
            item_names=("state", "run"),
        )
        for step in self._steps():
            if (score := _score(self.folder / str(step))) is not None:
                self._scores[step] = score

    def latest(self) -> int | None:
        """The newest step that was saved whole, None where there is none."""
        return max(self._steps(), default=None)

    def _steps(self) -> list[int]:
        return [step for step in self._manager.all_steps() if step != self._saving]

    def save(
        self,
        state: TrainState,
        run: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Saves the state in the background; waits for an earlier save that still runs.

        `state` is global (parallel.py) or of host arrays. `run` is JSON (config and position in the
        data). With `metrics`, which must hold BEST_METRIC, the checkpoint competes for being the
        best. A step that is there already is left as it is.
        """
        step = int(state.step)
        self.wait()
        if self.failing:
            self._tidy()  # again: what failed may have gone on writing for a while
        if step in self._steps():
            return
        self._scores.pop(step, None)
        if metrics:
            run = {**run, "metrics": dict(metrics)}
            self._scores[step] = metrics[BEST_METRIC]
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(_to_tree(state)), run=ocp.args.JsonSave(dict(run))
        )
        self._saving = step
        self._guarded(lambda: self._manager.save(step, args=items, force=True))

    def poll(self) -> None:
        """Notices, without waiting, how a save in the background ended."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> bool:
        """Returns once the last save has ended: whether it is whole."""
        if self._saving is not None and self._guarded(self._manager.wait_until_finished):
            self._saving = None
            self.failing = False
        return not self.failing

    def _guarded(self, act: Callable[[], Any]) -> bool:
        """Whether `act` raised nothing; otherwise warns and takes stock of what is on disk."""
        try:
            act()
        # What fails here is a disk, a network or a peer, by many types of exception; training
        # goes on whichever it was.
        except Exception as e:
            step, self._saving, self.failing = self._saving, None, True
            reason = " ".join(str(e).split())[:300] or type(e).__name__
            self._tidy()
            last = self.latest()
            self._warn(
                f"{self.folder}: step {step} was not saved ({reason}); "
                + (
                    f"the last checkpoint is {last}; "
                    if last is not None
                    else "none is there yet; "
                )
                + "training goes on and tries again"
            )
            return False
        return True

    def _tidy(self) -> None:
        """Removes what a failed save left, for the room it takes, and lists what is there."""
        if distributed.is_main():
            for half_written in self.folder.glob(f"*{TEMPORARY}*"):
                shutil.rmtree(half_written, ignore_errors=True)
        self._manager.reload()

    def restore_newest(
        self, template: TrainState, abstract: TrainState
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest readable checkpoint: its global state and run JSON; None where there is none.

        `template` is the global state's shapes and shardings, `abstract` the logical state's
        shapes. Newer checkpoints that cannot be read are moved to workdir/corrupt_checkpoints, with
        a warning. Raises UserError where a checkpoint's shapes are not these, and where none of
        several can be read: then all stay where they are.
        """
        damaged: list[tuple[int, str]] = []
        for step in sorted(self._steps(), reverse=True):
            folder = self.folder / str(step)
            try:
                result = _restore(folder, template, abstract)
                reason = ""
            except UnreadableError as e:
                result, reason = None, str(e)
            if distributed.all_agree(result is not None):
                self._set_aside(damaged)
                return result
            damaged.append((step, reason or "another process could not read it"))
        if damaged:
            raise UserError(
                f"{self.folder}: none of {len(damaged)} checkpoints can be read; the newest: "
                f"{damaged[0][1]}; move the folder away to start anew"
            )
        return None

    def _set_aside(self, damaged: list[tuple[int, str]]) -> None:
        for step, reason in damaged:
            target = self._workdir / CORRUPT_FOLDER / str(step)
            if distributed.is_main():
                target.parent.mkdir(exist_ok=True)
                while target.exists():
                    target = target.with_name(f"{target.name}+")
                (self.folder / str(step)).rename(target)
            self._warn(f"{reason}; moved to {target}, the checkpoint before it is used")
        if damaged:
            distributed.barrier("checkpoints set aside")
            self._manager.reload()

    def close(self) -> None:
        """Waits for all saves and releases the directory."""
        self.wait()
        self._manager.close()


@contextmanager
def _reading(folder: Path) -> Iterator[ocp.Checkpointer]:
    """A reader that waits for no other process: one may fail where the others succeed.

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


def _score(folder: Path) -> float | None:
    """What a checkpoint was worth; None where that was not measured, or cannot be read."""
    try:
        with _reading(folder) as checkpointer:
            only = ocp.args.Composite(run=ocp.args.JsonRestore())
            return float(checkpointer.restore(folder, only)["run"]["metrics"][BEST_METRIC])
    except UserError:
        return None


def _open(checkpointer: ocp.Checkpointer, folder: Path) -> tuple[TrainState, dict[str, Any]]:
    """(shapes and dtypes as they are on disk, run JSON)."""
    metadata = checkpointer.metadata(folder).item_metadata["state"]
    stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), metadata.tree)
    run = checkpointer.restore(folder, ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
    return _from_tree(stored), run


def _logical(stored: TrainState, run: Mapping[str, Any]) -> TrainState:
    """The shapes of what `stored` holds without the rows that fill up."""
    return jax.tree.map(
        lambda x, rows: jax.ShapeDtypeStruct((*rows, *x.shape[len(rows) :]), x.dtype),
        stored, _rows(run, stored),
    )  # fmt: skip


def _rows(run: Mapping[str, Any], stored: TrainState) -> Tree:
    """How many rows of each array are logical: None where all are."""
    classes = run["data"].get("num_classes", 0)

    def rows(x: Any, sharded: bool) -> tuple[int, ...]:
        # A foreign network without a head has one row and no classes (weights/workdir.py).
        return (min(classes, x.shape[0]) or x.shape[0],) if sharded else ()

    return jax.tree.map(rows, stored, class_sharded(stored))


def _restore(
    folder: Path, template: TrainState, abstract: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """Global state and run JSON of one checkpoint; UserError where its shapes are others."""
    with _reading(folder) as checkpointer:
        stored, run = _open(checkpointer, folder)
        if other := first_other_shape(_logical(stored, run), abstract):
            name, theirs, ours = other
            raise UserError(f"{folder}: {name} has shape {theirs}, this config needs {ours}")
        tree = _to_tree(template)
        restore = ocp.args.PyTreeRestore(item=tree, restore_args=_placed(tree))
        items = checkpointer.restore(folder, ocp.args.Composite(state=restore))
    return _from_tree(items["state"]), run


def read(path: str | Path) -> tuple[TrainState, dict[str, Any]]:
    """The logical state and the run JSON of a workdir's newest checkpoint, or of a checkpoint.

    Raises UserError where there is none, UnreadableError where it is damaged.
    """
    workdir, step = locate(path)
    folder = (workdir / FOLDER / str(step)).absolute()
    with _reading(folder) as checkpointer:
        stored, run = _open(checkpointer, folder)
        tree = _to_tree(stored)
        arguments = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restore = ocp.args.PyTreeRestore(item=tree, restore_args=arguments)
        state = _from_tree(checkpointer.restore(folder, ocp.args.Composite(state=restore))["state"])
        return jax.tree.map(
            lambda x, rows: x[slice(*rows)] if rows else x, state, _rows(run, stored)
        ), run


def read_network(path: str | Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Step, the network's variables as host arrays and the run JSON, as `read` finds them.

    Prototypes and momentum, which may be more than this machine holds, stay on disk.
    """
    workdir, step = locate(path)
    folder = (workdir / FOLDER / str(step)).absolute()
    with _reading(folder) as checkpointer:
        stored, run = _open(checkpointer, folder)
        wanted = {"weights": {"network": stored.weights.network}, "batch_stats": stored.batch_stats}
        arguments = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        tree = _restore_part(checkpointer, folder, wanted, arguments)
    variables = {"params": tree["weights"]["network"], "batch_stats": tree["batch_stats"]}
    return step, variables, run


def read_into(path: str | Path, state: TrainState, abstract: TrainState) -> TrainState:
    """`state` with what another training can give it: network, statistics, and perhaps the head.

    `state` is global (parallel.py), `abstract` has its logical shapes. Prototypes and bias are
    taken where both have these. Raises UserError where the network is another one, or where there
    is no readable checkpoint.
    """
    workdir, step = locate(path)
    folder = (workdir / FOLDER / str(step)).absolute()
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
    """The arrays that `wanted` names, and nothing else of the state."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), wanted)
    restore = ocp.args.PyTreeRestore(item=shapes, restore_args=arguments, partial_restore=True)
    return checkpointer.restore(folder, ocp.args.Composite(state=restore))["state"]


def _placed(arrays: Tree) -> Tree:
    """Asks for arrays where and as large as these are.

    Not strict: rows beyond those on disk become zeros, what fills up there is left.
    """
    return jax.tree.map(
        lambda x: ocp.ArrayRestoreArgs(
            sharding=x.sharding, global_shape=x.shape, dtype=x.dtype, strict=False
        ),
        arrays,
    )


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
