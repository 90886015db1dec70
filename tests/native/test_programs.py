"""Where the kernels are in the program of a training step, and where they are not."""

import re

import jax
import numpy as np
import pytest

from uniface_jax import config as configs
from uniface_jax import losses, models
from uniface_jax.native import build
from uniface_jax.plan import program
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded, create_state
from uniface_jax.train import step

pytestmark = pytest.mark.usefixtures("kernels")

CLASSES = 100


def called(text):
    """The names of our kernels in a program's text."""
    return set(re.findall(r"uniface_\w+", text))


def lowered_step(loss):
    """A float32 step on two of this process's devices, as text; nothing is compiled."""
    width = max(16, build.vector_width())
    network = models.create(
        "lresnet18", stage_sizes=(1, 1, 1, 1), width=width, embedding_size=width
    )
    loss = losses.create(loss)
    state = jax.eval_shape(lambda: create_state(network, loss, CLASSES, 1.0, 0))
    runner = parallel.ShardMapRunner(class_sharded(state), jax.devices()[:2])
    batch = {
        "image": jax.ShapeDtypeStruct((4, 112, 112, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((4,), np.int32),
    }
    run = runner.compile(step.make_step(network, loss, lambda _: 0.1, step.Settings(CLASSES)))
    return run.lower(runner.template(state), batch).as_text()


def test_a_step_calls_every_kernel():
    assert called(lowered_step("uce")) == set(build.TARGETS)


def test_another_loss_calls_those_of_convolutions_alone():
    assert called(lowered_step("cosface")) == set(build.TARGETS) - {"uniface_cross_entropy_head"}


def test_off_and_on_again():
    with build.off():
        assert not build.available()
        with build.off():
            pass
        assert not called(lowered_step("uce"))
    assert build.available()
    assert called(lowered_step("uce"))


def test_plans_are_without_them():
    """Leave out what a CPU would have: it says nothing about accelerators."""
    config = configs.base()
    width = max(16, build.vector_width())
    config.model.update(name="lresnet18", width=width, embedding_size=width)
    config.model.stage_sizes = (1, 1, 1, 1)
    config.batch_size, config.micro_batches = 8, 1
    traced = str(program.trace(program.planned(config, 64, CLASSES), 2))
    assert "conv_general_dilated" in traced
    assert not called(traced)
