"""Fine-tuning: frozen and slower parameters, frozen statistics, a head alone; workdirs extended."""

import functools
import json

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.tiny_training import first_state, random_batch, small_images, tiny_network
from uniface_jax import losses, models
from uniface_jax.checkpoints import reading
from uniface_jax.config import multipliers
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded
from uniface_jax.train import optim, step

CLASSES, BATCH, LR = 13, 16, 0.1
SGD = optim.Sgd(clip=1e9)


@pytest.fixture(scope="module", autouse=True)
def of_small_images():
    with small_images():
        yield


@pytest.fixture(scope="module")
def batch():
    return random_batch(np.random.default_rng(0), BATCH, CLASSES)


@functools.cache
def network(frozen=False):
    return tiny_network(dropout=0.0, frozen_statistics=frozen)


def first():
    """A state whose statistics and slopes are not those of the beginning."""
    state = first_state(network(), "uce", CLASSES, seed=3)
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: np.full_like(x, 0.001) if "slope" in str(path) else x,
        state.weights.network,
    )
    stats = jax.tree.map(lambda x: x + np.float32(0.3), state.batch_stats)
    return state._replace(weights=state.weights._replace(network=params), batch_stats=stats)


@functools.cache
def program(text, devices, frozen, rate):
    settings = step.Settings(
        num_classes=CLASSES, micro_batches=2 // devices, block_size=5, sampling_rate=rate, sgd=SGD,
        multipliers=multipliers.parse(text), frozen_statistics=frozen,
    )  # fmt: skip
    runner = parallel.create_runner("shard_map", class_sharded(first()), jax.devices()[:devices])
    one = step.make_step(network(frozen), losses.create("uce"), lambda _: LR, settings)
    return runner, runner.compile(one)


def train(batch, text="", devices=1, frozen=False, rate=1.0, steps=3):
    runner, compiled = program(text, devices, frozen, rate)
    placed = runner.place(first())
    for _ in range(steps):
        placed, metrics = compiled(placed, runner.put(batch))
    return runner.logical(placed), jax.device_get(metrics)


def moved(before, after):
    """Names of the arrays that are not bitwise what they were."""
    return {
        multipliers.name_of(path)
        for (path, x), y in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
        )
        if np.asarray(x).tobytes() != np.asarray(y).tobytes()
    }


@functools.cache
def names():
    """Return those of all weights; compiled when first asked for, and not as tests are found."""
    leaves = jax.tree_util.tree_leaves_with_path(first().weights)
    return {multipliers.name_of(path) for path, _ in leaves}


# On two devices whatever one does is done too.
DEVICES = pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])


@DEVICES
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_frozen_parameters_are_bitwise_unchanged(batch, devices, rate):
    """Train with weight decay, momentum and slopes below their floor; sharded and sampled."""
    state, _ = train(batch, "network.*=0,network.fc5.*=1", devices, rate=rate)
    trained = {"network.fc5.kernel", "prototypes", "bias"}
    assert moved(first().weights, state.weights) == trained
    assert moved(first().momentum, state.momentum) == trained


@DEVICES
def test_a_frozen_head(batch, devices):
    state, _ = train(batch, "prototypes=0,bias=0", devices)
    assert moved(first().weights, state.weights) == names() - {"prototypes", "bias"}


def test_without_multipliers_nothing_is_frozen(batch):
    state, _ = train(batch)
    assert moved(first().weights, state.weights) == names()


def test_a_factor_is_a_learning_rate(batch):
    """The first step goes a tenth of the way, the second by the momentum that is the same."""
    whole, _ = train(batch, steps=1)
    slower, _ = train(batch, "network.conv1.kernel=0.1,prototypes=0.1", steps=1)
    for name in ("prototypes", "conv1"):
        start, full, part = (
            x.weights.prototypes if name == "prototypes" else x.weights.network[name]["kernel"]
            for x in (first(), whole, slower)
        )
        np.testing.assert_allclose(part - start, 0.1 * (full - start), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        slower.weights.network["fc5"]["kernel"], whole.weights.network["fc5"]["kernel"], rtol=1e-6
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        slower.momentum, whole.momentum,
    )  # fmt: skip


def test_the_norm_is_of_what_is_trained(batch):
    """Take the norm as PyTorch's clip_grad_norm_ does, of the parameters that have gradients."""
    _, whole = train(batch, steps=1)
    _, network_alone = train(batch, "prototypes=0,bias=0", steps=1)
    _, head_alone = train(batch, "network.*=0", steps=1)
    squares = network_alone["grad_norm"] ** 2 + head_alone["grad_norm"] ** 2
    assert squares == pytest.approx(whole["grad_norm"] ** 2, rel=1e-4)
    assert 0 < head_alone["grad_norm"] < whole["grad_norm"]


@DEVICES
def test_frozen_statistics(batch, devices):
    """They stay, bitwise, and training sees the features of test time."""
    state, metrics = train(batch, devices=devices, frozen=True)
    assert moved(first().batch_stats, state.batch_stats) == set()
    assert moved(first().weights, state.weights) == names()
    assert np.isfinite(metrics["loss"])
    variables = {"params": first().weights.network, "batch_stats": first().batch_stats}
    images = models.normalize(batch["image"])
    features, _ = models.train_forward(network(True), variables, images, jax.random.key(0))
    np.testing.assert_array_equal(features, models.features(network(), variables, images))


def test_a_head_alone_leaves_the_network_as_it_is(batch):
    state, _ = train(batch, "network.*=0", frozen=True)
    assert moved(first().weights.network, state.weights.network) == set()
    assert moved(first().batch_stats, state.batch_stats) == set()
    assert moved(first().weights, state.weights) == {"prototypes", "bias"}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, run_cli):
    """(data, the workdir of a run of four steps)."""
    folder = tmp_path_factory.mktemp("pretrained")
    data, _ = demo_run.make_data(folder)
    done = run_cli("train", f"--workdir={folder / 'run'}", *demo_run.flags(data, steps=4))
    assert done.returncode == 0, done.stderr
    return data, folder / "run"


def last_line(done):
    assert done.returncode == 2, done.stdout
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_frozen_network_stays_over_a_resume(pretrained, tmp_path, run_cli):
    """A run of its head alone, extended: the same bits as the network that it started from."""
    data, source = pretrained
    frozen = {
        "finetune": source, "optim.multipliers": "network.*=0", "model.frozen_statistics": True,
    }  # fmt: skip
    workdir = f"--workdir={tmp_path / 'run'}"
    first_part = run_cli("train", workdir, *demo_run.flags(data, steps=4, **frozen))
    assert first_part.returncode == 0, first_part.stderr
    refused = last_line(run_cli("train", workdir, *demo_run.flags(data, steps=8, **frozen)))
    assert "config.steps=4, this one has 8; use another --workdir" in refused
    assert "--extend to resume it with this one" in refused
    assert f"--config.finetune={tmp_path / 'run'} --workdir=NEW" in refused
    more = demo_run.flags(data, steps=8, **frozen, **{"optim.lr": 0.02})
    extended = run_cli("train", workdir, "--extend", *more)
    assert extended.returncode == 0, extended.stderr
    assert "resumed" in extended.stdout
    ours, theirs = reading.read(tmp_path / "run")[0], reading.read(source)[0]
    assert int(ours.step) == 8
    assert moved(theirs.weights.network, ours.weights.network) == set()
    assert moved(theirs.batch_stats, ours.batch_stats) == set()
    assert "prototypes" in moved(theirs.weights, ours.weights)
    again = run_cli("train", workdir, *more)  # is the run's config now
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_what_cannot_be_extended(pretrained, tmp_path, run_cli):
    data, source = pretrained
    flags = demo_run.flags(data, steps=4, **{"model.width": 8})
    refused = last_line(run_cli("train", f"--workdir={source}", "--extend", *flags))
    assert "config.model.width=4, this one has 8" in refused
    assert "--extend" not in refused
    empty = run_cli("train", f"--workdir={tmp_path / 'none'}", "--extend", *demo_run.flags(data))
    assert "none holds no run with a checkpoint" in last_line(empty)
    nothing = demo_run.flags(data, **{"optim.multipliers": "netwrk.*=0"})
    refused = last_line(run_cli("train", f"--workdir={tmp_path / 'none'}", *nothing))
    assert "'netwrk.*' fits no parameter; there are network." in refused
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_run_that_died_before_its_first_checkpoint_owns_nothing(pretrained, tmp_path, run_cli):
    data, source = pretrained
    workdir = tmp_path / "run"
    workdir.mkdir()
    config = json.loads((source / "config.json").read_text())
    config["model"]["width"] = 16
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "layout.json").write_text('{"batch_norm_group": 4, "micro_batches": 4}')
    (workdir / "checkpoints").mkdir()
    (workdir / "metrics.jsonl").write_text('{"step": 2, "loss": 9.0}\n')
    done = run_cli("train", f"--workdir={workdir}", *demo_run.flags(data, steps=2))
    assert done.returncode == 0, done.stderr
    assert json.loads((workdir / "config.json").read_text())["model"]["width"] == 4
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2]
    assert lines[0]["loss"] != 9.0
    assert json.loads((workdir / "layout.json").read_text())["micro_batches"] == 2
