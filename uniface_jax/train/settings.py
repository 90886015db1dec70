"""Settings of a training step, and how each parameter is updated by them."""

from typing import Any, NamedTuple

import jax

from uniface_jax.config.multipliers import Multiplier, by_name, factors
from uniface_jax.head.quality import Regression
from uniface_jax.losses import Loss
from uniface_jax.train.adaptive import Adaptive
from uniface_jax.train.optim import Sgd

Tree = Any


class Group(NamedTuple):
    """Group of a parameter: factor of the learning rate, 0 for a frozen one, and weight decay."""

    factor: float
    decay: float


class SampleToSample(NamedTuple):
    """Second loss, between samples and a memory of features, and the step from which it counts.

    Before `start` the memory fills, and the loss of the classes counts alone.
    """

    loss: Loss
    start: int


class Distillation(NamedTuple):
    """Distillation toward a teacher: w of 1 - cos, and T, where T is not the student's D.

    teacher_width: None where both features are as long and no map is trained. centers: instead of
    the cosine, class centers of the teacher's features stand in the prototypes' place.
    """

    weight: float
    teacher_width: int | None = None
    centers: bool = False


class Settings(NamedTuple):
    """Settings that a step is built from, beside network, loss and learning rate."""

    num_classes: int
    micro_batches: int = 1
    sampling_rate: float = 1.0
    block_size: int = 8192
    product_dtype: Any = None
    bn_momentum: float = 0.1  # in PyTorch's sense: the weight of the new statistics
    sgd: Sgd = Sgd()
    seed: int = 0
    multipliers: tuple[Multiplier, ...] = ()  # of the learning rate
    frozen_statistics: bool = False  # batch_stats stay as they are
    skip_nonfinite: bool = False  # where loss or gradient are not finite, only `step` moves
    unrolled: bool | None = None  # the micro-batches; None: on the CPU alone, see fold
    adaptive: Adaptive | None = None  # instead of sgd
    decays: tuple[Multiplier, ...] = ()  # weight decays by name, instead of the optimizer's
    decay_matrices: bool = False  # decay arrays of two axes or more alone
    clip_network: bool = False  # clip the network's gradient by its own norm, the head's not at all
    ema: float = 0.0  # of the mean of the weights; 0 for none
    samples: SampleToSample | None = None
    distillation: Distillation | None = None
    quality: Regression | None = None
    expectation: bool = False  # the loss is coupled with class expectations, kept in the memory

    @property
    def optimizer(self) -> Sgd | Adaptive:
        """Return the optimizer in use."""
        return self.adaptive or self.sgd

    @property
    def grouped(self) -> bool:
        """Return True where not all parameters move alike, as plain SGD's do."""
        return bool(
            self.adaptive or self.multipliers or self.decays or self.decay_matrices
            or self.sgd.decoupled
        )  # fmt: skip


def groups(settings: Settings, weights: Tree) -> Tree:
    """Return a tree of the weights' form with the Group of each parameter.

    weights: state.Weights, of arrays or of their shapes, of a device or of all.
    """
    decay = settings.optimizer.weight_decay
    default = jax.tree.map(
        lambda x: 0.0 if settings.decay_matrices and x.ndim < 2 else decay, weights
    )
    return jax.tree.map(
        Group, factors(settings.multipliers, weights), by_name(settings.decays, default)
    )
