"""Recipe of a run: what a config means for a training set, made once and passed on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax import models
from uniface_jax.checkpoints import reading
from uniface_jax.config import multipliers
from uniface_jax.errors import UserError
from uniface_jax.head.block_size import block_of_budget
from uniface_jax.head.quality import Regression
from uniface_jax.losses import Loss
from uniface_jax.runtime.parallel import Runner
from uniface_jax.runtime.xla_flags import run_once_options
from uniface_jax.state import TrainState, create_state
from uniface_jax.train import optim, step
from uniface_jax.train.adaptive import Adaptive
from uniface_jax.train.settings import Distillation, SampleToSample
from uniface_jax.train.update import prepared


class Schedule(NamedTuple):
    """Length of a run: epochs may end within a step, steps are whole."""

    steps_per_epoch: float
    total_steps: int


@dataclass(frozen=True)
class Recipe:
    """Recipe of what a run computes.

    num_images, num_classes: of the training set. epoch_images: those of an epoch, each as often as
    it is seen. shapes: the logical state's shapes and dtypes.
    """

    config: ConfigDict
    num_images: int
    num_classes: int
    epoch_images: int
    network: models.Network
    loss: Loss
    shapes: TrainState
    schedule: Schedule
    learning_rate: optim.LearningRate
    settings: step.Settings

    def make_step(self) -> Callable[[TrainState, step.Batch], tuple[TrainState, step.Metrics]]:
        """Return the per-device training step."""
        return step.make_step(self.network, self.loss, self.learning_rate, self.settings)

    def batch_norm_group(self, num_devices: int) -> int:
        """Return how many samples batch norm sees together on so many devices."""
        return int(self.config.batch_size) // (num_devices * int(self.config.micro_batches))

    def with_batch_size(self, batch_size: int) -> "Recipe":
        """Return the same recipe with another batch size, and what follows from it."""
        config = self.config.copy_and_resolve_references()
        config.batch_size = batch_size
        schedule = _schedule(config, self.epoch_images)
        settings = _settings(config, self.num_classes, schedule)
        return replace(
            self,
            config=config,
            schedule=schedule,
            learning_rate=_learning_rate(config, schedule),
            settings=settings._replace(
                unrolled=self.settings.unrolled,
                distillation=self.settings.distillation,
                multipliers=self.settings.multipliers,
                expectation=self.settings.expectation,
            ),
        )


def make_recipe(
    config: ConfigDict,
    num_images: int,
    num_classes: int,
    teacher_width: int | None = None,
    epoch_images: int | None = None,
) -> Recipe:
    """Return what a checked `config` means for a training set of so many images and classes.

    teacher_width: T of the teacher's features, where config.distill names one; None is the
    network's own. epoch_images: of an epoch; None is each once.
    """
    config = configs.with_kernels(config, jax.default_backend() == "gpu")
    epoch_images = num_images if epoch_images is None else epoch_images
    network, loss = configs.create_network(config), configs.create_loss(config)
    rate, seed = config.head.sampling_rate, config.seed
    schedule = _schedule(config, epoch_images)
    settings = _settings(config, num_classes, schedule)
    settings = settings._replace(expectation=loss.expectation is not None)
    if config.distill.teacher:
        settings = _distilled(config, settings, teacher_width)
    shapes = jax.eval_shape(
        lambda: prepared(create_state(network, loss, num_classes, rate, seed), settings)
    )
    multipliers.check_fit(settings.multipliers, shapes.weights)
    multipliers.check_fit(settings.decays, shapes.weights, "optim.decays")
    return Recipe(
        config=config,
        num_images=num_images,
        num_classes=num_classes,
        epoch_images=epoch_images,
        network=network,
        loss=loss,
        shapes=shapes,
        schedule=schedule,
        learning_rate=_learning_rate(config, schedule),
        settings=settings,
    )


def _distilled(
    config: ConfigDict, settings: step.Settings, teacher_width: int | None
) -> step.Settings:
    """Return the settings with the teacher; class centers are frozen to the optimizer."""
    mapped = None if teacher_width == config.model.embedding_size else teacher_width
    centers = config.distill.method == "centers"
    if centers and config.head.subcentres > 1:
        raise UserError(
            f"config.head.subcentres={config.head.subcentres}: a class has one center with "
            "distill.method=centers; leave it out"
        )
    if centers:
        frozen = multipliers.Multiplier("prototypes", 0.0)
        settings = settings._replace(multipliers=(*settings.multipliers, frozen))
    return settings._replace(distillation=Distillation(config.distill.weight, mapped, centers))


def _schedule(config: ConfigDict, num_images: int) -> Schedule:
    """Return config.steps, or config.epochs over so many images.

    Raises UserError where data.drop_last leaves nothing of them.
    """
    steps_per_epoch = num_images / config.batch_size
    if config.data.drop_last:
        steps_per_epoch = float(num_images // config.batch_size)
        if num_images and not steps_per_epoch:
            raise UserError(_nothing_left(num_images, config.batch_size))
    total = config.steps if config.steps is not None else round(config.epochs * steps_per_epoch)
    return Schedule(steps_per_epoch, max(total, 1))


def _nothing_left(num_images: int, batch_size: int) -> str:
    """Return what to do where a training set is smaller than a batch, and what fills none is left.

    The batch that is proposed is a power of two, of which an epoch has two to four.
    """
    smaller = max(1 << num_images.bit_length() >> 2, 2)
    return (
        f"config.data.drop_last=True: the training set's {num_images} images fill no batch of "
        f"config.batch_size={batch_size}; ways out: --config.batch_size={smaller} "
        "--config.micro_batches=1, --config.data.drop_last=False, or --config=laptop, whose sizes "
        "are for few images and CPUs"
    )


def warmup_steps(config: ConfigDict, schedule: Schedule) -> int:
    """Return the steps in which the learning rate rises; 0 for the schedule "steps"."""
    o = config.optim
    if o.schedule == "steps":
        return 0
    return (
        round(o.warmup_epochs * schedule.steps_per_epoch)
        if o.warmup_steps is None
        else int(o.warmup_steps)
    )


def _learning_rate(config: ConfigDict, schedule: Schedule) -> optim.LearningRate:
    """Return the learning rate by step; milestones are given in epochs."""
    o, warmup = config.optim, warmup_steps(config, schedule)
    if o.schedule == "steps":
        milestones = [round(epoch * schedule.steps_per_epoch) for epoch in o.milestones]
        return optim.step_schedule(o.lr, milestones, o.factor)
    if o.schedule == "polynomial":
        rate = optim.polynomial_schedule(o.lr, o.power, warmup, schedule.total_steps)
        return optim.full_first_step(rate, o.lr) if o.as_published else rate
    if o.schedule == "constant":
        return optim.constant_schedule(o.lr, warmup)
    return optim.cosine_schedule(o.lr, warmup, schedule.total_steps)


def _settings(config: ConfigDict, num_classes: int, schedule: Schedule) -> step.Settings:
    """Return the training step's settings."""
    o = config.optim
    return step.Settings(
        num_classes=num_classes,
        micro_batches=config.micro_batches,
        sampling_rate=config.head.sampling_rate,
        block_size=block_of_budget(
            config.head.block_memory,
            config.batch_size // config.micro_batches,
            config.model.embedding_size,
            config.head.subcentres,
        ),
        product_dtype=jnp.dtype(config.head.product_dtype),
        bn_momentum=config.model.bn_momentum,
        sgd=optim.Sgd(o.momentum, o.weight_decay, o.clip, decoupled=o.decay == "decoupled"),
        seed=config.seed,
        multipliers=multipliers.parse(o.multipliers),
        frozen_statistics=config.model.frozen_statistics,
        skip_nonfinite=config.nonfinite.action == "skip",
        adaptive=_adaptive(o),
        decays=multipliers.parse(o.decays, "optim.decays"),
        decay_matrices=o.decay_on == "matrices",
        clip_network=o.clip_on == "network",
        ema=o.ema,
        samples=_samples(config, schedule),
        quality=_quality(config),
    )


def _samples(config: ConfigDict, schedule: Schedule) -> SampleToSample | None:
    """Return the loss between samples; epochs that end within a step are over after it."""
    loss = configs.create_sample_loss(config)
    if loss is None:
        return None
    after = config.loss.sample_after_epochs or 1.0
    return SampleToSample(loss, math.ceil(after * schedule.steps_per_epoch))


def _quality(config: ConfigDict) -> Regression | None:
    """Return the regression of the quality that config.quality asks for; None for none."""
    of = config.quality
    return Regression(of.weight, of.beta, of.as_published) if of.weight else None


def _adaptive(o: ConfigDict) -> Adaptive | None:
    """Return the optimizer that config.optim names; None for SGD."""
    if o.name == "sgd":
        return None
    return Adaptive(
        name=o.name, beta1=o.beta1, beta2=o.beta2, eps=o.eps, momentum=o.momentum,
        weight_decay=o.weight_decay, clip=o.clip, decoupled=o.decay != "coupled",
    )  # fmt: skip


def random_state(recipe: Recipe, runner: Runner) -> Any:
    """Return a compiled function of nothing: the global state, whose rows each device makes."""
    template = runner.template(recipe.shapes)
    rows = template.weights.prototypes.shape[0]
    network, loss, classes = recipe.network, recipe.loss, recipe.num_classes
    rate, seed = recipe.settings.sampling_rate, recipe.settings.seed
    wanted_std = recipe.config.head.init_std
    usual_std = recipe.shapes.weights.prototypes.shape[-1] ** -0.5

    def create() -> TrainState:
        state = prepared(create_state(network, loss, classes, rate, seed, rows), recipe.settings)
        if wanted_std is None:
            return state
        prototypes = state.weights.prototypes * (wanted_std / usual_std)
        return state._replace(weights=state.weights._replace(prototypes=prototypes))

    return jax.jit(
        create,
        out_shardings=jax.tree.map(lambda x: x.sharding, template),
        compiler_options=run_once_options(),
    )


def initial_state(recipe: Recipe, runner: Runner) -> TrainState:
    """Return the global state before the first step: random, or config.finetune's weights.

    No process ever holds all prototypes. Fine-tuning takes over network and statistics, and
    prototypes and bias where both are of the same shape: a threshold learned among other classes is
    no start among these. Raises UserError where the network is another one.
    """
    state: TrainState = random_state(recipe, runner)()
    start = recipe.config.finetune
    if not start:
        return state
    try:
        return reading.read_into(start, state, recipe.shapes)
    except UserError as e:
        raise UserError(f"config.finetune={start}: {e}") from e
