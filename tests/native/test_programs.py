"""Where the kernels are in the program of a training step, and where they are not."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uniface_jax import config as configs
from uniface_jax import losses, models
from uniface_jax.export import formats
from uniface_jax.native import build
from uniface_jax.plan import program
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded, create_state
from uniface_jax.train import step

pytestmark = pytest.mark.usefixtures("kernels")

CLASSES = 100


def called(text):
    """The names of our kernels in a program's text."""
    return set(re.findall(r"uniface_\w+", text)) & set(build.TARGETS)


def lowered_step(loss, network=None):
    """A float32 step on two of this process's devices, as text; nothing is compiled."""
    width = max(16, build.vector_width())
    network = network or models.create(
        "lresnet18", stage_sizes=(1,), width=width, embedding_size=width
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


DEPTHWISE = {name for name in build.TARGETS if "depthwise" in name}
ATTENTION = {name for name in build.TARGETS if "attention" in name}
OF_INFERENCE = {name for name in build.TARGETS if "fused" in name}
OF_RESNETS = set(build.TARGETS) - DEPTHWISE - ATTENTION - OF_INFERENCE


def small_mobilefacenet(**fields):
    return models.create("mbf", blocks=(1, 1, 0, 0), embedding_size=64, **fields)


def small_vit():
    return models.create("vit_t", depth=1, heads=4, dim=4 * build.vector_width())


def test_a_step_calls_every_kernel():
    assert called(lowered_step("uce")) == OF_RESNETS


def test_another_loss_calls_those_of_convolutions_alone():
    assert called(lowered_step("cosface")) == OF_RESNETS - {"uniface_cross_entropy_head"}


@pytest.mark.parametrize("scale", [1, 2])
def test_a_step_of_mobilefacenet_calls_those_of_groups(scale):
    """Call them for the second convolution too, whose groups have two channels at scale 2."""
    text = lowered_step("cosface", small_mobilefacenet(scale=scale))
    assert called(text) >= DEPTHWISE
    assert "feature_group_count = 64" not in text


def test_a_step_of_a_vit_calls_those_of_attention():
    assert called(lowered_step("cosface", small_vit())) >= ATTENTION


@pytest.mark.parametrize("make", [lambda: small_mobilefacenet(scale=2), small_vit])
def test_exports_are_without_them(make):
    """Leave them out of what is written for other machines, which have none."""
    network = make()
    variables = jax.eval_shape(lambda: models.initialize(network, jax.random.key(0)))
    params, statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
    weights = {"params": params, "batch_stats": statistics}
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 112, 112, 3"), np.float32)
    features = jax.jit(partial(models.features, network, weights))
    text = jax.export.export(features, platforms=formats.PLATFORMS)(images).mlir_module()
    assert "stablehlo.convolution" in text
    assert not called(text)


@pytest.mark.parametrize("make", [lambda: None, lambda: small_mobilefacenet(scale=2), small_vit])
def test_off_and_on_again(make, monkeypatch):
    """Choose by the switches as they are, not as they were when a layer like it was traced."""
    before = called(lowered_step("uce", make()))
    assert before
    with build.off():
        assert not build.available()
        with build.off():
            pass
        assert not called(lowered_step("uce", make()))
    assert build.available()
    assert called(lowered_step("uce", make())) == before
    monkeypatch.setenv(build.SWITCH, "0")
    monkeypatch.setattr(build, "library", build.library.__wrapped__)
    assert not called(lowered_step("uce", make()))


def test_plans_are_without_them():
    """Leave out what a CPU would have: it says nothing about accelerators."""
    config = configs.base()
    width = max(16, build.vector_width())
    config.model.update(name="lresnet18", width=width, embedding_size=width)
    config.model.stage_sizes = (1,)
    config.batch_size, config.micro_batches = 8, 1
    traced = str(program.trace(program.planned(config, 64, CLASSES), 2))
    assert "conv_general_dilated" in traced
    assert not called(traced)
