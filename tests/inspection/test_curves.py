"""Curves of every loss against the head itself, and against their derivatives by differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from uniface_jax import losses
from uniface_jax.head.blocks import Prototypes
from uniface_jax.head.loss import Shard, loss_and_gradients
from uniface_jax.head.positives import gather
from uniface_jax.inspection.curves import Held, loss_curves
from uniface_jax.runtime.parallel import AXIS


def heads_loss(loss, bias):
    """(own, other, rest) -> the head's loss of one sample with these cosines among 5 classes."""
    biases = jnp.full(5 if loss.bias == "class" else (), bias)
    everything = Shard(Prototypes(jnp.eye(5, 6), biases, jnp.ones(5, bool)), 0, 5)

    def of_device(feature):
        return loss_and_gradients(loss, everything, gather(feature, jnp.zeros(1, int))).loss

    mesh = Mesh(jax.devices()[:1], (AXIS,))
    compiled = jax.jit(
        jax.shard_map(
            of_device, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(),
            check_vma=False,
        )
    )  # fmt: skip

    def of_cosines(own, other, rest):
        cos = np.array([own, other, rest, rest, rest])
        residue = np.sqrt(1 - np.sum(cos**2))
        return float(compiled(jnp.asarray(np.append(cos, residue)[None], jnp.float32)))

    return of_cosines


@pytest.mark.parametrize("name", ["uce", "bce", "arcface", "sphereface", "sphereface2"])
def test_curves_are_the_heads_loss(name):
    loss = losses.LOSSES[name]()
    expected = heads_loss(loss, loss.initial_bias(5, 1.0))
    at = np.array([0.1, 0.6])
    found = loss_curves(loss, 5, held=Held(own=0.3, rest=0.05), cos=at)
    for i, cos in enumerate(at):
        positive, negative = expected(cos, 0.05, 0.05), expected(0.3, cos, 0.05)
        np.testing.assert_allclose(found.positive[i], positive, rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(found.negative[i], negative, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["uce", "nsl", "arcface", "sphereface2"])
def test_slopes_are_the_derivatives(name):
    loss = losses.LOSSES[name](scale=8.0)
    cos = np.linspace(-0.3, 0.9, 601)
    found = loss_curves(loss, 20, bias=2.0, cos=cos)
    for value, slope in (
        (found.positive, found.positive_slope),
        (found.negative, found.negative_slope),
    ):
        by_differences = np.gradient(value.astype(np.float64), cos)
        np.testing.assert_allclose(slope[20:-20], by_differences[20:-20], rtol=0.03, atol=0.15)
    assert (found.positive_slope <= 1e-6).all()
    assert (found.negative_slope >= -1e-6).all()
    assert np.ptp(found.positive_slope) > 1
    assert np.ptp(found.negative_slope) > 1


@pytest.mark.parametrize("name", ["adaface", "curricularface"])
def test_losses_with_statistics_have_curves(name):
    found = loss_curves(losses.LOSSES[name](), 30)
    assert all(np.isfinite(x).all() for x in found)
    assert found.positive[0] > found.positive[-1] + 10
    assert found.negative[-1] > found.negative[0] + 10


def test_uce_turns_at_its_threshold():
    found = loss_curves(losses.LOSSES["uce"](margin=0.1), 100, bias=0.3 * 64)
    half = 64 / 2
    positive = found.cos[np.argmin(np.abs(found.positive_slope + half))]
    negative = found.cos[np.argmin(np.abs(found.negative_slope - half))]
    np.testing.assert_allclose([positive, negative], [0.4, 0.3], atol=0.006)


def test_one_class_has_no_negative():
    with pytest.raises(ValueError, match="num_classes=1"):
        loss_curves(losses.LOSSES["uce"](), 1)
