"""A run that does not fit, in one line."""

from types import SimpleNamespace

import jax
import pytest

from uniface_jax import config as configs
from uniface_jax.errors import UserError
from uniface_jax.runtime import memory
from uniface_jax.train import memory_limits


def program(size):
    return SimpleNamespace(memory_analysis=lambda: SimpleNamespace(temp_size_in_bytes=size))


def test_a_step_that_takes_more_than_there_is_is_refused_before_it_runs(monkeypatch):
    devices = jax.devices("cpu")[:2]
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 * 10**9)
    memory_limits.check_program(program(4 * 10**9), configs.base(), devices)
    words = r"a step takes 12.0 GB beside the weights, and 10.0 GB are free here; ways out: "
    with pytest.raises(
        UserError, match=words + r"--config.batch_size=128 --config.micro_batches=1"
    ):
        memory_limits.check_program(program(6 * 10**9), configs.base(), devices)


def test_where_nothing_is_known_nothing_is_refused(monkeypatch):
    devices = jax.devices("cpu")[:1]
    memory_limits.check_program(SimpleNamespace(), configs.base(), devices)
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    memory_limits.check_program(program(1 << 60), configs.base(), devices)


def test_the_error_of_jax_becomes_one_line():
    small = configs.base()
    small.batch_size, small.model.remat = 4, True
    with (
        pytest.raises(
            UserError, match=r"not enough memory \(RESOURCE_EXHAUSTED: no\); ways out: a"
        ),
        memory_limits.in_one_line(small),
    ):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no")
    with pytest.raises(jax.errors.JaxRuntimeError), memory_limits.in_one_line(small):
        raise jax.errors.JaxRuntimeError("INTERNAL: no")
