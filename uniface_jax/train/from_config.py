"""What a config means for a run: its length, learning rate, step settings and first state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from uniface_jax import models
from uniface_jax.checkpoints import reading
from uniface_jax.config import create_loss
from uniface_jax.errors import UserError
from uniface_jax.head.block_size import block_of_budget
from uniface_jax.runtime.parallel import Runner
from uniface_jax.state import TrainState, create_state
from uniface_jax.train import optim, step


class Plan(NamedTuple):
    """How long a run is: epochs may be fractions of a step, steps are whole."""

    steps_per_epoch: float
    total_steps: int


def plan(config: ConfigDict, num_examples: int) -> Plan:
    """config.steps, or config.epochs over so many images."""
    steps_per_epoch = num_examples / config.batch_size
    total = config.steps if config.steps is not None else round(config.epochs * steps_per_epoch)
    return Plan(steps_per_epoch, max(total, 1))


def create_schedule(config: ConfigDict, lengths: Plan) -> optim.Schedule:
    """The learning rate by step; milestones and warm-up are given in epochs."""
    o = config.optim
    warmup = round(o.warmup_epochs * lengths.steps_per_epoch)
    if o.schedule == "steps":
        milestones = [round(epoch * lengths.steps_per_epoch) for epoch in o.milestones]
        return optim.step_schedule(o.lr, milestones, o.factor)
    if o.schedule == "polynomial":
        return optim.polynomial_schedule(o.lr, o.power, warmup, lengths.total_steps)
    return optim.cosine_schedule(o.lr, warmup, lengths.total_steps)


def create_settings(config: ConfigDict, num_classes: int) -> step.Settings:
    """The training step's settings out of the config."""
    return step.Settings(
        num_classes=num_classes,
        micro_batches=config.micro_batches,
        sampling_rate=config.head.sampling_rate,
        block_size=block_of_budget(
            config.head.block_memory,
            config.batch_size // config.micro_batches,
            config.model.embedding_size,
        ),
        product_dtype=jnp.dtype(config.head.product_dtype),
        bn_momentum=config.model.bn_momentum,
        sgd=optim.Sgd(config.optim.momentum, config.optim.weight_decay, config.optim.clip),
        seed=config.seed,
        skip_nonfinite=config.nonfinite.action == "skip",
    )


def abstract_state(config: ConfigDict, network: models.Network, num_classes: int) -> TrainState:
    """Shapes and dtypes of the logical state; nothing is computed."""
    loss = create_loss(config)
    return jax.eval_shape(
        lambda: create_state(network, loss, num_classes, config.head.sampling_rate, config.seed)
    )


def random_state(
    config: ConfigDict, network: models.Network, num_classes: int, runner: Runner
) -> Any:
    """A compiled function of nothing: the global state, whose rows each device makes for itself."""
    loss, rate = create_loss(config), config.head.sampling_rate
    template = runner.template(abstract_state(config, network, num_classes))
    rows = template.weights.prototypes.shape[0]
    return jax.jit(
        lambda: create_state(network, loss, num_classes, rate, config.seed, rows),
        out_shardings=jax.tree.map(lambda x: x.sharding, template),
    )


def initial_state(
    config: ConfigDict, network: models.Network, num_classes: int, runner: Runner
) -> TrainState:
    """The global state before the first step: random, or config.finetune's weights.

    No process ever holds all prototypes. Fine-tuning takes over network and statistics, and
    prototypes and bias where both are of the same shape: a threshold learned among other classes is
    no start among these. Raises UserError where the network is another one.
    """
    state = random_state(config, network, num_classes, runner)()
    if not config.finetune:
        return state
    abstract = abstract_state(config, network, num_classes)
    try:
        return reading.read_into(config.finetune, state, abstract)
    except UserError as e:
        raise UserError(f"config.finetune={config.finetune}: {e}") from e
