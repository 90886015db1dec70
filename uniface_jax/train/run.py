"""The steps of a run: taken, logged, saved and evaluated until the end, whichever it is."""

import collections
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax

from uniface_jax import config as configs
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.data.input.workers import WorkerLostError
from uniface_jax.errors import UserError
from uniface_jax.head.beside import alone
from uniface_jax.runtime import debug, kept_memory, processes
from uniface_jax.runtime.parallel import Runner, compiled_for
from uniface_jax.runtime.profiling import Profile
from uniface_jax.train import memory_limits
from uniface_jax.train.from_config import Recipe
from uniface_jax.train.hooks import Hooks
from uniface_jax.train.nonfinite import FiniteGuard, NotFiniteError
from uniface_jax.train.run_log import (
    Clock,
    RunLog,
    console_line,
    duration,
    warn,
)
from uniface_jax.train.skipped_images import SkippedImages
from uniface_jax.train.stop_signal import StopSignal
from uniface_jax.train.validation import Evaluator
from uniface_jax.train.watchdog import Watchdog

Batch = Mapping[str, Any]
STEP_KEYS = ("image", "label", "landmarks", "teacher")  # of a batch, that the step is given
# On the device before they are needed. StopSignal.end_all needs two: as many steps as another
# process may be ahead.
PREFETCHED_BATCHES = 2
LAST_PAUSES = (1, 5, 20)  # seconds after each try to save the last state


class NotSavedError(RuntimeError):
    """Last state could not be saved; the message says why and what there is."""


class Preempted(Exception):  # noqa: N818 (nothing went wrong)
    """Run was told to stop, and is saved: the same command resumes it."""


def prefetch(
    batches: Iterator[Batch],
    put: Callable[[Batch], Batch],
    failing: Callable[[Exception, int], None] = lambda error, left: None,
) -> Iterator[tuple[Batch, Batch]]:
    """Yield (host, device batch) with PREFETCHED_BATCHES on the device ahead of the one in use.

    Where the input fails, `failing` is told what it raised and how many batches are left. These are
    given first, and then the error is raised.
    """
    queue: collections.deque[tuple[Batch, Batch]] = collections.deque()
    failure: Exception | None = None
    try:
        for batch in batches:
            queue.append((batch, put({key: batch[key] for key in STEP_KEYS if key in batch})))
            if len(queue) > PREFETCHED_BATCHES:
                yield queue.popleft()
    except (UserError, WorkerLostError, OSError) as e:
        failure = e
        failing(e, len(queue))
    yield from queue
    if failure is not None:
        raise failure


@dataclass
class Position:
    """Where a run is: what changes with every step.

    placed: the state on the devices. compiled: whether train_step is for arrays like these.
    pending: step, metrics and batch of the newest step, until they are read: the devices may not
    have finished it. values: the metrics that were read last.
    """

    step: int
    placed: Any
    train_step: Callable[[Any, Batch], tuple[Any, Mapping[str, Any]]]
    compiled: bool = False
    pending: tuple[int, Mapping[str, Any], Batch] | None = None
    values: dict[str, float] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start of this process's part of the run."""
        return time.perf_counter() - self.started


class Run(NamedTuple):
    """Run: what stays the same during it.

    sets: of the training set, as a resumed run has to find them again; JSON.
    """

    recipe: Recipe
    runner: Runner
    checkpoints: Checkpoints
    evaluate: Evaluator
    guard: FiniteGuard
    skipped: SkippedImages
    watchdog: Watchdog
    profile: Profile
    log: RunLog
    sets: Sequence[Mapping[str, Any]]
    hooks: Hooks

    def announce(self, data: Sequence[str], first: int, workdir: Path) -> None:
        """Say in the first lines what is trained on what. data: the training set, and its sets."""
        devices, recipe = self.runner.devices, self.recipe
        self.log.line(
            f"{data[0]}: {recipe.num_images} images of {recipe.num_classes} classes;"
            f" {len(devices)} x {devices[0].device_kind}, batch {recipe.config.batch_size}"
            f" (batch norm sees {recipe.batch_norm_group(len(devices))}),"
            f" {recipe.schedule.total_steps} steps"
        )
        for line in data[1:]:
            self.log.line(line)
        if first:
            self.log.line(f"resumed {workdir} at step {first}")

    def whole(self, at: Position, batches: Iterator[Batch], stop: StopSignal) -> dict[str, float]:
        """Take all steps; where something fails on the way, save what is good before it is raised.

        In several processes the others are in the midst of a step then, and nothing can be saved,
        but where it is the input that fails: then all have agreed on a step and saved it.
        """
        first = at.step
        try:
            return self.loop(at, batches, stop)
        except (Preempted, NotSavedError, NotFiniteError, debug.CheckError, FloatingPointError):
            raise  # saved, not to be saved, or not good
        except Exception as e:
            alone = jax.process_count() == 1 and at.step > first
            if e is stop.failure or (alone and self._saved_after_all(at)):
                hint = f"; step {at.step} is saved, and the same command resumes there"
                if isinstance(e, UserError):
                    raise processes.AgreedError(f"{e}{hint} once that is mended") from e
                self.log.line(hint[2:])
            raise

    def loop(self, at: Position, batches: Iterator[Batch], stop: StopSignal) -> dict[str, float]:
        """Take steps until the end. Metrics are read one step late, so that devices never wait."""
        total = self.recipe.schedule.total_steps

        def failing(error: Exception, left: int) -> None:
            if jax.process_count() > 1 and at.step + left < total:
                stop.end_all(error)

        stream = prefetch(batches, self.runner.put, failing)
        while at.step < total and not stop.reached(at.step):
            self._step(at, stream)
            log, evaluate, save = self._due(at.step)
            if log or evaluate or save:
                self._read(at)
            if log:
                self._log(at)
            else:
                self.log.alive(at.step, at.values)
            if evaluate or save:
                self._save_and_evaluate(at, evaluate)
        self._read(at)
        self._save_for_good(at)
        if at.step < total and stop.failure:
            raise stop.failure
        if at.step < total:
            self.log.line(f"{stop.received}: saved step {at.step}; the same command resumes")
            raise KeyboardInterrupt if stop.interrupted else Preempted
        self.log.line(f"done in {duration(at.elapsed)}")
        return at.values

    def _step(self, at: Position, stream: Iterator[tuple[Batch, Batch]]) -> None:
        """Start the next step on the devices, and read the metrics of the one before."""
        config = self.recipe.config
        self.watchdog.at(f"waiting for the input of step {at.step + 1}")
        before = time.perf_counter()
        host_batch, batch = next(stream)
        at.clock.waited(time.perf_counter() - before, config.batch_size)
        if at.step == 0:
            self.log.images("input", 0, host_batch["image"][:16])
        self.watchdog.at(f"starting step {at.step + 1} (the first one compiles)")
        if traced := self.profile.at(at.step, at.placed):
            self.log.line(traced)
        # With debug.nans JAX runs the step's operations one by one, and needs the step for it.
        if first := not at.compiled and not config.debug.nans:
            self._compile(at, batch)
        # Looking for NaNs takes copies from the devices, which are otherwise a mistake.
        with (
            jax.transfer_guard("allow" if config.debug.nans else "disallow"),
            jax.profiler.StepTraceAnnotation("train", step_num=at.step),
        ):
            at.placed, metrics = at.train_step(at.placed, batch)
        if first:
            kept_memory.keep()
        at.step += 1
        self.skipped.count(host_batch)
        self._read(at)
        at.pending = (at.step, metrics, host_batch)
        self.log.advance(at.values)
        self.checkpoints.poll()

    def _compile(self, at: Position, batch: Batch) -> None:
        """Compile the step for arrays like these, and say so: it may take minutes."""
        self.log.line("compiling the step")
        began = time.perf_counter()
        at.train_step, at.compiled = compiled_for(at.train_step, at.placed, batch), True
        memory_limits.check_program(at.train_step, self.recipe.config, self.runner.devices)
        self.log.line(f"compiled in {duration(time.perf_counter() - began)}")

    def _due(self, step: int) -> tuple[bool, bool, bool]:
        """Return whether to log, to evaluate and to save after this step."""
        config, last = self.recipe.config, step == self.recipe.schedule.total_steps
        retry_steps = max(1, config.checkpoint.every_steps // 10)
        evaluate = bool(self.evaluate.sets) and (step % config.eval.every_steps == 0 or last)
        save = (
            step % config.checkpoint.every_steps == 0
            or last
            or (step % retry_steps == 0 and not processes.all_agree(not self.checkpoints.failing))
        )
        return step % config.log.every_steps == 0 or last, evaluate, save

    def _log(self, at: Position) -> None:
        """Write the metrics of the step, and how fast it went."""
        schedule = self.recipe.schedule
        at.values |= at.clock.report() | {"batch_size": self.recipe.config.batch_size}
        if self.recipe.config.data.on_error == "skip":
            at.values["skipped_images"] = self.skipped.total_of_all()
        epoch = at.step / schedule.steps_per_epoch
        scalars = at.values | {"epoch": epoch, "elapsed_seconds": at.elapsed}
        self.log.scalars(at.step, scalars)
        self.hooks.log(at.step, scalars)
        self.log.line(console_line(at.step, schedule.total_steps, epoch, at.values))

    def _save_and_evaluate(self, at: Position, evaluate: bool) -> None:
        """Save the state, and evaluate it where that is asked for: a fault there loses no step."""
        self._save(at)
        results = self._evaluate(at) if evaluate else {}
        if results:
            self.checkpoints.score(at.step, results)
            scalars = {f"eval/{key}": value for key, value in results.items()}
            self.log.scalars(at.step, scalars)
            self.hooks.evaluation(at.step, results)
            self.log.line(f"step {at.step}  {_describe(results)}")
            at.values |= results
        kept_memory.give_back()  # what evaluating took, before the next step lies behind it
        at.clock.restart()  # evaluating and saving is neither computing nor waiting for input

    def _read(self, at: Position) -> None:
        """Wait for the pending step's metrics; what is not finite warns, or is NotFiniteError."""
        if at.pending is None:
            return
        (step, metrics, batch), at.pending = at.pending, None
        self.watchdog.at(f"waiting for the devices to finish step {step}")
        read = jax.device_get(dict(metrics))
        if debug.ERROR in read:
            debug.raise_error(step, read.pop(debug.ERROR))
        values = {key: float(value) for key, value in read.items()}
        if warning := self.guard.check(step, values, batch, self.checkpoints.latest()):
            warn(warning)
        if self.guard.skipped:
            values["skipped_steps"] = self.guard.skipped
        at.values = values
        self.hooks.step(step, values)

    def _evaluate(self, at: Position) -> dict[str, float]:
        self.watchdog.at(f"evaluating step {at.step}")
        network = alone(at.placed.weights.network)
        variables = {"params": network, "batch_stats": at.placed.batch_stats}
        results = self.evaluate(self.runner.host(variables))
        mean = self.runner.host(at.placed.average)
        if mean is not None and mean.updates:  # where all steps were skipped there is none yet
            of_mean = self.evaluate(
                {"params": alone(mean.network), "batch_stats": mean.batch_stats}
            )
            results |= {f"ema/{key}": value for key, value in of_mean.items()}
        return results

    def _save(self, at: Position) -> None:
        self.watchdog.at(f"saving step {at.step}")
        recipe = self.recipe
        about = {
            "config": configs.to_json(recipe.config),
            "data": {
                "samples": at.step * recipe.config.batch_size,
                "num_examples": recipe.num_images,
                "num_classes": recipe.num_classes,
                "sets": self.sets,
            },
            "skipped_steps": self.guard.skipped,
            "skipped_images": self.skipped.total_of_all(),
        }
        self.checkpoints.save(self.runner.to_global(at.placed), about)

    def _saved_after_all(self, at: Position) -> bool:
        """Save the state of a run that something has ended, where it is good; return True if so."""
        if any(x.is_deleted() for x in jax.tree.leaves(at.placed)):  # given to a step that failed
            return False
        try:
            self._read(at)
            self._save_for_good(at)
        except (RuntimeError, FloatingPointError) as e:
            warn(f"step {at.step} was not saved: {' '.join(str(e).split())[:300]}")
            return False
        return True

    def _save_for_good(self, at: Position) -> None:
        """Return once the state is on disk, after several tries if need be."""
        for pause in LAST_PAUSES:
            self._save(at)
            if processes.all_agree(self.checkpoints.wait()):
                return
            time.sleep(pause)
        raise NotSavedError(
            f"{self.checkpoints.folder}: step {at.step} could not be saved, {len(LAST_PAUSES)} "
            f"times; the last checkpoint is {self.checkpoints.latest()}; make room, then the same "
            "command resumes there"
        )


def _describe(results: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {value:.4f}" for key, value in results.items())
