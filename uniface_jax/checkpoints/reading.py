"""Reads checkpoints by Orbax; saving.py writes them, and no other room knows Orbax.

A checkpoint holds the training state and, as JSON, the config and the position in the data. The
padding rows of the last shards are on disk after row num_classes of the data's position and are
cut off, or made anew, by every reader: what is read is the logical state, on any number of devices
and processes. Every process reads the shards that it needs, so that none ever holds all prototypes.
What was read is compared with the digests that were saved with it (digests.py), small files before
Orbax opens them.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from uniface_jax.checkpoints import digests, late_answers
from uniface_jax.checkpoints.shapes import first_other_shape
from uniface_jax.errors import UserError
from uniface_jax.files.printable import printable
from uniface_jax.head.beside import QUALITY, alone
from uniface_jax.runtime import processes
from uniface_jax.state import Average, TrainState, Weights, class_sharded

Tree = Any
FOLDER = "checkpoints"
STATE, RUN = "state", "run"  # a checkpoint's folders: arrays, and JSON in a file "metadata"
CORRUPT_FOLDER = "corrupt_checkpoints"  # beside it: what could not be read, set aside
BEST_METRIC = "auc"
TEMPORARY = ".orbax-checkpoint-tmp"  # in the names of what is not whole yet
WEIGHTS = ("raw", "ema")  # of a network: as they are, or the mean that config.optim.ema keeps
FORMAT = 2  # 1 had no digests
FORMAT_KEY = "format"  # in the run JSON; format 1 had none
# Parts of a state that are named tuples; the last three are not in every checkpoint.
_PARTS: Mapping[str, Callable[..., Any]] = {
    "weights": Weights,
    "momentum": Weights,
    "second_moments": Weights,
    "updates": Weights,
    "average": Average,
}

Warn = Callable[[str], None]


class UnreadableError(UserError):
    """A checkpoint that is damaged, or of no known form."""


def to_tree(state: TrainState) -> dict[str, Any]:
    """Turn a state into named dictionaries, to be read without this project's classes.

    What a run does not have is left out, within the parts too.
    """

    def named(part: Any) -> dict[str, Any]:
        return {name: value for name, value in part._asdict().items() if value is not None}

    return {name: named(value) if name in _PARTS else value for name, value in named(state).items()}


def _from_tree(tree: Mapping[str, Any]) -> TrainState:
    parts = {name: part(**tree[name]) for name, part in _PARTS.items() if name in tree}
    return TrainState(
        step=tree["step"],
        batch_stats=tree["batch_stats"],
        loss_statistics=tree.get("loss_statistics") or {},
        memory=tree.get("memory"),
        **parts,
    )


@contextmanager
def _reading(folder: Path) -> Iterator[ocp.PyTreeCheckpointHandler]:
    """Open a reader of arrays that waits for no other process: one may fail where others succeed.

    What a damaged checkpoint makes it raise becomes UnreadableError.
    """
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    late_answers.silence()
    try:
        yield handler
    except (UserError, PermissionError):
        raise  # no word about the checkpoint
    except Exception as e:  # Orbax raises many kinds, Exception itself among them
        if isinstance(e, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(e):
            raise  # no room in a device's memory
        reason = " ".join(str(e).split())[:300] or type(e).__name__
        raise UnreadableError(
            f"{folder}: not a readable checkpoint of this project ({reason})"
        ) from e
    finally:
        handler.close()


@contextmanager
def _reading_given(path: str | Path) -> Iterator[tuple[ocp.PyTreeCheckpointHandler, int, Path]]:
    """Find the step and folder as `locate` does, and open a reader as _reading does.

    Nothing falls back here, where a result of another step would be a wrong one: UnreadableError
    names the checkpoint before instead.
    """
    workdir, step = locate(path)
    folder = workdir / FOLDER
    try:
        with _reading((folder / str(step)).absolute()) as handler:
            yield handler, step, (folder / str(step)).absolute()
    except UnreadableError as e:
        before = [other for other in ocp.utils.checkpoint_steps(folder.absolute()) if other < step]
        way = f"; the one before is {folder / str(max(before))}" if before else ""
        raise UnreadableError(f"{e}{way}") from e


def score_of(folder: Path) -> float | None:
    """Return the score of a checkpoint; None where it was not measured, or cannot be read."""
    try:
        with _reading(folder):
            digests.read(folder)
            return float(_run_json(folder)["metrics"][BEST_METRIC])
    except UserError:
        return None


def _run_json(folder: Path) -> dict[str, Any]:
    run = digests.read_part(folder / RUN / "metadata")
    if not isinstance(run, dict):
        raise ValueError("its run JSON is no object")
    return run


class _Opened(NamedTuple):
    """A checkpoint whose small files are as they were saved.

    stored: shapes and dtypes as they are on disk. run: the run JSON. saved: the arrays' digests;
    None for a checkpoint of format 1.
    """

    folder: Path
    stored: TrainState
    run: dict[str, Any]
    saved: digests.Digests | None

    def check(self, arrays: Tree, warn: Warn) -> None:
        """Compare restored arrays with their digests, or say that there are none.

        Raises ValueError where they differ.
        """
        if self.saved is not None:
            digests.check(arrays, self.saved, self._rows_on_disk)
        elif processes.is_main():
            warn(f"{self.folder}: from before checkpoints had digests; damage may go unnoticed")

    def _rows_on_disk(self, name: str, start: int, stop: int) -> np.ndarray:
        """Read some rows of an array that were restored elsewhere, if anywhere."""
        base = {"driver": "file", "path": f"{self.folder / STATE}/"}
        store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        array = tensorstore.open({"driver": "zarr", "kvstore": store}, read=True).result()
        rows: np.ndarray = array[start:stop].read().result()
        return rows


def _open(handler: ocp.PyTreeCheckpointHandler, folder: Path) -> _Opened:
    """Check the small files, and read what stands in them."""
    saved = digests.read(folder)
    run = _run_json(folder)
    if not isinstance(run.get("config"), str) or not isinstance(run.get("data"), dict):
        raise UnreadableError(f"{folder}: its run metadata names no config, or no data")
    written = run.pop(FORMAT_KEY, 1)
    if written > FORMAT:
        raise UserError(f"{folder}: format {written}; this version reads up to {FORMAT}")
    metadata = handler.metadata(folder / STATE)
    tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), metadata.tree)
    stored = _from_tree(tree)
    if saved is not None:
        digests.check_shapes(to_tree(logical(stored, run)), saved)
    elif written > 1:
        raise ValueError("its digests are missing")
    return _Opened(folder, stored, run, saved)


def _say(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


def logical(stored: TrainState, run: Mapping[str, Any]) -> TrainState:
    """Return the shapes and dtypes of what `stored` holds, without padding rows."""
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
    folder: Path, template: TrainState, abstract: TrainState, warn: Warn
) -> tuple[TrainState, dict[str, Any]]:
    """Restore a checkpoint's global state and run JSON; UserError for other shapes.

    `warn` is told of a checkpoint that has no digests.
    """
    with _reading(folder) as handler:
        opened = _open(handler, folder)
        if other := first_other_shape(logical(opened.stored, opened.run), abstract):
            name, theirs, ours = other
            raise UserError(f"{folder}: {name} has shape {theirs}, this config needs {ours}")
        tree = to_tree(template)
        restore = ocp.args.PyTreeRestore(item=tree, restore_args=_placed(tree))
        arrays = handler.restore(folder / STATE, args=restore)
        opened.check(arrays, warn)
    return _from_tree(arrays), opened.run


def read(path: str | Path) -> tuple[TrainState, dict[str, Any]]:
    """Read the logical state and run JSON of a checkpoint, or of a workdir's newest.

    Raises UserError where there is none, UnreadableError where it is damaged.
    """
    with _reading_given(path) as (handler, _, folder):
        opened = _open(handler, folder)
        tree = to_tree(opened.stored)
        arguments = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restore = ocp.args.PyTreeRestore(item=tree, restore_args=arguments)
        arrays = handler.restore(folder / STATE, args=restore)
        opened.check(arrays, _say)
    state, rows = _from_tree(arrays), _rows(opened.run, opened.stored)
    return jax.tree.map(lambda x, n: x[slice(*n)] if n else x, state, rows), opened.run


def read_network(
    path: str | Path, weights: str = WEIGHTS[0]
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Read the step, the network's variables as host arrays and the run JSON, as `read`.

    weights: of WEIGHTS; UserError where the run has kept no mean. Prototypes and momentum, which
    may be more than this machine holds, stay on disk.
    """
    with _reading_given(path) as (handler, step, folder):
        opened = _open(handler, folder)
        if weights == "ema":
            return step, _mean(handler, opened), opened.run
        network, batch_stats = opened.stored.weights.network, opened.stored.batch_stats
        wanted = {"weights": {"network": network}, "batch_stats": batch_stats}
        tree = _on_host(handler, opened, wanted)
    variables = {
        "params": alone(tree["weights"]["network"]),
        "batch_stats": tree["batch_stats"],
    }
    return step, variables, opened.run


def _mean(handler: ocp.PyTreeCheckpointHandler, opened: _Opened) -> dict[str, Any]:
    """Read the network's variables in the mean of the weights."""
    if opened.stored.average is None:
        raise UserError(
            f"{opened.folder}: --weights=ema: the run has kept no mean of the weights "
            "(config.optim.ema); take --weights=raw"
        )
    stored = opened.stored.average
    wanted = {"average": stored._asdict()}
    tree = _on_host(handler, opened, wanted)["average"]
    if not tree["updates"]:
        raise UserError(f"{opened.folder}: --weights=ema: all steps were skipped; there is no mean")
    return {"params": alone(tree["network"]), "batch_stats": tree["batch_stats"]}


def read_quality(path: str | Path, weights: str = WEIGHTS[0]) -> dict[str, np.ndarray] | None:
    """Read the head of the quality, kernel [D] and bias [], as read_network; None without one."""
    with _reading_given(path) as (handler, _, folder):
        opened = _open(handler, folder)
        part = "average" if weights == "ema" else "weights"
        stored = getattr(opened.stored, part)
        if stored is None or QUALITY not in stored.network:
            return None
        wanted = {part: {"network": {QUALITY: stored.network[QUALITY]}}}
        tree = _on_host(handler, opened, wanted)
    return dict(tree[part]["network"][QUALITY])


def read_head(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the prototypes [C, D] and the bias [] or [C], without padding rows, as `read`."""
    with _reading_given(path) as (handler, _, folder):
        opened = _open(handler, folder)
        names = ("prototypes", "bias")
        head = {name: getattr(opened.stored.weights, name) for name in names}
        rows = _rows(opened.run, opened.stored).weights
        wanted = {"weights": head}
        tree = _on_host(handler, opened, wanted)["weights"]
    cut = {name: tree[name][slice(*getattr(rows, name))] if getattr(rows, name) else tree[name]
           for name in names}  # fmt: skip
    return cut["prototypes"], cut["bias"]


def read_into(path: str | Path, state: TrainState, abstract: TrainState) -> TrainState:
    """Read into `state` what another training can give: network, statistics, maybe head.

    `state` is global (runtime.parallel), `abstract` has its logical shapes. Prototypes and bias are
    taken where both have these. Raises UserError where the network is another one, or where there
    is no readable checkpoint.
    """
    with _reading_given(path) as (handler, _, folder):
        opened = _open(handler, folder)
        found = logical(opened.stored, opened.run).weights
        ours, theirs = (alone(x.network) for x in (abstract.weights, found))
        if other := first_other_shape(theirs, ours):
            raise UserError(
                "{} has shape {}, this config's network has {}; give the same config.model".format(
                    *other
                )
            )
        network = alone(state.weights.network)
        if QUALITY in found.network and QUALITY in state.weights.network:
            network[QUALITY] = state.weights.network[QUALITY]
        weights, heads = {"network": network}, ("prototypes", "bias")
        if all(
            getattr(found, name).shape == getattr(abstract.weights, name).shape for name in heads
        ):
            weights |= {name: getattr(state.weights, name) for name in heads}
        wanted = {"weights": weights, "batch_stats": state.batch_stats}
        tree = _restore_part(handler, opened, wanted, _placed(wanted))
    # A map to a teacher is this run's own, as drawn; so is a quality head that the other had not.
    network = {**state.weights.network, **tree["weights"].pop("network")}
    read = state.weights._replace(network=network, **tree["weights"])
    return state._replace(weights=read, batch_stats=tree["batch_stats"])


def _on_host(handler: ocp.PyTreeCheckpointHandler, opened: _Opened, wanted: Tree) -> dict[str, Any]:
    """Restore the arrays that `wanted` names as host arrays."""
    arguments = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    return _restore_part(handler, opened, wanted, arguments)


def _restore_part(
    handler: ocp.PyTreeCheckpointHandler, opened: _Opened, wanted: Tree, arguments: Tree
) -> dict[str, Any]:
    """Restore the arrays that `wanted` names, and nothing else of the state."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), wanted)
    restore = ocp.args.PyTreeRestore(item=shapes, restore_args=arguments, partial_restore=True)
    restored: dict[str, Any] = handler.restore(opened.folder / STATE, args=restore)
    opened.check(restored, _say)
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
    steps = _finished_steps(folder)
    if not steps or (wanted is not None and wanted not in steps):
        found = f"has steps {', '.join(map(str, steps))}" if steps else "has no finished checkpoint"
        raise UserError(f"{path}: {folder} {found}; give a workdir of uniface_jax.train")
    return workdir, steps[-1] if wanted is None else wanted


def is_begun(workdir: Path) -> bool:
    """Return True where a run has left a checkpoint here, be it one that cannot be read."""
    return bool(_finished_steps(workdir / FOLDER)) or (workdir / CORRUPT_FOLDER).is_dir()


def _finished_steps(folder: Path) -> list[int]:
    return sorted(ocp.utils.checkpoint_steps(folder.absolute())) if folder.is_dir() else []
