"""The balanced b is where UCE's own gradient by b is zero, and moves as the formula says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import losses
from uniface_jax.inspection import hyperparameters as h
from uniface_jax.inspection.similarity import Similarities, similarities


@pytest.fixture(scope="module")
def found() -> Similarities:
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(12, 16))
    labels = np.arange(120) % 12
    features = prototypes[labels] + 0.8 * rng.normal(size=(120, 16))
    return similarities(features, labels, prototypes)


@pytest.mark.parametrize(
    "changed",
    [{}, {"margin": 0.1}, {"negative_weight": 0.3}, {"scale": 20.0}],
)
def test_gradient_is_zero(changed, x64):
    rng = np.random.default_rng(1)
    positive, negative = rng.uniform(0.3, 0.6, 50), rng.uniform(-0.4, 0.4, (50, 9))
    values = {**h.DEFAULTS, **changed}
    b = h.unified_bias(positive, negative.ravel(), np.full(450, 1 / 50), values)
    values.pop("sampling_rate")
    loss = losses.create("uce", **values)

    def mean_loss(b):
        terms = loss.negative(jnp.asarray(negative), b)
        return jnp.mean(loss.positive(jnp.asarray(positive), b) + jnp.sum(terms, 1))

    assert abs(jax.grad(mean_loss)(jnp.asarray(b))) < 1e-6
    assert abs(jax.grad(mean_loss)(jnp.asarray(b + 1))) > 1e-2


def test_sampling_acts_as_the_weight_of_negatives(found):
    half = h.threshold(found, {**h.DEFAULTS, "sampling_rate": 0.5})
    lighter = h.threshold(found, {**h.DEFAULTS, "negative_weight": 0.5})
    assert half == pytest.approx(lighter, abs=1e-12)
    assert half < h.threshold(found, h.DEFAULTS) - 1e-3


def test_sweeps_move_one_way(found):
    sweeps = h.threshold_sweeps(found)
    assert set(sweeps) == {"margin", "negative_weight", "sampling_rate", "scale"}
    assert (np.diff(sweeps["margin"]["thresholds"]) < 0).all()
    assert (np.diff(sweeps["negative_weight"]["thresholds"]) > 0).all()
    assert (np.diff(sweeps["sampling_rate"]["thresholds"]) > 0).all()


def test_curves_turn_at_the_threshold(found):
    curves = h.curves_at(found, h.DEFAULTS)
    turn = curves.cos[np.argmin(np.abs(curves.negative_slope - 32))]
    assert turn == pytest.approx(h.threshold(found, h.DEFAULTS), abs=0.006)
