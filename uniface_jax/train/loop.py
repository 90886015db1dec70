"""A training run from start to end: train_and_evaluate(config, workdir) reads top to bottom."""

import collections
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import EXIT_LOST, UserError
from uniface_jax.files.paths import split_paths
from uniface_jax.runtime import compilation_cache, debug, processes, profiling
from uniface_jax.runtime.parallel import Runner, compiled_for, create_runner
from uniface_jax.runtime.profiling import Profile
from uniface_jax.state import class_sharded
from uniface_jax.train import batch_norm_groups, run_record, workdir_lock
from uniface_jax.train.from_config import Recipe, initial_state, make_recipe
from uniface_jax.train.nonfinite import FiniteGuard
from uniface_jax.train.run_log import (
    Clock,
    RunLog,
    console_line,
    duration,
    warn,
)
from uniface_jax.train.stop_signal import StopSignal
from uniface_jax.train.validation import Evaluator
from uniface_jax.train.watchdog import Watchdog

Batch = Mapping[str, Any]
PREFETCHED_BATCHES = 2  # on the device before they are needed
LAST_PAUSES = (1, 5, 20)  # seconds after each try to save the last state


class NotSavedError(RuntimeError):
    """Last state could not be saved; the message says why and what there is."""


class Preempted(Exception):  # noqa: N818 (nothing went wrong)
    """Run was told to stop, and is saved: the same command resumes it."""


def prefetch(
    batches: Iterator[Batch], put: Callable[[Batch], Batch]
) -> Iterator[tuple[Batch, Batch]]:
    """Yield (host, device batch) with PREFETCHED_BATCHES on the device ahead of the one in use."""
    queue: collections.deque[tuple[Batch, Batch]] = collections.deque()
    for batch in batches:
        queue.append((batch, put({key: batch[key] for key in ("image", "label")})))
        if len(queue) > PREFETCHED_BATCHES:
            yield queue.popleft()


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Train until config.steps or config.epochs, resuming what the workdir holds.

    Args:
        config: As a recipe's get_config() returns it.
        workdir: Gets config.json, run.json, metrics.jsonl, tensorboard/ and checkpoints/.

    Returns:
        The last metrics by name.

    Raises:
        UserError: Before any work, for what is wrong with config, data or workdir.
        NotFiniteError: When the loss is not finite.
        NotSavedError: When the last state is nowhere.
        Preempted: After saving, when told to stop (for SIGINT: KeyboardInterrupt).

    >>> from pathlib import Path
    >>> from uniface_jax import train_and_evaluate
    >>> from uniface_jax.config import base
    >>> config = base()
    >>> config.batch_size = 0
    >>> train_and_evaluate(config, Path("never_made"))
    Traceback (most recent call last):
    ...
    uniface_jax.errors.UserError: config.batch_size=0: must be > 0
    """
    config = configs.completed(config.to_dict())
    configs.check_values(config)
    compilation_cache.enable(config.compilation_cache)
    config = batch_norm_groups.adapt(config, workdir, jax.device_count())
    configs.check_batch(config, jax.device_count())
    _prepare_data(config)
    source = open_source(config.data.train)  # one cut short is refused now, without a workdir
    recipe = make_recipe(config, len(source), source.num_classes)
    evaluate = Evaluator(recipe)
    jax.config.update("jax_debug_nans", config.debug.nans)
    with ExitStack() as held:

        def claim() -> None:
            held.enter_context(workdir_lock.hold(workdir, warn))
            configs.claim_workdir(workdir, config)
            batch_norm_groups.record(config, workdir, jax.device_count())

        processes.on_main(claim)
        return _train(recipe, workdir, source, evaluate)


def _prepare_data(config: ConfigDict) -> None:
    """Make the data set that config.data.prepare names, if it names one that is not there."""
    if not config.data.prepare:
        return
    from uniface_jax.data.faces.preparation import prepare  # loads the detector's library

    used = [config.data.train, *map(str, split_paths(config.eval.data))]
    processes.on_main(lambda: prepare(config.data.prepare, used))


def _train(recipe: Recipe, workdir: Path, source: Source, evaluate: Evaluator) -> dict[str, float]:
    config = recipe.config
    runner = create_runner(config.parallel, class_sharded(recipe.shapes))
    checkpoints = Checkpoints(workdir, config.checkpoint.keep, warn)
    skip = recipe.settings.skip_nonfinite
    guard = FiniteGuard(workdir, source, skip, config.nonfinite.limit)
    first, placed = _first_state(recipe, source.name, runner, checkpoints, guard)
    if processes.is_main():
        record = run_record.describe(recipe.shapes, source, runner.devices)
        run_record.write(workdir / "run.json", record)
    step = recipe.make_step()
    train_step = runner.compile(debug.checked(step) if config.debug.checks else step)
    batches = train_batches(
        source,
        Sampler(config.batch_size, config.seed, jax.process_index(), jax.process_count()),
        start_step=first,
        augment=config.data.augment.to_dict(),
        decoders=DecoderPool(config.data.decoders, config.data.threads),
    )
    process = f"process {jax.process_index()} of {jax.process_count()}"
    report = workdir / f"hang-{jax.process_index()}.txt"
    with (
        RunLog(workdir, first, recipe.schedule.total_steps, processes.is_main()) as log,
        StopSignal() as stop,
        Watchdog(config.watchdog_seconds, report, process, EXIT_LOST) as watchdog,
        Profile(config.profile, workdir / profiling.FOLDER) as profile,
    ):
        run = Run(recipe, runner, checkpoints, evaluate, guard, watchdog, profile, log)
        run.announce(source.name, first, workdir)
        values = run.loop(Position(first, placed, train_step), batches, stop)
        checkpoints.close()
        return values


def _first_state(
    recipe: Recipe, source: str, runner: Runner, checkpoints: Checkpoints, guard: FiniteGuard
) -> tuple[int, Any]:
    """Return (step, placed state) of the newest checkpoint, or of the start where there is none.

    Raises UserError for a checkpoint of another data set.
    """
    found = checkpoints.restore_newest(runner.template(recipe.shapes), recipe.shapes)
    if found is None:
        return 0, runner.from_global(initial_state(recipe, runner))
    state, saved = found
    for key, value in (("num_examples", recipe.num_images), ("num_classes", recipe.num_classes)):
        if saved["data"][key] != value:
            raise UserError(
                f"{source}: {key} is {value}, but the run of {checkpoints.folder} was trained on "
                f"{saved['data'][key]}; restore the data set or use another --workdir"
            )
    guard.skipped = saved.get("skipped_steps", 0)
    return int(state.step), runner.from_global(state)


@dataclass
class Position:
    """Where a run is: what changes with every step.

    placed: the state on the devices. pending: step, metrics and batch of the newest step, which
    the devices may not have finished. values: the metrics that were read last.
    """

    step: int
    placed: Any
    train_step: Callable[[Any, Batch], tuple[Any, Mapping[str, Any]]]
    pending: tuple[int, Mapping[str, Any], Batch] | None = None
    values: dict[str, float] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start of this process's part of the run."""
        return time.perf_counter() - self.started


class Run(NamedTuple):
    """Run: what stays the same during it."""

    recipe: Recipe
    runner: Runner
    checkpoints: Checkpoints
    evaluate: Evaluator
    guard: FiniteGuard
    watchdog: Watchdog
    profile: Profile
    log: RunLog

    def announce(self, source: str, first: int, workdir: Path) -> None:
        """Say in the first lines what is trained on what."""
        devices, recipe = self.runner.devices, self.recipe
        self.log.line(
            f"{source}: {recipe.num_images} images of {recipe.num_classes} classes;"
            f" {len(devices)} x {devices[0].device_kind}, batch {recipe.config.batch_size}"
            f" (batch norm sees {recipe.batch_norm_group(len(devices))}),"
            f" {recipe.schedule.total_steps} steps"
        )
        if first:
            self.log.line(f"resumed {workdir} at step {first}")

    def loop(self, at: Position, batches: Iterator[Batch], stop: StopSignal) -> dict[str, float]:
        """Take steps until the end. Metrics are read one step late, so that devices never wait."""
        total = self.recipe.schedule.total_steps
        stream = prefetch(batches, self.runner.put)
        while at.step < total and not stop.reached(at.step):
            self._step(at, stream)
            log, evaluate, save = self._due(at.step)
            if log or evaluate or save:
                at.values = self._read(at)
            if log:
                self._log(at)
            if evaluate or save:
                self._evaluate_and_save(at, evaluate)
        if at.pending:
            self._read(at)
        self._save_for_good(at)
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
        if at.pending is None and not config.debug.nans:
            at.train_step = compiled_for(at.train_step, at.placed, batch)
        # Looking for NaNs takes copies from the devices, which are otherwise a mistake.
        with (
            jax.transfer_guard("allow" if config.debug.nans else "disallow"),
            jax.profiler.StepTraceAnnotation("train", step_num=at.step),
        ):
            at.placed, metrics = at.train_step(at.placed, batch)
        at.step += 1
        if at.pending:
            at.values = self._read(at)
        at.pending = (at.step, metrics, host_batch)
        self.log.advance()
        self.checkpoints.poll()

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
        epoch = at.step / schedule.steps_per_epoch
        self.log.scalars(at.step, at.values | {"epoch": epoch, "elapsed_seconds": at.elapsed})
        self.log.line(console_line(at.step, schedule.total_steps, epoch, at.values))

    def _evaluate_and_save(self, at: Position, evaluate: bool) -> None:
        """Save the state, with the results of evaluating it where that is asked for."""
        results = self._evaluate(at) if evaluate else {}
        if results:
            scalars = {f"eval/{key}": value for key, value in results.items()}
            self.log.scalars(at.step, scalars)
            self.log.line(f"step {at.step}  {_describe(results)}")
            at.values |= results
        self._save(at, results)
        at.clock.restart()  # evaluating and saving is neither computing nor waiting for input

    def _read(self, at: Position) -> dict[str, float]:
        """Wait for the pending step's metrics; what is not finite warns, or is NotFiniteError."""
        assert at.pending is not None
        step, metrics, batch = at.pending
        self.watchdog.at(f"waiting for the devices to finish step {step}")
        read = jax.device_get(dict(metrics))
        if debug.ERROR in read:
            debug.raise_error(step, read.pop(debug.ERROR))
        values = {key: float(value) for key, value in read.items()}
        if warning := self.guard.check(step, values, batch, self.checkpoints.latest()):
            warn(warning)
        return values | ({"skipped_steps": self.guard.skipped} if self.guard.skipped else {})

    def _evaluate(self, at: Position) -> dict[str, float]:
        self.watchdog.at(f"evaluating step {at.step}")
        variables = {"params": at.placed.weights.network, "batch_stats": at.placed.batch_stats}
        return self.evaluate(self.runner.host(variables))

    def _save(self, at: Position, results: Mapping[str, float]) -> None:
        self.watchdog.at(f"saving step {at.step}")
        recipe = self.recipe
        about = {
            "config": configs.to_json(recipe.config),
            "data": {
                "samples": at.step * recipe.config.batch_size,
                "num_examples": recipe.num_images,
                "num_classes": recipe.num_classes,
            },
            "skipped_steps": self.guard.skipped,
        }
        self.checkpoints.save(self.runner.to_global(at.placed), about, results)

    def _save_for_good(self, at: Position) -> None:
        """Return once the state is on disk, after several tries if need be."""
        for pause in LAST_PAUSES:
            self._save(at, {})
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
