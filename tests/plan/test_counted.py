"""Steps compiled for accelerators: what a plan says of them, and what they may hold and send."""

import re

import jax
import jax.numpy as jnp
import pytest
import table_distributed
from jax.sharding import SingleDeviceSharding

from tests.helpers.accelerators import EVERY_KIND, FOR_GPU, FOR_TPU, GPU
from tests.plan.test_memory import DEVICE, NETWORK
from uniface_jax import config as configs
from uniface_jax.models.linear import linear_in_8_bits
from uniface_jax.plan import counted, kernels, program, report, targets, topology
from uniface_jax.plan.fleet import Data, Fleet
from uniface_jax.plan.kernels import COLLECTIVE, Kernel, Total
from uniface_jax.runtime.chips import multiplies

DEVICES, CLASSES = 8, 4_001


@pytest.fixture
def config():
    config = configs.base()
    config.model.update(
        name="lresnet18", stage_sizes=(1, 1, 1, 1), width=4, embedding_size=16, stem_stride=2
    )
    config.batch_size, config.micro_batches = 64, 1
    config.head.block_memory = 0.25  # MiB: several blocks
    return config


def expect_the_intended_collectives(found, recipe):
    """Check that features are gathered once, their gradients scattered once, and no [C, D] sent."""
    width = recipe.config.model.embedding_size
    features = recipe.config.batch_size // DEVICES * width * 4
    moved = table_distributed.sent(found, recipe, DEVICES)
    assert moved.faults == []
    assert (moved.gathers, moved.scatters) == (1, 1)
    assert moved.gathered >= features
    assert moved.scattered == features * DEVICES
    prototypes = CLASSES // DEVICES * width
    for kernel in found:
        if kernel.kind == COLLECTIVE:
            rows = [array.shape for array in kernel.results if len(array.shape) > 1]
            assert all(shape[0] < CLASSES // DEVICES or shape[1] != width for shape in rows)
            assert kernel.times == 1, kernel.name
            assert kernel.read < 4 * prototypes or "reduce" in kernel.name  # network's gradients


def test_a_step_of_eight_devices_sends_what_it_should(config):
    """Read the program for eight CPU devices, whose collectives XLA places as on any."""
    recipe = program.planned(config, 64_000, CLASSES)
    compiled = program.compiled(recipe, jax.devices()[:DEVICES])
    expect_the_intended_collectives(kernels.kernels(compiled.as_text()), recipe)


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


@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_step_compiled_for_an_accelerator(name, config):
    target = targets.parse(name, DEVICES)
    recipe = program.planned(config, 64_000, CLASSES)
    found = counted.count(recipe, target)
    assert found.total.bytes == sum(total.bytes for total in found.kinds.values()) > 1e6
    assert found.memory.total > 0
    expect_the_intended_collectives(kernels.kernels(found.text), recipe)
    assert f"{found.total.kernels:,}" in counted.table(found, 1e9)
    if target.is_gpu:  # none is made as a convolution of a map with zeros between
        forward, backward = (
            found.kinds[f"convolution, {kind}"].kernels for kind in ("forward", "input gradient")
        )
        assert backward == forward - 1  # the images have none


@pytest.mark.parametrize("name", EVERY_KIND[:1])
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


@pytest.mark.parametrize(
    ("name", "dtype", "factors"),
    [
        pytest.param("h100", "float8_e4m3fn", "f8e4m3fn", marks=FOR_GPU),
        pytest.param("h100", "int8", "s8", marks=FOR_GPU),
        pytest.param("a100", "float8_e4m3fn", "f16", marks=FOR_GPU),  # widened, as is told
        pytest.param("a100", "int8", "s8", marks=FOR_GPU),
        pytest.param("v5e:2x4", "int8", "s8", marks=FOR_TPU),
    ],
)
def test_linear_layers_in_8_bits_are_multiplied_so_where_that_is_said(name, dtype, factors):
    target = targets.parse(name, 1)
    sharding = SingleDeviceSharding(topology.devices_of(target)[0])
    x, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)
        for shape in [(512, 128), (128, 256)]
    )
    layer = jax.jit(lambda x, kernel: linear_in_8_bits(x, kernel, None, dtype))
    text = layer.lower(x, kernel).compile(dict(topology.options(target))).as_text()
    types = dict(re.findall(r"%([\w.\-]+) = \(?([a-z0-9]+)\[", text))
    (takes,) = re.findall(
        r" (?:convolution\(|custom-call\()([^)]*)\)(?:.*matmul|.*dim_labels)", text
    )
    assert {types[name] for name in re.findall(r"%([\w.\-]+)", takes)[:2]} == {factors}
    assert multiplies(target.chip, dtype) == (factors != "f16")


def test_a_table_has_a_roof_of_each_kind_and_what_hides_collectives():
    products = Total(2, 2 * 10**9, 5e12)
    sums = Kernel("all-reduce-start", COLLECTIVE, 10**8, 10**8, 1, (), 0.0, Total(7, 10**9))
    gather = Kernel("all-gather", COLLECTIVE, 10**6, 8 * 10**6, 1, ())
    found = counted.Counted(
        targets.parse("h100", DEVICES),
        program.CompiledMemory(0, 0),
        {"product": products, "reduction": Total(3, 4 * 10**9)},
        [sums, gather],
        "",
        0.0,
    )
    rows = {line[:29].strip(): line[29:].split() for line in counted.table(found, 5e12).split("\n")}
    # 2 GB at 3,352 GB/s take less than 5 TFLOP at 989; of 4 GB there is only the memory's time.
    assert rows["product"] == ["2", "2", "0.5966", "5", "5.056", "5.056"]
    assert rows["reduction"] == ["3", "4", "1.193", "0", "0", "1.193"]
    assert rows["all"] == ["5", "6", "1.79", "5", "5.056", "6.249"]
    # A ring's sum sends twice 7/8 of it at 450 GB/s; beside it are 1 GB, which take 0.298 ms.
    assert rows["all-reduce-start"] == ["1", "175", "0.3889", "7", "0.2983", "77%"]
    assert rows["all-gather"] == ["1", "7", "0.01556", "0", "0", "0%"]
    (first, _) = found.as_json()["collectives"]
    assert first == {"name": "all-reduce-start", "bytes": 10**8, "beside": sums.beside._asdict()}


def test_the_compilers_options_are_known():
    assert topology.options(targets.parse("v5e:2x4", 1)) == {}
    assert "xla_gpu_autotune_level" in topology.options(targets.parse("h100", 1))


@pytest.mark.parametrize(
    ("name", "stages", "images"),
    [
        pytest.param("h100", (1, 1, 1, 1), 32, marks=FOR_GPU),
        pytest.param("v5e:2x4", (1, 1, 1, 1), 64, marks=FOR_TPU),
    ],
)
def test_the_arithmetic_is_within_ten_percent_of_the_compiler(name, stages, images):
    config = configs.base()
    config.model.update(name="lresnet50", stage_sizes=stages)
    config.batch_size, config.micro_batches = DEVICES * images, 1
    target = targets.parse(name, DEVICES)
    plan = report.make_plan(
        config, Data(64_000, CLASSES, "a test"), Fleet(DEVICES, DEVICE, target=target)
    )
    assert plan.compiled.total > 0.4e9
    assert plan.within_a_step == pytest.approx(plan.compiled.total, rel=0.1)
