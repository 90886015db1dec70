"""Multipliers of the learning rate: their patterns, and the parameters that these fit."""

import jax
import numpy as np
import pytest

from uniface_jax import config as configs
from uniface_jax.config import multipliers
from uniface_jax.errors import UserError
from uniface_jax.state import Weights

WEIGHTS = Weights(
    {"conv1": {"kernel": np.zeros(2)}, "layer1_0": {"bn0": {"bias": np.zeros(2)}}},
    np.zeros((3, 2)),
    np.zeros(()),
)


def test_the_last_pattern_that_fits_counts():
    parsed = multipliers.parse(" network.*=0, network.layer[12]_*=0.5 ,bias=2,")
    found = multipliers.factors(parsed, WEIGHTS)
    expected = Weights({"conv1": {"kernel": 0}, "layer1_0": {"bn0": {"bias": 0.5}}}, 1, 2)
    assert jax.tree.leaves(found) == jax.tree.leaves(expected)
    assert jax.tree.structure(found) == jax.tree.structure(WEIGHTS)
    assert jax.tree.leaves(multipliers.factors((), WEIGHTS)) == [1.0] * 4


@pytest.mark.parametrize(
    "text", ["network.*", "network.*=-1", "network.*=fast", "=1", "a=nan", "a=inf", "a=1,b"]
)
def test_what_is_no_multiplier(text):
    config = configs.base()
    config.optim.multipliers = text
    with pytest.raises(UserError, match=r"optim.multipliers: '.*' is not PATTERN=FACTOR"):
        configs.check_values(config)


def test_a_pattern_that_fits_nothing():
    multipliers.check_fit(multipliers.parse("network.conv1.*=0,prototypes=0"), WEIGHTS)
    with pytest.raises(
        UserError, match=r"'backbone.\*' fits no parameter; there are network.conv1"
    ):
        multipliers.check_fit(multipliers.parse("bias=0,backbone.*=0"), WEIGHTS)
