"""A training run from start to end: train_and_evaluate(config, workdir) reads top to bottom."""

import collections
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import EXIT_LOST, UserError
from uniface_jax.runtime import compilation_cache, debug, processes, profiling
from uniface_jax.runtime.parallel import Runner, compiled_for, create_runner
from uniface_jax.runtime.profiling import Profile
from uniface_jax.state import class_sharded
from uniface_jax.train import batch_norm_groups, run_record, workdir_lock
from uniface_jax.train import step as steps
from uniface_jax.train.from_config import (
    Plan,
    abstract_state,
    create_schedule,
    create_settings,
    initial_state,
    plan,
)
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
    """The last state could not be saved; the message says why and what there is."""


class Preempted(Exception):  # noqa: N818 (nothing went wrong)
    """The run was told to stop, and is saved: the same command resumes it."""


def prefetch(batches: Iterator[Batch], put: Callable[[Batch], Batch]) -> Iterator[tuple]:
    """(host batch, device batch) with PREFETCHED_BATCHES on the device ahead of the one in use."""
    queue: collections.deque[tuple[Batch, Batch]] = collections.deque()
    for batch in batches:
        queue.append((batch, put({key: batch[key] for key in ("image", "label")})))
        if len(queue) > PREFETCHED_BATCHES:
            yield queue.popleft()


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Trains until config.steps or config.epochs, resuming what the workdir holds.

    Leaves in workdir: config.json, run.json, metrics.jsonl, tensorboard/, checkpoints/. Returns the
    last metrics. Raises UserError for what is wrong with config, data or workdir before any work,
    NotFiniteError when the loss is not finite, NotSavedError when the last state is nowhere,
    Preempted (for SIGINT: KeyboardInterrupt) after saving when told to stop.
    """
    config = configs.completed(config.to_dict())
    configs.check_values(config)
    compilation_cache.enable(config.compilation_cache)
    config = batch_norm_groups.adapt(config, workdir, jax.device_count())
    configs.check_batch(config, jax.device_count())
    _prepare_data(config)
    source = open_source(config.data.train)  # one cut short is refused now, without a workdir
    network = configs.create_network(config)
    evaluate = Evaluator(config, network)
    jax.config.update("jax_debug_nans", config.debug.nans)
    with ExitStack() as held:

        def claim() -> None:
            held.enter_context(workdir_lock.hold(workdir, warn))
            configs.claim_workdir(workdir, config)
            batch_norm_groups.record(config, workdir, jax.device_count())

        processes.on_main(claim)
        return _train(config, workdir, source, network, evaluate)


def _prepare_data(config: ConfigDict) -> None:
    """Make the data set that config.data.prepare names, if it names one that is not there."""
    if not config.data.prepare:
        return
    from uniface_jax.data.faces.preparation import prepare  # loads the detector's library

    used = [config.data.train, *config.eval.data.split(",")]
    processes.on_main(lambda: prepare(config.data.prepare, used))


def _train(
    config: ConfigDict,
    workdir: Path,
    source: Source,
    network: models.Network,
    evaluate: Evaluator,
) -> dict[str, float]:
    lengths = plan(config, len(source))
    abstract = abstract_state(config, network, source.num_classes)
    runner = create_runner(config.parallel, class_sharded(abstract))
    checkpoints = Checkpoints(workdir, config.checkpoint.keep, warn)
    guard = FiniteGuard(workdir, source, config.nonfinite.action == "skip", config.nonfinite.limit)
    first = 0
    if (found := checkpoints.restore_newest(runner.template(abstract), abstract)) is not None:
        state, saved = found
        _check_position(workdir, saved["data"], source)
        guard.skipped = saved.get("skipped_steps", 0)
        first, placed = int(state.step), runner.from_global(state)
        del state, found
    else:
        state = initial_state(config, network, source.num_classes, runner)
        placed = runner.from_global(state)
        del state
    if processes.is_main():
        run_record.write(
            workdir / "run.json", run_record.describe(abstract, source, runner.devices)
        )
    step = steps.make_step(
        network,
        configs.create_loss(config),
        create_schedule(config, lengths),
        create_settings(config, source.num_classes),
    )
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
        RunLog(workdir, first, lengths.total_steps, processes.is_main()) as log,
        StopSignal() as stop,
        Watchdog(config.watchdog_seconds, report, process, EXIT_LOST) as watchdog,
        Profile(config.profile, workdir / profiling.FOLDER) as profile,
    ):
        run = Run(config, source, lengths, runner, checkpoints, evaluate, guard, watchdog, profile)
        run.announce(log, first, workdir)
        values = run.loop(train_step, placed, first, batches, log, stop)
        checkpoints.close()
        return values


def _check_position(workdir: Path, saved: Mapping[str, int], source: Source) -> None:
    for key, value in (("num_examples", len(source)), ("num_classes", source.num_classes)):
        if saved[key] != value:
            raise UserError(
                f"{source.name}: {key} is {value}, but the run in {workdir} was trained "
                f"on {saved[key]}; restore the data set or use another --workdir"
            )


class Run(NamedTuple):
    """What stays the same during a run."""

    config: ConfigDict
    source: Source
    lengths: Plan
    runner: Runner
    checkpoints: Checkpoints
    evaluate: Evaluator
    guard: FiniteGuard
    watchdog: Watchdog
    profile: Profile

    def announce(self, log: RunLog, first: int, workdir: Path) -> None:
        """The first lines: what is trained on what."""
        devices = self.runner.devices
        group = self.config.batch_size // (len(devices) * self.config.micro_batches)
        log.line(
            f"{self.source.name}: {len(self.source)} images of {self.source.num_classes} classes;"
            f" {len(devices)} x {devices[0].device_kind}, batch {self.config.batch_size}"
            f" (batch norm sees {group}), {self.lengths.total_steps} steps"
        )
        if first:
            log.line(f"resumed {workdir} at step {first}")

    def loop(
        self,
        train_step: Callable,
        placed: Any,
        step: int,
        batches: Iterator[Batch],
        log: RunLog,
        stop: StopSignal,
    ) -> dict[str, float]:
        """Steps until the end. Metrics are read one step late, so that devices never wait."""
        config, total = self.config, self.lengths.total_steps
        clock, values = Clock(), {}
        started = time.perf_counter()
        pending: tuple[int, Mapping[str, Any], Batch] | None = None
        stream = prefetch(batches, self.runner.put)
        retry_steps = max(1, config.checkpoint.every_steps // 10)
        # Looking for NaNs takes copies from the devices, which are otherwise a mistake.
        copies = "allow" if config.debug.nans else "disallow"
        while step < total and not stop.reached(step):
            self.watchdog.at(f"waiting for the input of step {step + 1}")
            before = time.perf_counter()
            host_batch, batch = next(stream)
            clock.waited(time.perf_counter() - before, config.batch_size)
            if step == 0:
                log.images("input", 0, host_batch["image"][:16])
            self.watchdog.at(f"starting step {step + 1} (the first one compiles)")
            if traced := self.profile.at(step, placed):
                log.line(traced)
            # With debug.nans JAX runs the step's operations one by one, and needs the step for it.
            if pending is None and not config.debug.nans:
                train_step = compiled_for(train_step, placed, batch)
            with (
                jax.transfer_guard(copies),
                jax.profiler.StepTraceAnnotation("train", step_num=step),
            ):
                placed, metrics = train_step(placed, batch)
            step += 1
            if pending:
                values = self._read(*pending)
            pending = (step, metrics, host_batch)
            log.advance()
            self.checkpoints.poll()
            evaluate_now = bool(self.evaluate.sets) and (
                step % config.eval.every_steps == 0 or step == total
            )
            save_now = (
                step % config.checkpoint.every_steps == 0
                or step == total
                or (
                    step % retry_steps == 0
                    and not processes.all_agree(not self.checkpoints.failing)
                )
            )
            if step % config.log.every_steps == 0 or step == total or evaluate_now or save_now:
                values = self._read(*pending)
            if step % config.log.every_steps == 0 or step == total:
                values |= clock.report() | {"batch_size": config.batch_size}
                epoch = step / self.lengths.steps_per_epoch
                elapsed = time.perf_counter() - started
                log.scalars(step, values | {"epoch": epoch, "elapsed_seconds": elapsed})
                log.line(console_line(step, total, epoch, values))
            if evaluate_now or save_now:
                results = self._evaluate(step, placed) if evaluate_now else {}
                if results:
                    log.scalars(step, {f"eval/{key}": value for key, value in results.items()})
                    log.line(f"step {step}  {_describe(results)}")
                    values |= results
                self._save(step, placed, results)
                clock.restart()  # evaluating and saving is neither computing nor waiting for input
        if pending:
            self._read(*pending)
        self._save_for_good(step, placed)
        if step < total:
            log.line(f"{stop.received}: saved step {step}; the same command resumes")
            raise KeyboardInterrupt if stop.interrupted else Preempted
        log.line(f"done in {duration(time.perf_counter() - started)}")
        return values

    def _read(self, step: int, metrics: Mapping[str, Any], batch: Batch) -> dict[str, float]:
        self.watchdog.at(f"waiting for the devices to finish step {step}")
        read = jax.device_get(dict(metrics))
        if debug.ERROR in read:
            debug.raise_error(step, read.pop(debug.ERROR))
        values = {key: float(value) for key, value in read.items()}
        if warning := self.guard.check(step, values, batch, self.checkpoints.latest()):
            warn(warning)
        return values | ({"skipped_steps": self.guard.skipped} if self.guard.skipped else {})

    def _evaluate(self, step: int, placed: Any) -> dict[str, float]:
        self.watchdog.at(f"evaluating step {step}")
        variables = {"params": placed.weights.network, "batch_stats": placed.batch_stats}
        return self.evaluate(self.runner.host(variables))

    def _save(self, step: int, placed: Any, results: Mapping[str, float]) -> None:
        self.watchdog.at(f"saving step {step}")
        position = {
            "samples": step * self.config.batch_size,
            "num_examples": len(self.source),
            "num_classes": self.source.num_classes,
        }
        about = {
            "config": configs.to_json(self.config),
            "data": position,
            "skipped_steps": self.guard.skipped,
        }
        self.checkpoints.save(self.runner.to_global(placed), about, results)

    def _save_for_good(self, step: int, placed: Any) -> None:
        """Returns once the state of `step` is on disk, after several tries if need be."""
        for pause in LAST_PAUSES:
            self._save(step, placed, {})
            if processes.all_agree(self.checkpoints.wait()):
                return
            time.sleep(pause)
        raise NotSavedError(
            f"{self.checkpoints.folder}: step {step} could not be saved, {len(LAST_PAUSES)} times; "
            f"the last checkpoint is {self.checkpoints.latest()}; make room, then the same command "
            "resumes there"
        )


def _describe(results: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {value:.4f}" for key, value in results.items())
