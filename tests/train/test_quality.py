"""Runs with a quality head: elastic, resumed bitwise, its scores in tables and protocols."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.demo_run import tiny_config, trained
from tests.helpers.device_steps import DeviceSteps
from tests.helpers.tiny_training import first_state, random_batch, small_images, tiny_network
from uniface_jax import losses
from uniface_jax.checkpoints import reading
from uniface_jax.config import base
from uniface_jax.config.overrides import apply_named
from uniface_jax.errors import UserError
from uniface_jax.head.beside import QUALITY
from uniface_jax.head.quality import Regression
from uniface_jax.inference.feature_reading import open_features
from uniface_jax.inference.load import load_mean, load_model
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded
from uniface_jax.train import step
from uniface_jax.train.from_config import initial_state, make_recipe
from uniface_jax.train.loop import train_and_evaluate
from uniface_jax.train.update import prepared

CLASSES, BATCH = 13, 16


def test_keys_count_with_a_weight_alone():
    config = base()
    with pytest.raises(UserError, match=r"quality.beta=0.5: counts with quality.weight alone"):
        apply_named(config, ["quality.beta"])
    config.quality.weight = -1.0
    with pytest.raises(UserError, match=r"config.quality.weight=-1.0: must be >= 0"):
        train_and_evaluate(config, "never_made")


@pytest.mark.slow
def test_a_step_is_the_same_on_any_number_of_devices():
    with small_images():
        network = tiny_network(dropout=0.0)
        settings = step.Settings(CLASSES, micro_batches=4, block_size=5, quality=Regression(10.0))
        start = prepared(first_state(network, "arcface", CLASSES, seed=1), settings)
        batch = random_batch(np.random.default_rng(0), BATCH, CLASSES)
        steps = DeviceSteps((network, losses.create("arcface")), settings, start, 0.1)
        found = []
        for devices in (1, 4):  # batch norm sees four images in both
            state, (metrics,) = steps.run(devices, [batch])
            assert metrics["quality_loss"] > 0
            assert abs(metrics["certainty_ratio"]) < 2
            found.append(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *found)
    before, after = (state.weights.network[QUALITY] for state in (start, found[0]))
    assert all(np.any(before[name] != after[name]) for name in ("kernel", "bias"))


def configured(train, **overrides):
    return tiny_config(train, **{"optim.ema": 0.5, "quality.weight": 10.0, **overrides})


def ran(done):
    assert not done.returncode, done.stderr


@pytest.mark.slow
def test_a_run_resumes_bitwise_and_its_scores_come_out(run_cli, tmp_path):
    train, pairs = demo_run.make_data(tmp_path / "data")
    run = tmp_path / "run"
    values, _ = trained(configured(train), run)
    assert values["quality_loss"] > 0
    whole = reading.read(run)[0]
    for later in ("8", "12"):
        shutil.rmtree(run / "checkpoints" / later)
    _, printed = trained(configured(train), run)
    assert f"resumed {run} at step 4" in printed
    jax.tree.map(np.testing.assert_array_equal, reading.read(run)[0], whole)
    both, one, mean = (
        model.quality for model in (load_model(run), load_model(run, mirror=False), load_mean(run))
    )
    head = whole.weights.network[QUALITY]
    features = np.float32([[3] * len(head["kernel"])])
    np.testing.assert_allclose(one(features), 3 * head["kernel"].sum() + head["bias"], rtol=1e-5)
    np.testing.assert_allclose(both(2 * features), one(features), rtol=1e-12)
    assert mean.digest != both.digest
    # By embed, in two of its forms.
    for ending in ("csv", "npy"):
        table = tmp_path / f"features.{ending}"
        ran(run_cli("embed", tmp_path / "data/people", f"--model={run}", f"--output={table}"))
        names = table.with_suffix(".names.csv") if ending == "npy" else table
        with names.open(newline="") as file:
            written = [float(row["quality"]) for row in csv.DictReader(file)]
        (rows,) = open_features(table).blocks()
        np.testing.assert_allclose(written, both(rows.features), rtol=1e-5)
        np.testing.assert_array_equal(rows.qualities, np.float32(written))
    assert len(set(written)) > 1
    # By evaluate, which has the same of the pairs' images.
    asked = ("--protocol=quality", f"--data={pairs},score=learned")
    evaluated = tmp_path / "evaluated"
    ran(run_cli("evaluate", f"--model={run}", *asked, f"--output={evaluated}"))
    metrics = json.loads((evaluated / "metrics.json").read_text())
    found = metrics["protocols"]["quality"]["sets"]["pairs"]
    assert found["score"] == "learned"
    assert found["error_versus_reject"][0]["recomputed"]["fnmr"][0] is not None
    # Another run begins with the head, or without one.
    for weight in (1.0, 0.0):
        config = configured(train, finetune=str(run), **{"quality.weight": weight})
        recipe = make_recipe(config, 40, demo_run.CLASSES)
        runner = parallel.create_runner("pmap", class_sharded(recipe.shapes), jax.devices()[:1])
        begun = initial_state(recipe, runner).weights.network
        assert (QUALITY in begun) == bool(weight)
        if weight:
            jax.tree.map(np.testing.assert_array_equal, begun[QUALITY], head)
