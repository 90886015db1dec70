"""One step, the same result: on 1, 2 and 8 devices, by pmap and by shard_map."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny_training import first_state, random_batch, small_images, tiny_network
from uniface_jax import losses, models
from uniface_jax.errors import UserError
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded, create_state
from uniface_jax.train import optim, step

CLASSES, BATCH, GROUP, STEPS = 13, 64, 8, 5  # 13 classes divide by no number of devices
LR = 0.005
# The eight micro-batches of one device: in a loop, as accelerators run them, one is traced and
# compiled. Those of `reference` and of two devices are unrolled, as CPUs run them.
LOOPED = {"unrolled": False}
NETWORK = tiny_network(dropout=0.3)


@pytest.fixture(scope="module", autouse=True)
def of_small_images():
    with small_images():
        yield


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [random_batch(rng, BATCH, CLASSES) for _ in range(STEPS)]


def start(loss_name="uce"):
    return first_state(NETWORK, loss_name, CLASSES, seed=3)


@functools.cache
def program(mode: str, devices: int, loss_name: str, **settings):
    """(runner, compiled step) over groups of GROUP images."""
    settings = step.Settings(
        num_classes=CLASSES, micro_batches=BATCH // GROUP // devices, block_size=5, **settings
    )
    sharded = class_sharded(start(loss_name))
    runner = parallel.create_runner(mode, sharded, jax.devices()[:devices])
    one = step.make_step(NETWORK, losses.create(loss_name), lambda _: LR, settings)
    return runner, runner.compile(one)


def train(mode: str, devices: int, batches, loss_name="uce", **settings):
    runner, compiled = program(mode, devices, loss_name, **settings)
    placed = runner.place(start(loss_name))
    metrics = []
    for batch in batches:
        placed, values = compiled(placed, runner.put(batch))
        metrics.append(jax.device_get(values))
    return runner.logical(placed), metrics


@pytest.fixture(scope="module")
def reference(batches):
    return train("shard_map", 1, batches)


def assert_close(state, expected, tolerance):
    for (path, value), other in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(expected), strict=True
    ):
        name = jax.tree_util.keystr(path)
        assert value.shape == other.shape, name
        np.testing.assert_allclose(value, other, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("mode", "devices"),
    [
        ("shard_map", 2),
        pytest.param("pmap", 2, marks=pytest.mark.slow),
        pytest.param("shard_map", 8, marks=pytest.mark.slow),
        ("pmap", 8),
    ],
)
def test_same_run_on_any_devices(mode, devices, batches, reference):
    state, metrics = train(mode, devices, batches)
    expected, expected_metrics = reference
    assert_close(state, expected, 1e-5)
    assert int(state.step) == STEPS
    for values, others in zip(metrics, expected_metrics, strict=True):
        assert values.keys() == others.keys()
        for key in values:
            np.testing.assert_allclose(values[key], others[key], rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.fixture
def forms_of_gpus(monkeypatch):
    """Let CPUs run what is written for XLA's compiler for GPUs."""

    def forget():
        program.cache_clear()
        jax.clear_caches()

    def chosen(*arrays, default, cuda=None, **_):
        return (cuda or default)(*arrays)

    forget()
    with monkeypatch.context() as patched:
        patched.setattr(jax.lax, "platform_dependent", chosen)
        yield
    forget()


@pytest.mark.slow
def test_same_run_in_the_forms_of_gpus(batches, reference, forms_of_gpus):
    state, _ = train("shard_map", 2, batches)
    assert_close(state, reference[0], 1e-5)


def test_the_run_moves(reference, batches):
    state, metrics = reference
    before = start().weights
    for moved, was in zip(jax.tree.leaves(state.weights), jax.tree.leaves(before), strict=True):
        assert np.abs(moved - was).max() > 0
    assert metrics[-1]["loss"] < metrics[0]["loss"]


@pytest.mark.slow
def test_bias_a_class_is_sharded(batches):
    one, _ = train("shard_map", 1, batches[:2], "bce", **LOOPED)
    many, _ = train("pmap", 8, batches[:2], "bce")
    assert one.weights.bias.shape == (CLASSES,)
    assert_close(many, one, 1e-5)


@pytest.mark.parametrize("mode", [pytest.param("pmap", marks=pytest.mark.slow), "shard_map"])
def test_sampled_classes_by_hand(mode, batches):
    """r < 1: unsampled prototypes only decay, and keep their momentum."""
    few = [{"image": batch["image"], "label": batch["label"] % 2} for batch in batches[:2]]
    state, _ = train(mode, 2, few[:1], sampling_rate=0.3, sgd=optim.Sgd(weight_decay=0.01))
    moved = np.abs(state.momentum.prototypes).sum(1) > 0
    # int(7 * 0.3) + int(6 * 0.3) classes on two shards; the batch's labels 0 and 1 are always in.
    assert moved[:2].all()
    assert moved.sum() == 3
    np.testing.assert_allclose(
        state.weights.prototypes[~moved],
        start().weights.prototypes[~moved] * (1 - LR * 0.01),
        rtol=1e-6,
    )


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_place_and_logical_are_inverse(mode, devices):
    state = {"prototypes": np.arange(26.0).reshape(13, 2), "scalar": np.float32(3)}
    runner = parallel.create_runner(
        mode, {"prototypes": True, "scalar": False}, jax.devices()[:devices]
    )
    placed = runner.place(state)
    again = runner.logical(placed)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    rows = -(-13 // devices)
    shards = placed["prototypes"].addressable_shards
    assert {shard.data.reshape(-1, 2).shape for shard in shards} == {(rows, 2)}


def test_auto_is_pmap_in_one_process():
    assert isinstance(parallel.create_runner("auto", {}), parallel.PmapRunner)
    with pytest.raises(UserError, match=r"parallel='xmap'.*allowed are auto, shard_map, pmap"):
        parallel.create_runner("xmap", {})


def test_running_statistics_are_pytorchs_sequence(batches):
    """Groups folded in one after another, as one device with micro-batches does in PyTorch."""
    state, _ = train("shard_map", 2, batches[:1])
    mean, var = np.zeros(4), np.ones(4)
    images = models.normalize(jnp.asarray(batches[0]["image"]))
    for group in np.split(np.asarray(images), BATCH // GROUP):
        stem = jax.lax.conv_general_dilated(
            group, start().weights.network["conv1"]["kernel"], (1, 1), [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        stem = np.asarray(stem, np.float64).reshape(-1, 4)
        mean = 0.9 * mean + 0.1 * stem.mean(0)
        var = 0.9 * var + 0.1 * stem.var(0, ddof=1)
    np.testing.assert_allclose(state.batch_stats["bn1"]["mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.batch_stats["bn1"]["var"], var, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "settings"), [(1, LOOPED), (2, {})])
def test_loss_statistics_go_from_micro_batch_to_micro_batch(devices, settings, batches):
    """CurricularFace's mean of the positive cosines, folded in by hand, micro-batch by micro-batch.

    Micro-batch k of the step is the k-th of every device, as the head sees them together.
    """
    state, _ = train("shard_map", devices, batches[:1], "curricularface", **settings)
    micro = BATCH // GROUP // devices
    before = start("curricularface")
    dropout_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    prototypes = before.weights.prototypes
    prototypes = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    cosines = np.zeros(BATCH)

    @jax.jit
    def features_of(images, group):
        features, _ = NETWORK.apply(
            {"params": before.weights.network, "batch_stats": before.batch_stats},
            models.normalize(images),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(dropout_key, group)},
        )
        return features

    for group, samples in enumerate(np.split(np.arange(BATCH), BATCH // GROUP)):
        features = features_of(batches[0]["image"][samples], group)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        cosines[samples] = np.sum(features * prototypes[batches[0]["label"][samples]], 1)
    expected = 0.0
    for together in cosines.reshape(devices, micro, GROUP).swapaxes(0, 1):
        expected = 0.99 * expected + 0.01 * together.mean()
    found = state.loss_statistics["positive_mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)
    assert abs(found) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elastic_arc", "magface"])
def test_drawn_margins_and_norms_are_the_same_on_any_devices(name, batches):
    """A sample's margin goes by its group's number, however many devices share the groups."""
    one, _ = train("shard_map", 1, batches[:2], name, **LOOPED)
    many, _ = train("pmap", 8, batches[:2], name)
    assert_close(many, one, 1e-5)


@pytest.mark.slow
def test_margins_are_drawn_by_seed_and_step(batches):
    """Other margins in another step or by another seed; the same ones when taken again."""
    first, _ = train("shard_map", 1, batches[:2], "elastic_arc", **LOOPED)
    again, _ = train("shard_map", 1, batches[:2], "elastic_arc", **LOOPED)
    jax.tree.map(np.testing.assert_array_equal, again, first)
    fixed, _ = train("shard_map", 1, batches[:2], "arcface", **LOOPED)
    other, _ = train("shard_map", 1, batches[:2], "elastic_arc", seed=1, **LOOPED)
    for state in (fixed, other):
        assert not np.allclose(state.weights.prototypes, first.weights.prototypes, atol=1e-7)


@pytest.mark.slow
def test_subcentres_are_sharded(batches):
    """Three prototypes a class, on 1 and on 8 devices."""
    loss = dataclasses.replace(losses.create("arcface"), subcentres=3)
    first = jax.device_get(create_state(NETWORK, loss, CLASSES, 1.0, 3))
    assert first.weights.prototypes.shape == (CLASSES, 3, 8)
    found = []
    for devices in (1, 8):
        settings = step.Settings(
            CLASSES, micro_batches=BATCH // GROUP // devices, block_size=5, **LOOPED
        )
        runner = parallel.create_runner("shard_map", class_sharded(first), jax.devices()[:devices])
        compiled = runner.compile(step.make_step(NETWORK, loss, lambda _: LR, settings))
        placed = runner.place(first)
        for batch in batches[:2]:
            placed, _ = compiled(placed, runner.put(batch))
        found.append(runner.logical(placed))
    assert_close(found[1], found[0], 1e-5)
