"""Steps compiled for accelerators: what a plan says of them, and what they may hold and send."""

import contextlib
import importlib.util

import jax
import pytest

from tests.plan.test_memory import DEVICE, NETWORK
from uniface_jax import config as configs
from uniface_jax.plan import counted, kernels, program, report, targets, topology
from uniface_jax.plan.fleet import Data, Fleet
from uniface_jax.plan.kernels import COLLECTIVE

DEVICES, CLASSES = 8, 4_001


def has(*modules):
    """Return whether one of the modules can be imported."""
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module):
                return True
    return False


GPU = has("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")
TPU = has("libtpu")
INSTALLED = [
    pytest.param("h100", marks=pytest.mark.skipif(not GPU, reason="make test-accelerators")),
    pytest.param("v5e:2x4", marks=pytest.mark.skipif(not TPU, reason="make test-accelerators")),
]


@pytest.fixture
def config():
    config = configs.base()
    config.model.update(
        name="lresnet18", stage_sizes=(1, 1, 1, 1), width=4, embedding_size=16, stem_stride=2
    )
    config.batch_size, config.micro_batches = 64, 1
    config.head.block_memory = 0.25  # MiB: several blocks
    return config


def expect_the_intended_collectives(found, config):
    """Check that features are gathered once, their gradients scattered once, and no [C, D] sent."""
    sent = [kernel for kernel in found if kernel.kind == COLLECTIVE]
    gathers = [kernel for kernel in sent if "gather" in kernel.name]
    scatters = [kernel for kernel in sent if "scatter" in kernel.name]
    features = config.batch_size // DEVICES * config.model.embedding_size * 4
    assert [kernel.times for kernel in gathers if kernel.read >= features] == [1]
    assert [kernel.times for kernel in scatters if kernel.read >= features * DEVICES] == [1]
    prototypes = CLASSES // DEVICES * config.model.embedding_size
    for kernel in sent:
        rows = [array.shape for array in kernel.results if len(array.shape) > 1]
        assert all(shape[0] < CLASSES // DEVICES or shape[1] != 16 for shape in rows)
        assert kernel.times == 1, kernel.name
        assert kernel.read < 4 * prototypes or "reduce" in kernel.name  # the network's gradients


def test_a_step_of_eight_devices_sends_what_it_should(config):
    """Read the program for eight CPU devices, whose collectives XLA places as on any."""
    recipe = program.planned(config, 64_000, CLASSES)
    compiled = program.compiled(recipe, jax.devices()[:DEVICES])
    expect_the_intended_collectives(kernels.kernels(compiled.as_text()), config)


@pytest.mark.skipif(GPU, reason="XLA's compiler for CUDA is installed")
def test_without_the_compiler_a_plan_is_arithmetic_and_says_so(config):
    target = targets.parse("h100", 4)
    fleet = Fleet(4, DEVICE, target=target)
    plan = report.make_plan(config, Data(64_000, CLASSES, "a test"), fleet, network=NETWORK)
    assert plan.on_target is None
    assert "on_target" not in plan.as_json()
    (note,) = plan.notes
    assert note.startswith("arithmetic alone: --target=h100: XLA's compiler for CUDA")
    assert "pip install 'uniface_jax[cuda]'" in report.table(plan)


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_a_step_compiled_for_an_accelerator(name, config):
    target = targets.parse(name, DEVICES)
    recipe = program.planned(config, 64_000, CLASSES)
    found = counted.count(recipe, target)
    assert found.total.bytes == sum(total.bytes for total in found.kinds.values()) > 1e6
    assert found.memory.total > 0
    expect_the_intended_collectives(kernels.kernels(found.text), config)
    assert f"{found.total.kernels:,}" in counted.table(found, 1e9)


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED[:1])
def test_attention_on_a_gpu_is_fused_and_holds_no_square_of_tokens(name):
    config = configs.base()
    config.model.update(name="vit_t", dtype="bfloat16", embedding_size=64)
    config.model.vit.attention = "cudnn"
    config.batch_size, config.micro_batches = 32, 1
    found = counted.count(program.planned(config, 64_000, 100), targets.parse(name, 1))
    assert found.kinds["attention"].kernels == 2 * 12
    tokens = (129, 130, 144)
    held = {array.shape for kernel in kernels.kernels(found.text) for array in kernel.results}
    assert not [s for s in held if len(s) > 2 and s[-1] in tokens and s[-2] in tokens]


def test_the_compilers_options_are_known():
    assert topology.options(targets.parse("v5e:2x4", 1)) == {}
    assert "xla_gpu_autotune_level" in topology.options(targets.parse("h100", 1))
