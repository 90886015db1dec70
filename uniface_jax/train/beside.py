"""Losses beside that of the classes: a teacher's and the quality's; and a teacher's centers."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from uniface_jax import models
from uniface_jax.head import quality
from uniface_jax.head.beside import QUALITY, TO_TEACHER
from uniface_jax.head.centers import moved
from uniface_jax.head.distillation import toward_teacher
from uniface_jax.head.loss import Result
from uniface_jax.head.shards import owned_classes
from uniface_jax.runtime.parallel import AXIS
from uniface_jax.state import TrainState, Tree
from uniface_jax.train.micro_batches import Batch, fold, forward, split
from uniface_jax.train.settings import Settings


class Beside(NamedTuple):
    """Losses [] that are added to that of the classes, with their gradients, and what they measure.

    by_network: of what is trained beside the network, by its name there.
    """

    loss: jax.Array
    by_features: jax.Array
    by_network: dict[str, Tree]
    measured: dict[str, jax.Array]


def beside(
    settings: Settings, network: Tree, features: jax.Array, part: Batch, result: Result
) -> list[Beside]:
    """Return what a teacher and the regression of the quality ask of a micro-batch's features."""
    found = list[Beside]()
    if settings.distillation and not settings.distillation.centers:
        weight, to_teacher = settings.distillation.weight, network.get(TO_TEACHER)
        toward = toward_teacher(weight, features, part["teacher"], to_teacher)
        by_map = {} if toward.by_map is None else {TO_TEACHER: toward.by_map}
        measured = {"teacher_distance": toward.loss}
        found.append(Beside(toward.loss, toward.by_features, by_map, measured))
    if settings.quality and result.relative:
        given = quality.graded(settings.quality, network[QUALITY], features, result.relative)
        measured = {"quality_loss": given.loss, "certainty_ratio": given.ratio}
        by_head = {QUALITY: given.by_head}
        found.append(Beside(given.loss, given.by_features, by_head, measured))
    return found


def metrics_of(settings: Settings, measured: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return means over the step of what beside() has measured, [M] each, without their weights.

    They are that of 1 - cos(student, teacher), 0..2, of a distilled run; and of one with a quality
    its smooth L1 distance and the certainty ratio.
    """
    found = {name: jnp.mean(each) for name, each in measured.items()}
    for name, weighing in (
        ("teacher_distance", settings.distillation), ("quality_loss", settings.quality),
    ):  # fmt: skip
        if weighing and name in found:
            found[name] /= weighing.weight
    return found


def compared(
    settings: Settings, network: Tree, prototypes: jax.Array, features: jax.Array
) -> tuple[jax.Array, Callable[[Result], tuple[Result, dict[str, Tree]]]]:
    """Return what prototypes are compared with, and how its gradients become the features'.

    That is the features themselves, but for class centers of a teacher with features of another
    length: then it is what the map makes of them, which is trained so. Frozen centers get a
    gradient of zeros.
    """
    to_teacher = network.get(TO_TEACHER)
    centers = settings.distillation is not None and settings.distillation.centers

    def back(result: Result) -> tuple[Result, dict[str, Tree]]:
        if not centers:
            return result, {}
        gradients = result.gradients
        gradients = gradients._replace(weight=jnp.zeros_like(prototypes))
        if to_teacher is None:
            return result._replace(gradients=gradients), {}
        by_map = {TO_TEACHER: features.T @ gradients.features}
        gradients = gradients._replace(features=gradients.features @ to_teacher.T)
        return result._replace(gradients=gradients), by_map

    return features @ to_teacher if centers and to_teacher is not None else features, back


def with_moved_centers(
    model: tuple[models.Network, Settings], state: TrainState, batch: Batch, dropout_key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Return the state with class centers moved by the whole step's batch, before its loss.

    The network runs forward on all micro-batches for that, and once more for the gradients: the
    result is then the same on any number of devices.
    """
    (network, settings), params = model, state.weights.network
    micro = settings.micro_batches

    def features_of(carry: Tree, numbered: tuple[jax.Array, Batch]) -> tuple[Tree, jax.Array]:
        number, part = numbered
        key = jax.random.fold_in(dropout_key, jax.lax.axis_index(AXIS) * micro + number)
        return carry, forward(network, state.batch_stats, part, key, params)[0]

    numbered = (jnp.arange(micro), split(network, settings, batch))
    _, features = fold(features_of, (), numbered, settings.unrolled)
    features = features.reshape(-1, features.shape[-1])
    if TO_TEACHER in params:
        features = features @ params[TO_TEACHER]
    centers = state.weights.prototypes
    start, _ = owned_classes(settings.num_classes, centers.shape[0])
    found = moved(centers, features, batch["teacher"], batch["label"], start)
    weights = state.weights._replace(prototypes=found.centers)
    measured = {"teacher_distance": 1 - found.cosine, "center_kept": found.kept}
    return state._replace(weights=weights), measured
