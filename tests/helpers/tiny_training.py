"""A network as small as a step allows, with every kind of layer, and its first state.

One block and four channels: what is tested with it (sharding, checkpoints, checks inside the step)
does not depend on the network's depth, and its step compiles in a quarter of the time.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from uniface_jax import losses, models
from uniface_jax.models.iresnet import IResNet
from uniface_jax.state import TrainState, create_state

IMAGE_SIZE = 16  # of the images, where a module enters small_images


@contextmanager
def small_images(size: int = IMAGE_SIZE) -> Iterator[None]:
    """Let networks take images of `size` pixels a side inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "IMAGE_SIZE", size)
        yield


def random_batch(
    rng: np.random.Generator, images: int, num_classes: int, size: int = IMAGE_SIZE
) -> dict[str, np.ndarray]:
    """Return a batch of random pixels and labels: image uint8 [B, H, W, 3], label int32 [B]."""
    return {
        "image": rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8),
        "label": rng.integers(0, num_classes, images).astype(np.int32),
    }


def tiny_network(**overrides) -> IResNet:
    """Return a network of the release's family with one block, 4 channels and 8 features."""
    fields = {"stage_sizes": (1,), "width": 4, "embedding_size": 8, **overrides}
    return models.create("lresnet50", **fields)


def first_state(network: IResNet, loss: str, num_classes: int, seed: int) -> TrainState:
    """Return the state before the first step, in arrays of NumPy, compiled once a process."""
    return jax.device_get(_creation(network, loss, num_classes, models.IMAGE_SIZE)(seed))


@functools.cache
def _creation(network: IResNet, loss: str, num_classes: int, image_size: int):
    """Return the compiled creation from a seed; `image_size` is what models.IMAGE_SIZE is now."""
    created = losses.create(loss)
    return jax.jit(lambda seed: create_state(network, created, num_classes, 1.0, seed))


def assert_close(state: TrainState, expected: TrainState, tolerance: float = 1e-5) -> None:
    """Assert that all arrays of two states have the same shape and, relatively or not, values."""
    for (path, value), other in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        assert value.shape == other.shape, name
        np.testing.assert_allclose(value, other, rtol=tolerance, atol=tolerance, err_msg=name)
