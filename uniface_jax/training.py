"""A training run from start to end: train_and_evaluate(config, workdir) reads top to bottom."""

import collections
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax import environment, models
from uniface_jax import step as steps
from uniface_jax.checkpoint import Checkpoints
from uniface_jax.data.dataset_info import DatasetInfo, read_dataset_info
from uniface_jax.data.pairs import PairSet
from uniface_jax.data.pipeline import train_batches
from uniface_jax.data.records import record_bounds
from uniface_jax.errors import UserError
from uniface_jax.evaluation.embed import extract
from uniface_jax.evaluation.pair_sets import read_pair_sets
from uniface_jax.evaluation.verification import verification_metrics
from uniface_jax.inference import make_embed
from uniface_jax.logging import Clock, RunLog, console_line, duration
from uniface_jax.parallel import Runner, create_runner
from uniface_jax.recipe import Plan, create_schedule, create_settings, initial_state, plan
from uniface_jax.signals import StopSignal

Batch = Mapping[str, Any]
PREFETCHED_BATCHES = 2  # on the device before they are needed


class NotFiniteError(RuntimeError):
    """The loss was not finite; the message names the step and the last good checkpoint."""


def prefetch(batches: Iterator[Batch], put: Callable[[Batch], Batch]) -> Iterator[tuple]:
    """(host batch, device batch) with PREFETCHED_BATCHES on the device ahead of the one in use."""
    queue: collections.deque[tuple[Batch, Batch]] = collections.deque()
    for batch in batches:
        queue.append((batch, put({key: batch[key] for key in ("image", "label")})))
        if len(queue) > PREFETCHED_BATCHES:
            yield queue.popleft()


class Evaluator:
    """Verification on the sets of config.eval.data, with one compiled forward pass for all."""

    def __init__(self, config: ConfigDict, network: models.IResNet) -> None:
        self.sets: dict[str, PairSet] = (
            read_pair_sets([Path(x) for x in config.eval.data.split(",")])
            if config.eval.data
            else {}
        )
        self._embed = make_embed(network)
        self._batch_size = config.eval.batch_size

    def __call__(self, state: steps.TrainState) -> dict[str, float]:
        """Metrics of the logical state: per set, and "auc" over all sets' mean."""
        variables = {"params": state.weights.network, "batch_stats": state.batch_stats}
        values: dict[str, float] = {}
        for name, pairs in self.sets.items():
            features = extract(
                lambda images: self._embed(variables, images),
                pairs.images, name=name, batch_size=self._batch_size, progress=False,
            )  # fmt: skip
            metrics = verification_metrics(features, pairs)
            values[f"{name}/auc"] = metrics["auc"]
            values[f"{name}/accuracy"] = metrics["accuracy"]["mean"]
        aucs = [values[f"{name}/auc"] for name in self.sets]
        return {**values, "auc": float(np.mean(aucs))} if aucs else {}


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Trains until config.steps or config.epochs, resuming what the workdir holds.

    Leaves in workdir: config.json, run.json, metrics.jsonl, tensorboard/, checkpoints/. Returns the
    last metrics. Raises UserError for what is wrong with config, data or workdir before any work,
    NotFiniteError when the loss is not finite, KeyboardInterrupt after saving when told to stop.
    """
    configs.check(config, jax.device_count())
    info = read_dataset_info(config.data.train)
    record_bounds(info)  # a data set cut short is refused now, before there is a workdir
    network, loss = configs.create_network(config), configs.create_loss(config)
    evaluate = Evaluator(config, network)
    lengths = plan(config, info.num_examples)
    schedule = create_schedule(config, lengths)
    configs.claim_workdir(workdir, config)

    state = initial_state(config, network, info.num_classes)
    runner = create_runner(config.parallel, steps.class_sharded(state))
    checkpoints = Checkpoints(workdir, config.checkpoint.keep)
    if (resumed := checkpoints.latest()) is not None:
        state, saved = checkpoints.restore(resumed, state)
        _check_position(workdir, saved["data"], info)
    first = int(state.step)
    main_process = jax.process_index() == 0
    if main_process:
        environment.write(workdir / "run.json", environment.describe(state, info, runner.devices))
    train_step = runner.compile(
        steps.make_step(network, loss, schedule, create_settings(config, info.num_classes))
    )
    batches = train_batches(
        config.data.train,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=first,
        augment=config.data.augment.to_dict(),
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
    )
    run = Run(config, info, lengths, runner, checkpoints, evaluate)
    with RunLog(workdir, first, lengths.total_steps, main_process) as log, StopSignal() as stop:
        run.announce(log, first, workdir)
        try:
            return run.loop(train_step, runner.place(state), first, batches, log, stop)
        finally:
            checkpoints.close()


def _check_position(workdir: Path, saved: Mapping[str, int], info: DatasetInfo) -> None:
    for key in ("num_examples", "num_classes"):
        if saved[key] != getattr(info, key):
            raise UserError(
                f"{info.path}: {key} is {getattr(info, key)}, but the run in {workdir} was trained "
                f"on {saved[key]}; restore the data set or use another --workdir"
            )


class Run(NamedTuple):
    """What stays the same during a run."""

    config: ConfigDict
    info: DatasetInfo
    lengths: Plan
    runner: Runner
    checkpoints: Checkpoints
    evaluate: Evaluator

    def announce(self, log: RunLog, first: int, workdir: Path) -> None:
        """The first lines: what is trained on what."""
        devices = self.runner.devices
        group = self.config.batch_size // (len(devices) * self.config.micro_batches)
        log.line(
            f"{self.info.path}: {self.info.num_examples} images of {self.info.num_classes} classes;"
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
        pending: tuple[int, Mapping[str, jax.Array], np.ndarray] | None = None
        stream = prefetch(batches, self.runner.put)
        while step < total and not stop.received:
            before = time.perf_counter()
            host_batch, batch = next(stream)
            clock.waited(time.perf_counter() - before, config.batch_size)
            if step == 0:
                log.images("input", 0, host_batch["image"][:16])
            with jax.transfer_guard("disallow"):
                placed, metrics = train_step(placed, batch)
            step += 1
            if pending:
                values = self._read(*pending)
            pending = (step, metrics, host_batch["index"])
            log.advance()
            evaluate_now = bool(self.evaluate.sets) and (
                step % config.eval.every_steps == 0 or step == total
            )
            save_now = step % config.checkpoint.every_steps == 0 or step == total
            if step % config.log.every_steps == 0 or step == total or evaluate_now or save_now:
                values = self._read(*pending)
            if step % config.log.every_steps == 0 or step == total:
                values |= clock.report() | {"batch_size": config.batch_size}
                epoch = step / self.lengths.steps_per_epoch
                elapsed = time.perf_counter() - started
                log.scalars(step, values | {"epoch": epoch, "elapsed_seconds": elapsed})
                log.line(console_line(step, total, epoch, values))
            if evaluate_now or save_now:
                state = self.runner.logical(placed)
                results = self.evaluate(state) if evaluate_now else {}
                if results:
                    log.scalars(step, {f"eval/{key}": value for key, value in results.items()})
                    log.line(f"step {step}  {_describe(results)}")
                    values |= results
                self._save(state, results)
                clock.restart()  # evaluating and saving is neither computing nor waiting for input
        if pending:
            self._read(*pending)
        if stop.received:
            self._save(self.runner.logical(placed), {})
            self.checkpoints.wait()
            log.line(f"{stop.received}: saved step {step}; the same command resumes")
            raise KeyboardInterrupt
        log.line(f"done in {duration(time.perf_counter() - started)}")
        return values

    def _read(
        self, step: int, metrics: Mapping[str, jax.Array], index: np.ndarray
    ) -> dict[str, float]:
        values = {key: float(value) for key, value in jax.device_get(dict(metrics)).items()}
        if not math.isfinite(values["loss"] + values["grad_norm"]):
            last = self.checkpoints.latest()
            raise NotFiniteError(
                f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}; records "
                f"{index[:8].tolist()}… of {self.info.path}; "
                + ("nothing was saved yet" if last is None else f"the last checkpoint is {last}")
            )
        return values

    def _save(self, state: steps.TrainState, results: Mapping[str, float]) -> None:
        position = {
            "samples": int(state.step) * self.config.batch_size,
            "num_examples": self.info.num_examples,
            "num_classes": self.info.num_classes,
        }
        self.checkpoints.save(
            state, {"config": configs.to_json(self.config), "data": position}, results
        )


def _describe(results: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {value:.4f}" for key, value in results.items())
