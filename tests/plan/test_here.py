"""This machine's own devices, as a plan takes them."""

import jax
import pytest

from uniface_jax.errors import UserError
from uniface_jax.plan import here
from uniface_jax.runtime import memory


def test_the_devices_of_a_cpu_share_its_memory_and_speed(monkeypatch):
    monkeypatch.setattr(here, "SIDE", 64)
    monkeypatch.setattr(memory, "free_bytes", lambda: 16 * 10**9)
    found = here.measured()
    assert found.devices == len(jax.local_devices())
    assert found.memory == 16e9 / found.devices
    assert 0 < found.tflops < 100


def test_unknown_memory_is_to_be_given(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    with pytest.raises(UserError, match=r"--here: .* give --device_memory"):
        here.measured()
