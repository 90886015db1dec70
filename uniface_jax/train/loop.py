"""A training run from start to end: train_and_evaluate(config, workdir) reads top to bottom."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.checkpoints import reading
from uniface_jax.checkpoints.saving import Checkpoints
from uniface_jax.data.faces.landmark_tables import with_landmarks
from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.order import Order
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.joined import members
from uniface_jax.data.sources.opening import split_training_sets
from uniface_jax.errors import EXIT_LOST, UserError
from uniface_jax.files.paths import split_paths
from uniface_jax.runtime import compilation_cache, debug, processes, profiling
from uniface_jax.runtime.chips import chip_of
from uniface_jax.runtime.parallel import Runner, create_runner
from uniface_jax.runtime.profiling import Profile
from uniface_jax.state import class_sharded
from uniface_jax.train import (
    batch_norm_groups,
    hooks,
    input_checks,
    memory_limits,
    run_record,
    workdir_lock,
)
from uniface_jax.train.from_config import Recipe, initial_state, make_recipe
from uniface_jax.train.nonfinite import FiniteGuard
from uniface_jax.train.overlap import overlap_warnings
from uniface_jax.train.run import Position, Run
from uniface_jax.train.run_log import RunLog, warn
from uniface_jax.train.skipped_images import SkippedImages
from uniface_jax.train.stop_signal import StopSignal
from uniface_jax.train.teacher import Teacher, open_teacher, with_teacher
from uniface_jax.train.training_set import (
    Record,
    changed_sets,
    describe,
    epoch_length,
    make_order,
    open_training_set,
    records_of,
    with_label_noise,
)
from uniface_jax.train.validation import Evaluator
from uniface_jax.train.watchdog import Watchdog

COUNTS = ("skipped_steps", "skipped_images")  # of a run, that its checkpoints carry on


def train_and_evaluate(
    config: ConfigDict, workdir: Path, *, extend: bool = False
) -> dict[str, float]:
    """Train until config.steps or config.epochs, resuming what the workdir holds.

    Args:
        config: As a recipe's get_config() returns it.
        workdir: Gets config.json, run.json, metrics.jsonl, tensorboard/ and checkpoints/.
        extend: Resume the run there although it was begun with other epochs, steps or optim keys.

    Returns:
        The last metrics by name.

    Raises:
        UserError: Before any work, for what is wrong with config, data or workdir.
        NotFiniteError: When the loss is not finite.
        NotSavedError: When the last state is nowhere.
        WorkerLostError: After saving, when decoding processes die again and again.
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
    processes.on_main(lambda: hooks.load(config))
    if extend and not reading.is_begun(workdir):
        raise UserError(f"--extend: {workdir} holds no run with a checkpoint; leave the flag out")
    compilation_cache.enable(config.compilation_cache)
    if reading.is_begun(workdir):
        config = batch_norm_groups.adapt(config, workdir, jax.device_count())
        config = configs.as_begun(config, workdir)
    config = configs.with_kernels(config, jax.default_backend() == "gpu")
    configs.check_batch(config, jax.device_count())
    _prepare_data(config)
    if not config.data.train:
        raise UserError("config.data.train is empty: name the faces, --config.data.train=FOLDER")
    skip = config.data.on_error == "skip"
    given, recipe = _open_input(config)  # a set cut short is refused now, without a workdir
    evaluate = Evaluator(recipe)  # which looks at every image that it will need
    for warning in _warnings(recipe, given.source, evaluate, skip):
        warn(warning)
    jax.config.update("jax_debug_nans", config.debug.nans)
    with ExitStack() as held:
        processes.on_main(lambda: _claim(held, config, workdir, extend))
        with memory_limits.in_one_line(config):
            return _train(recipe, workdir, given, evaluate)


class Input(NamedTuple):
    """Input of a run: the training set, how often an epoch has each image, and the teacher.

    trained: the set with the labels that are trained on.
    """

    source: Source
    trained: Source
    order: Order | None
    teacher: Teacher | None


def _open_input(config: ConfigDict) -> tuple[Input, Recipe]:
    """Open the training set and the teacher, and make the recipe for them."""
    source = open_training_set(config)
    if models.takes_landmarks(configs.create_network(config)):
        source = with_landmarks(source)
    trained = with_label_noise(config, source)  # the last change: all that is read passes it
    order, teacher = make_order(config, trained), open_teacher(config, source)
    width = teacher.width if teacher else None
    length = epoch_length(source, order)
    recipe = make_recipe(config, len(source), source.num_classes, width, length)
    input_checks.check_platform(recipe.network, jax.default_backend())
    return Input(source, trained, order, teacher), recipe


def _warnings(recipe: Recipe, source: Source, evaluate: Evaluator, skip: bool) -> list[str]:
    """Return what the user should know before the run, in the main process alone."""
    found = input_checks.warnings_of(recipe, source, jax.device_count())
    names = split_training_sets(recipe.config.data.train)
    for name, each in zip(names, members(source), strict=True):
        found += overlap_warnings(name, len(each), evaluate.sets)
    found += input_checks.check_images(source, skip)
    device = jax.devices()[0]
    found += input_checks.widened_products(recipe.config, chip_of(device), device.device_kind)
    return found if processes.is_main() else []


def _claim(held: ExitStack, config: ConfigDict, workdir: Path, extend: bool) -> None:
    """Make the workdir this run's, and keep others out until `held` ends."""
    held.enter_context(workdir_lock.hold(workdir, warn))
    begun = reading.is_begun(workdir)  # now that nobody else can write here
    configs.claim_workdir(workdir, config, begun=begun, extend=extend)
    batch_norm_groups.record(config, workdir, jax.device_count(), begun=begun)


def _prepare_data(config: ConfigDict) -> None:
    """Make the data set that config.data.prepare names, if it names one that is not there."""
    if not config.data.prepare:
        return
    from uniface_jax.data.faces.preparation import prepare  # loads the detector's library

    used = [*split_training_sets(config.data.train), *map(str, split_paths(config.eval.data))]
    processes.on_main(lambda: prepare(config.data.prepare, used))


def _train(recipe: Recipe, workdir: Path, given: Input, evaluate: Evaluator) -> dict[str, float]:
    """Train the recipe in its workdir, and return the last metrics."""
    config, source = recipe.config, given.source
    sets, targets = records_of(source), None
    if given.teacher is not None:
        targets = given.teacher.features(workdir, config.eval.batch_size)
    runner = create_runner(config.parallel, class_sharded(recipe.shapes))
    checkpoints = Checkpoints(workdir, config.checkpoint.keep, warn)
    skip = recipe.settings.skip_nonfinite
    guard = FiniteGuard(workdir, source, skip, config.nonfinite.limit)
    skipped = SkippedImages(source, warn)
    first, placed, counts = _first_state(recipe, (source.name, sets), runner, checkpoints)
    guard.skipped, skipped.total = counts["skipped_steps"], counts["skipped_images"]
    if processes.is_main():
        record = run_record.describe(recipe.shapes, source, runner.devices, sets)
        run_record.write(workdir / "run.json", record)
    step = recipe.make_step()
    train_step = runner.compile(debug.checked(step) if config.debug.checks else step)
    batches = train_batches(
        given.trained,
        _sampler(config, given.order),
        start_step=first,
        augment=config.data.augment.to_dict(),
        decoders=DecoderPool(
            config.data.decoders,
            config.data.threads,
            config.data.on_error == "skip",
            models.takes_landmarks(recipe.network),
        ),
    )
    process = f"process {jax.process_index()} of {jax.process_count()}"
    report = workdir / f"hang-{jax.process_index()}.txt"
    with (
        hooks.create(config, workdir, first, processes.is_main()) as told,
        RunLog(workdir, first, recipe.schedule.total_steps, processes.is_main()) as log,
        StopSignal() as stop,
        Watchdog(config.watchdog_seconds, report, process, EXIT_LOST) as watchdog,
        Profile(config.profile, workdir / profiling.FOLDER) as profile,
    ):
        run = Run(
            recipe, runner, checkpoints, evaluate, guard, skipped, watchdog, profile, log, sets,
            told,
        )  # fmt: skip
        lines = describe(given.trained, given.order, config)
        run.announce([source.name, *lines], first, workdir)
        stream = batches if targets is None else with_teacher(batches, targets)
        values = run.whole(Position(first, placed, train_step), stream, stop)
        checkpoints.close()
        return values


def _sampler(config: ConfigDict, order: Order | None) -> Sampler:
    """Return this process's part of the run's order."""
    index, count = jax.process_index(), jax.process_count()
    return Sampler(config.batch_size, config.seed, index, count, config.data.drop_last, order)


def _first_state(
    recipe: Recipe, data: tuple[str, Sequence[Record]], runner: Runner, checkpoints: Checkpoints
) -> tuple[int, Any, dict[str, int]]:
    """Return step, placed state and COUNTS of the newest checkpoint, or of the start without one.

    data: the name of the training set, and its sets. Raises UserError for a checkpoint of others.
    """
    found = checkpoints.restore_newest(runner.template(recipe.shapes), recipe.shapes)
    if found is None:
        return 0, runner.from_global(initial_state(recipe, runner)), dict.fromkeys(COUNTS, 0)
    state, saved = found
    source, sets = data
    before = saved["data"]
    other = changed_sets(before.get("sets"), sets) or input_checks.changed(before, recipe, source)
    if other:
        if recipe.config.data.on_change != "accept":
            raise UserError(f"{other}; {input_checks.WAYS_ON} {checkpoints.folder.parent}")
        warn(f"{other}; going on with the set as it is now")
    counts = {name: int(saved.get(name, 0)) for name in COUNTS}
    return int(state.step), runner.from_global(state), counts
