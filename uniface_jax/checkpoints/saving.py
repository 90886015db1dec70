"""Saves checkpoints: asynchronous, atomic, the last k and the best kept.

Every process writes its own shards of the global arrays (runtime.parallel); reading.py reads them.
"""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    LatestN,
    PreservationPolicy,
)

from uniface_jax.checkpoints import digests, late_answers, scores
from uniface_jax.checkpoints.digest_item import DigestHandler, SaveDigests
from uniface_jax.checkpoints.reading import (
    BEST_METRIC,
    CORRUPT_FOLDER,
    FOLDER,
    FORMAT,
    FORMAT_KEY,
    RUN,
    STATE,
    TEMPORARY,
    UnreadableError,
    logical,
    restore_state,
    score_of,
    to_tree,
)
from uniface_jax.errors import UserError
from uniface_jax.runtime import processes
from uniface_jax.state import TrainState

SAVE_TIMEOUT = 600  # seconds until processes no longer wait for one whose write failed


def _is_not_orbax(record: logging.LogRecord) -> bool:
    # It logs one failed save as ten tracebacks; `warn` says it in a line.
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def left_waiting() -> bool:
    """Return True while Orbax's threads of failed saves wait for files that never come.

    They do for minutes, and a process that ends as usual waits for them.
    """
    return any(
        type(thread).__module__.startswith("orbax") and not thread.daemon
        for thread in threading.enumerate()
    )


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Return what writes the items, in the order in which they are finalized.

    The digests come last: the files of the others must be whole before theirs are made.
    """
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add(STATE, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler())
    registry.add(RUN, ocp.args.JsonSave, ocp.JsonCheckpointHandler())
    registry.add(digests.FOLDER, SaveDigests, DigestHandler())
    return registry


def _open(folder: Path, options: Any) -> Any:
    """Return Orbax's manager of a folder; UserError where a checkpoint's metadata is damaged."""
    try:
        return ocp.CheckpointManager(folder, options=options, handler_registry=_handlers())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"{folder}: a checkpoint's metadata cannot be read ({reason}); move the damaged one "
            "away"
        ) from e


class _Best(PreservationPolicy):  # type: ignore[misc]  # Orbax has no types
    """Keeps the checkpoint with the highest score by step, of several the newest.

    Orbax's own keeps scores in a file of their own, and does not start where that is damaged.
    """

    def __init__(self) -> None:
        self.scores: Mapping[int, float] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Choose the checkpoints to keep, by PreservationPolicy's protocol."""
        scored = [info.step for info in checkpoints if info.step in self.scores]
        best = max(scored, key=lambda step: (self.scores[step], step), default=None)
        return [info.step == best for info in checkpoints]


class Checkpoints:
    """Checkpoints of one workdir, in workdir/checkpoints/STEP.

    A save that fails, at once or later in the background, is reported by `warn` and leaves
    `failing` True until one succeeds, and why in `reason`; older checkpoints are removed only after
    a newer one is whole.
    """

    def __init__(
        self, workdir: Path, keep: int = 1, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._workdir = workdir
        self.folder = (workdir / FOLDER).absolute()
        late_answers.silence()
        logging.getLogger("absl").addFilter(_is_not_orbax)  # once, however often it is added
        self._scores: dict[int, float] = {}
        self._best = _Best()
        policy = AnyPreservationPolicy([LatestN(keep), self._best])
        self._warn = warn
        self._saving: int | None = None  # the step of a save whose end was not seen yet
        self.failing = False
        self.reason = ""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(timeout_secs=SAVE_TIMEOUT),
        )
        try:
            self._manager = _open(self.folder, options)
        except UserError:
            # Its last small file is read here already, though no state depends on it.
            if processes.is_main():
                for file in self.folder.glob(f"*/{digests.LATE_FILE}"):
                    file.unlink()
            processes.barrier("metadata removed")
            self._manager = _open(self.folder, options)
        self._scores |= scores.read(workdir)
        for step in self._steps():
            if (score := score_of(self.folder / str(step))) is not None:
                self._scores[step] = score
        self._best.scores = self._scores

    def latest(self) -> int | None:
        """Return the newest step that was saved whole, None where there is none."""
        return max(self._steps(), default=None)

    def _steps(self) -> list[int]:
        return [step for step in self._manager.all_steps() if step != self._saving]

    def save(self, state: TrainState, run: Mapping[str, Any]) -> None:
        """Save the state in the background; wait for an earlier save that still runs.

        `state` is global (runtime.parallel) or of host arrays. `run` is JSON (config and position
        in the data). A step that is there already is left as it is.
        """
        step = int(state.step)
        self.wait()
        if self.failing:
            self._tidy()  # again: what failed may have gone on writing for a while
        if step in self._steps():
            return
        self._scores.pop(step, None)
        self._saving = step
        self._guarded(lambda: self._manager.save(step, args=self._items(state, run), force=True))

    def _items(self, state: TrainState, run: Mapping[str, Any]) -> ocp.args.Composite:
        """Return what Orbax is to write."""
        tree, shapes = to_tree(state), to_tree(logical(state, run))
        return ocp.args.Composite(
            **{
                STATE: ocp.args.PyTreeSave(tree),
                RUN: ocp.args.JsonSave({**run, FORMAT_KEY: FORMAT}),
                digests.FOLDER: SaveDigests(tree, shapes),
            }
        )

    def score(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note how the checkpoint of a step scored: it competes for being kept as the best.

        metrics: of its evaluation, BEST_METRIC among them.
        """
        self._scores[step] = metrics[BEST_METRIC]
        known = {*self._steps(), step}
        self._scores = {step: value for step, value in self._scores.items() if step in known}
        self._best.scores = self._scores
        if processes.is_main():
            try:
                scores.write(self._workdir, self._scores)
            except OSError as e:  # a full disk is no reason to stop
                self._warn(f"{self._workdir / scores.SCORES_FILE}: not written ({e.strerror})")

    def poll(self) -> None:
        """Notice, without waiting, how a save in the background ended."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> bool:
        """Wait until the last save has ended; return True where it is whole."""
        if self._saving is not None and self._guarded(self._manager.wait_until_finished):
            self._saving = None
            self.failing = False
        return not self.failing

    def _guarded(self, act: Callable[[], Any]) -> bool:
        """Run `act`; where it raises, warn, list what is on disk and return False."""
        try:
            act()
        # What fails here is a disk, a network or a peer, by many types of exception; training
        # continues whichever it was.
        except Exception as e:
            step, self._saving, self.failing = self._saving, None, True
            reason = self.reason = " ".join(str(e).split())[:300] or type(e).__name__
            self._tidy()
            last = self.latest()
            self._warn(
                f"{self.folder}: step {step} was not saved ({reason}); "
                + (
                    f"the last checkpoint is {last}; "
                    if last is not None
                    else "none is there yet; "
                )
                + "training continues and tries again"
            )
            return False
        return True

    def _tidy(self) -> None:
        """Remove what a failed save left, for the room it takes, and list what is there."""
        if processes.is_main():
            for half_written in self.folder.glob(f"*{TEMPORARY}*"):
                shutil.rmtree(half_written, ignore_errors=True)
        self._manager.reload()

    def restore_newest(
        self, template: TrainState, abstract: TrainState
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Restore the newest readable checkpoint: global state and run JSON; None for none.

        `template` is the global state's shapes and shardings, `abstract` the logical state's
        shapes. Newer checkpoints that cannot be read are moved to workdir/corrupt_checkpoints, with
        a warning. Raises UserError where a checkpoint's shapes are not these, and where none of
        several can be read: then all stay where they are.
        """
        damaged: list[tuple[int, str]] = []
        for step in sorted(self._steps(), reverse=True):
            folder = self.folder / str(step)
            try:
                result = restore_state(folder, template, abstract, self._warn)
                reason = ""
            except UnreadableError as e:
                result, reason = None, str(e)
            if processes.all_agree(result is not None):
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
            if processes.is_main():
                target.parent.mkdir(exist_ok=True)
                while target.exists():
                    target = target.with_name(f"{target.name}+")
                (self.folder / str(step)).rename(target)
            self._warn(f"{reason}; moved to {target}, the checkpoint before it is used")
        if damaged:
            processes.barrier("checkpoints set aside")
            self._manager.reload()

    def close(self) -> None:
        """Wait for all saves and release the directory."""
        self.wait()
        self._manager.close()
