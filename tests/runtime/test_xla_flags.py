"""The compiler's flags: set once, known to this jaxlib, and never in place of a user's."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.paths import ROOT
from uniface_jax.runtime import xla_flags


@pytest.fixture(autouse=True, scope="module")
def started():
    """Start the backend with the session's flags, before a test changes them."""
    jax.devices()


def test_flags_are_added_and_the_users_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_latency_hiding_scheduler=false --xla_other=1")
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "")
    xla_flags.set_flags()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_gpu_enable_latency_hiding_scheduler=false", "--xla_other=1"]
    assert flags[2:] == ["--xla_cpu_experimental_ynn_fusion_type="]
    xla_flags.set_flags()
    assert os.environ["XLA_FLAGS"].split() == flags
    assert "xla_tpu_overlap_compute_collective_tc=true" in os.environ["LIBTPU_INIT_ARGS"]


def test_unknown_versions_are_left_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(xla_flags, "KNOWN", ((99, 0), (99, 1)))
    xla_flags.set_flags()
    assert os.environ["XLA_FLAGS"] == ""
    assert xla_flags.compiler_options() is None
    assert xla_flags.never_run_options() is None
    assert xla_flags.run_once_options() is None


def test_memory_is_that_of_the_program_that_runs():
    def gradient(x):
        return jax.grad(lambda y: jnp.tanh(jnp.tanh(y @ y) @ y).sum())(x)

    lowered = jax.jit(gradient).lower(jnp.ones((64, 64)))
    run, never = (
        lowered.compile(compiler_options=options).memory_analysis()
        for options in (None, xla_flags.never_run_options())
    )
    assert never.temp_size_in_bytes == run.temp_size_in_bytes > 0


def test_what_runs_once_has_the_bits_of_what_users_compile(monkeypatch):
    def first_weights():
        keys = jax.random.split(jax.random.key(0))
        normal = jax.random.normal(keys[0], (3, 3, 5, 7)) * 45**-0.5
        return normal, jax.random.truncated_normal(keys[1], -2, 2, (33, 65)) / 0.88

    lowered = jax.jit(first_weights).lower()
    monkeypatch.setenv("XLA_FLAGS", "")
    usual = {**xla_flags.CPU, "xla_backend_optimization_level": 3}
    usual["xla_llvm_disable_expensive_passes"] = False
    once = xla_flags.run_once_options()
    assert once["xla_backend_optimization_level"] == 1
    for user, other in zip(
        lowered.compile(compiler_options=usual)(),
        lowered.compile(compiler_options=once)(),
        strict=True,
    ):
        np.testing.assert_array_equal(user, other)
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    assert xla_flags.run_once_options() == dict(xla_flags.CPU)


def test_this_jaxlib_knows_the_flags():
    code = (
        "import uniface_jax.runtime.xla_flags as flags; assert flags._known(); flags.set_flags();"
        "import jax;"
        "hlo = jax.jit(lambda x: x @ x).lower(jax.numpy.ones((512, 512))).compile().as_text();"
        "print('ynn' in hlo, flags.compiler_options())"
    )
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "None"], done.stderr


def test_compiler_options_where_no_flag_was_set(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert xla_flags.compiler_options() == dict(xla_flags.CPU)
