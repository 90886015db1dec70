"""What large runs send is sorted by what it is for, and what should not be sent is told."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
import table_distributed as script

from uniface_jax import config as configs
from uniface_jax.plan import targets
from uniface_jax.plan.kernels import COLLECTIVE, Array, Kernel

DEVICES, BATCH, WIDTH, CLASSES = 8, 64, 16, 4_001
FEATURES = BATCH * WIDTH * 4


@pytest.fixture
def recipe():
    config = configs.base()
    config.batch_size, config.micro_batches = BATCH, 1
    config.model.embedding_size = WIDTH
    layer = jax.ShapeDtypeStruct((2000, WIDTH), jnp.float32)
    shapes = SimpleNamespace(weights=SimpleNamespace(network={"linear": layer}))
    return SimpleNamespace(config=config, num_classes=CLASSES, shapes=shapes)


def collective(name, read, *shapes, times=1):
    results = tuple(Array("f32", shape) for shape in shapes)
    return Kernel(name, COLLECTIVE, read, read, times, results)


def intended():
    return [
        collective("all-gather-start", FEATURES // DEVICES + 32, (BATCH, WIDTH), (BATCH,)),
        collective("reduce-scatter-start", FEATURES, (BATCH // DEVICES, WIDTH)),
        collective("all-reduce-start", 128_000, (2000, WIDTH)),
        collective("all-reduce-start.1", 12, (), (), ()),
        Kernel("fusion", "element-wise", 1 << 30, 1 << 30, 1, (Array("f32", (CLASSES, WIDTH)),)),
    ]


def test_the_intended_ones_are_sorted(recipe):
    found = script.sent(intended(), recipe, DEVICES)
    assert found == script.Sent(1, FEATURES // DEVICES + 32, 1, FEATURES, 1, 128_000, 1, [])


def test_sums_of_features_are_a_gather_and_a_scatter(recipe):
    """Sum as XLA's compiler for TPUs does on 64 chips."""
    sums = [collective(f"all-reduce.{n}", FEATURES, (BATCH, WIDTH)) for n in range(3)]
    others = intended()[2:]
    found = script.sent([*sums[:2], *others], recipe, DEVICES)
    assert found == script.Sent(1, FEATURES, 1, FEATURES, 1, 128_000, 1, [])
    (fault,) = script.sent([*sums, *others], recipe, DEVICES).faults
    assert "2 scatters, where 1 are expected" in fault


def test_more_images_than_classes_of_a_device_are_no_prototypes(recipe):
    recipe.config.head.sampling_rate = 0.1
    gather, _, *others = intended()
    scatter = collective("reduce-scatter-start", FEATURES, (BATCH, WIDTH), (8, WIDTH))
    assert script.sent([gather, scatter, *others], recipe, DEVICES).faults == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (collective("all-reduce.9", 1 << 20, (CLASSES, WIDTH)), "has the prototypes' size"),
        (collective("all-to-all", 1 << 20, (501, WIDTH)), "has the prototypes' size"),
        (collective("reduce-scatter.2", FEATURES, (8, WIDTH)), "2 scatters, where 1 are expected"),
        (collective("all-gather.2", FEATURES, (BATCH, WIDTH)), "2 gathers of features"),
        (collective("all-reduce.3", 1 << 20, (100,), times=4), "runs 4 times"),
    ],
)
def test_what_should_not_be_sent_is_told(more, told, recipe):
    (fault,) = script.sent([*intended(), more], recipe, DEVICES).faults
    assert told in fault


def test_what_fits_leaves_a_tenth_free():
    target = targets.parse("v5e:2x4", 8)
    assert script.fitting(int(0.89 * target.card.memory), target) == "15.3 of 17: fits"
    assert script.fitting(int(0.91 * target.card.memory), target).endswith(": DOES NOT FIT")


@pytest.mark.slow  # traces a step
def test_the_whole_network_is_planned_by_arithmetic():
    small = {"model.stage_sizes": (1, 1, 1, 1), "model.width": 4}
    found = script.planned_bytes(script.Case("demo", "h100", 8, 801_000, small))
    prototypes = 801_000 // 8 * 128 * 4  # of a device; with their momentum, and a block's work
    assert 2 * prototypes < found < 10 * prototypes
