"""The first values of prototypes and biases, and how many rows a device has."""

import dataclasses

import jax
import numpy as np
import pytest

from uniface_jax import losses
from uniface_jax.head.shards import create_prototypes, shard_size


@pytest.mark.parametrize(("name", "biases"), [("uce", ()), ("bce", (304,)), ("arcface", ())])
def test_first_values(name, biases):
    """Padding rows change nothing of a class."""
    loss, key = losses.create(name), jax.random.key(3)
    weight, bias = create_prototypes(key, loss, 301, 64, 0.5, rows=304)
    assert weight.shape == (304, 64)
    assert bias.shape == biases
    np.testing.assert_allclose(np.std(weight), 1 / 8, rtol=0.02)
    np.testing.assert_allclose(bias, np.full(biases, loss.initial_bias(301, 0.5)), rtol=1e-6)
    alone, _ = create_prototypes(key, loss, 301, 64, 0.5)
    np.testing.assert_array_equal(alone, weight[:301])


def test_several_prototypes_a_class():
    loss = dataclasses.replace(losses.create("arcface"), subcentres=3)
    weight, _ = create_prototypes(jax.random.key(0), loss, 5, 4, 1.0)
    assert weight.shape == (5, 3, 4)


@pytest.mark.parametrize(("classes", "devices", "rows"), [(10, 4, 3), (8, 8, 1), (1, 8, 1)])
def test_rows_of_a_device(classes, devices, rows):
    assert shard_size(classes, devices) == rows
