"""Predicted memory against the compiler's account of the real program."""

import jax
import pytest

from tests.helpers.compilation import EMITTERS
from uniface_jax import config as configs
from uniface_jax.head.block_size import bytes_a_class
from uniface_jax.plan import liveness, memory, program, report, targets
from uniface_jax.plan.fleet import Data, Device, Fleet
from uniface_jax.runtime import xla_flags

# A recipe's network at a shorter depth; sampled classes in micro-batches, by the same network with
# one stage to probe; another family and loss.
CASES = {
    "deep": (10_572, 32, {"model.stage_sizes": (3, 4, 4, 2)}),
    "sampled": (
        200_000,
        16,
        {
            "model.stage_sizes": (1, 1, 2, 1),
            "model.width": 32,
            "micro_batches": 2,
            "head.sampling_rate": 0.3,
            "loss.name": "uce",
        },
    ),
    "arcface": (
        3_000,
        48,
        {"model.name": "iresnet18", "model.stem_stride": 2, "loss.name": "arcface"},
    ),
}


def case(name):
    classes, images, changes = CASES[name]
    config = configs.base()
    config.micro_batches = 1
    config.update_from_flattened_dict(changes)
    config.batch_size = images * config.micro_batches
    return program.planned(config, 64_000, classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_within_ten_percent_of_the_compiler(name, monkeypatch):
    if EMITTERS:  # fused as users' programs are, which tests' are not
        fused = {**xla_flags.NEVER_RUN, "xla_cpu_use_fusion_emitters": True}
        monkeypatch.setattr(xla_flags, "NEVER_RUN", fused)
    one = case(name)
    network = memory.probe_network(one, 1)
    for devices in (1, 2, 8):
        recipe = one.with_batch_size(one.config.batch_size * devices)
        needs = memory.predict(recipe, devices, network)
        ahead = needs.batches * memory.PREFETCHED_BATCHES // (1 + memory.PREFETCHED_BATCHES)
        compiled = program.compiled_memory(recipe, devices)
        assert needs.total - ahead == pytest.approx(compiled.total, rel=0.1)
        held = needs.network + needs.network_momentum + needs.batches - ahead
        held += needs.prototypes + needs.prototype_momentum
        assert held == pytest.approx(compiled.held, rel=0.01)


NETWORK = memory.NetworkMemory(constant=1e6, slope=2e6)
DEVICE = Device(memory=2e9, reserve=0.0, tflops=100, utilisation=0.5, bandwidth=1e9)


@pytest.fixture
def config():
    config = configs.base()
    config.model.update(name="vit_t", embedding_size=16)  # of one block, which is traced soonest
    config.model.vit.update(dim=16, depth=1, heads=2, patch=28)
    config.batch_size, config.micro_batches = 64, 2
    return config


def plan(config, devices=4, device=DEVICE, classes=40_001):
    data = Data(64_000, classes, "a test")
    return report.make_plan(config, data, Fleet(devices, device), network=NETWORK)


def test_the_largest_batch_and_block_just_fit(config):
    config.head.block_memory = 1.0
    found = plan(config)
    assert found.fits
    for more, fits in ((0, True), (8, False)):
        config.batch_size = found.largest.batch + more
        assert plan(config).fits is fits
    config.batch_size = 64
    tight = Device(plan(config).needs.total + 1e5, 0.0, 100, 0.5, 1e9)
    found = plan(config, device=tight)
    rows = -(-40_001 // 4)
    assert found.block < found.largest.block < rows
    extra = (found.largest.block - found.block) * bytes_a_class(32, 16)
    assert found.needs.total + extra <= found.allowed


def test_the_largest_batch_is_within_the_training_set(config):
    config.data.drop_last = True
    huge = Device(1e15, 0.0, 100, 0.5, 1e9)
    assert plan(config, device=huge).largest.batch == 64_000  # in groups of 4 devices by 2


def test_an_accelerator_is_planned_by_the_arrays_of_the_traced_step(config):
    config.model.update(name="lresnet18", stage_sizes=(1,), width=4, dtype="bfloat16")
    target = targets.parse("h100", 4)
    recipe = program.planned(config, 64_000, 4_001)
    jaxpr = program.trace(recipe, 4)
    network = memory.traced_network(recipe, target, jaxpr)
    needs = memory.predict(recipe, 4, network)
    within = needs.activations + needs.prototype_gradients + needs.head_tiles
    expected = liveness.working_bytes(jaxpr) + target.card.workspace
    assert within == pytest.approx(expected, rel=1e-6)
    assert network.slope > 0


def test_prototypes_are_split_and_the_network_is_not(config):
    one, four = (plan(config, devices).needs for devices in (1, 4))
    assert (
        one.network == four.network == four.network_momentum + four.network - one.network_momentum
    )
    assert one.prototypes == 4 * 40_001 * 16
    assert four.prototypes == four.prototype_momentum == 4 * 10_001 * 16
    assert four.prototype_gradients == 2 * four.prototypes  # of a micro-batch, and their sum


def test_sampling_needs_less(config):
    config.micro_batches = 1
    whole = plan(config).needs.prototype_gradients
    config.head.sampling_rate = 0.1
    assert plan(config).needs.prototype_gradients == pytest.approx(2 * 0.1 * whole, rel=0.01)


def test_adamw_has_two_moments_and_no_prototypes_after_decay(config):
    config.head.sampling_rate = 0.1
    recipe = program.planned(config, 64_000, 40_001)
    sgd = memory.predict(recipe, 4, memory.NetworkMemory(0.0, 0.0))
    config.optim.update(name="adamw", ema=0.9)
    adamw = memory.predict(
        program.planned(config, 64_000, 40_001), 4, memory.NetworkMemory(0.0, 0.0)
    )
    counts = 4 * 10_001
    assert adamw.prototype_momentum == 2 * sgd.prototype_momentum + counts
    assert adamw.network_momentum == 2 * sgd.network_momentum + 4
    assert adamw.average == sgd.network + 4  # weights and statistics, and their count
    assert (sgd.average, adamw.decayed) == (0, 0)
    assert sgd.decayed > 0


def test_a_memory_of_features_is_as_large_as_the_prototypes(config):
    without = plan(config).needs
    config.loss.with_samples = True
    needs = plan(config).needs
    assert without.memory == 0
    assert needs.memory == needs.prototypes
    assert needs._replace(memory=0) == without
    config.head.sampling_rate = 0.1
    assert plan(config).needs.memory == needs.memory + 4 * 16 * int(10_001 * 0.1)


def test_time_is_work_and_communication(config):
    found = plan(config)
    assert found.communication_seconds == found.sent / 1e9
    assert found.step_seconds == pytest.approx(found.flops / 50e12 + found.sent / 1e9)
    assert found.steps == 28_000  # 28 epochs of 64,000 images, 64 at a time
    assert found.days == pytest.approx(28_000 * found.step_seconds / 86400)


def test_what_does_not_fit_says_so(config):
    small = Device(5e6, 0.1, 100, 0.5, 1e9)
    found = plan(config, device=small)
    assert not found.fits
    assert found.largest.batch == 0
    text = report.table(found)
    assert "DOES NOT FIT" in text
    assert "largest batch that fits  0" in text


def test_nothing_is_allocated(config):
    config.batch_size, config.micro_batches = 1 << 20, 1
    before = len(jax.live_arrays())
    found = plan(config, classes=1 << 30)
    assert found.needs.prototypes == 4 * (1 << 28) * 16
    assert len(jax.live_arrays()) == before
