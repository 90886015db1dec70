"""A run that does not fit, in one line."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT
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


# A step of some 15 GB, in a process that may have 8 GB.
TOO_LARGE = (
    "--config=demo", "--config.data.train=synthetic:10:1024", "--config.data.prepare=",
    "--config.eval.data=", "--config.batch_size=1024", "--config.model.width=32",
    "--config.model.stem_stride=1", "--config.steps=2", "--config.optim.warmup_epochs=0",
)  # fmt: skip
LIMIT_KB = 8_000_000


def limited(command, *arguments, cwd):
    """Run a command in a process whose addresses the system limits."""
    return subprocess.run(
        [
            "bash", "-c", f'ulimit -v {LIMIT_KB}; exec "$@"', "bash",
            sys.executable, "-m", f"uniface_jax.{command}", *TOO_LARGE, *arguments,
        ],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": FAST_COMPILATION},
        capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_real_limit_ends_training_in_one_line_and_plan_says_so(tmp_path):
    done = limited("train", f"--workdir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    *_, line = done.stderr.strip().splitlines()
    assert line.startswith("error: not enough memory: a step takes 1")
    assert "ways out: --config.batch_size=256 --config.micro_batches=1, " in line
    assert "Traceback" not in done.stderr
    done = limited("plan", "--here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "DOES NOT FIT" in done.stdout
