"""Runs with a teacher's class centers in the prototypes' place: elastic, resumed bitwise."""

import shutil

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.demo_run import tiny_config, trained
from tests.helpers.device_steps import DeviceSteps
from tests.helpers.onnx_graphs import face_network
from tests.helpers.tiny_training import (
    assert_close,
    first_state,
    random_batch,
    small_images,
    tiny_network,
)
from uniface_jax import losses
from uniface_jax.checkpoints import reading
from uniface_jax.config import base
from uniface_jax.config.overrides import apply_named
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.head.beside import TO_TEACHER
from uniface_jax.train import step
from uniface_jax.train.from_config import make_recipe
from uniface_jax.train.settings import Distillation
from uniface_jax.train.teacher import open_teacher
from uniface_jax.train.update import prepared

CLASSES, BATCH = 13, 16


def test_keys_that_do_not_go_together():
    config = base()
    config.distill.teacher, config.distill.method = "t.onnx", "centers"
    with pytest.raises(UserError, match=r"distill.weight=128.0: counts with distill.method=cosine"):
        apply_named(config, ["distill.weight"])
    config.distill.teacher = ""
    with pytest.raises(UserError, match=r"method=centers: the centers are a teacher's; name it"):
        open_teacher(config, open_source("synthetic:3:6"))
    config.distill.teacher, config.head.subcentres = "t.onnx", 3
    with pytest.raises(UserError, match=r"head.subcentres=3: a class has one center"):
        make_recipe(config, 100, 5, 512)


def center_steps(width, loss):
    """Return steps with class centers, of a teacher with so many features, None for as many."""
    config = base()
    config.distill.teacher, config.distill.method = "t.onnx", "centers"
    settings = step.Settings(
        CLASSES, micro_batches=4, block_size=5, distillation=Distillation(1.0, width, True),
        multipliers=make_recipe(config, 100, 5, 512).settings.multipliers,
    )  # fmt: skip
    network = tiny_network(dropout=0.0)
    start = prepared(first_state(network, loss, CLASSES, seed=1), settings)
    return DeviceSteps((network, losses.create(loss)), settings, start, 0.1)


def taught_batch(rng, width):
    taught = {"teacher": rng.normal(size=(BATCH, width or 8)).astype(np.float32)}
    return random_batch(rng, BATCH, CLASSES) | taught


@pytest.mark.slow
@pytest.mark.parametrize(("width", "loss"), [(None, "arcface"), (5, "uce")])
def test_steps_are_the_same_on_any_number_of_devices_and_restored_on_others(width, loss, tmp_path):
    """Some of 16 samples of 13 classes meet in a class, in one micro-batch or in several."""
    rng = np.random.default_rng(0)
    batch, second = taught_batch(rng, width), taught_batch(rng, width)
    with small_images():
        steps, found = center_steps(width, loss), []
        for devices in (1, 4):  # 13 classes divide by neither of 2 and 4
            state, (metrics,) = steps.run(devices, [batch])
            assert 0 < metrics["teacher_distance"] < 2
            assert 0 < metrics["center_kept"] < 1
            found.append(state)
        whole, _ = steps.run(4, [second], found[1])
        restored = steps.restored(found[1], (4, 4), tmp_path / "same")
        jax.tree.map(np.testing.assert_array_equal, restored, found[1])
        jax.tree.map(np.testing.assert_array_equal, steps.run(4, [second], restored)[0], whole)
        # On one device and back, a step on each.
        restored = steps.restored(found[1], (4, 1), tmp_path / "one")
        jax.tree.map(np.testing.assert_array_equal, restored, found[1])
        on_one, _ = steps.run(1, [second], restored)
        again = steps.restored(on_one, (1, 4), tmp_path / "back")
        jax.tree.map(np.testing.assert_array_equal, again, on_one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *found)
    assert_close(on_one, whole, 2e-5)
    check_moved_centers(steps.start, found[0], batch)
    if width:
        moved = found[0].weights.network[TO_TEACHER] - steps.start.weights.network[TO_TEACHER]
        assert np.abs(moved).max() > 0


def check_moved_centers(start, state, batch):
    """Those of the batch's classes, toward the teacher of the last sample, and without momentum."""
    before, after = start.weights.prototypes, state.weights.prototypes
    assert after.shape == (CLASSES, batch["teacher"].shape[1])
    seen = np.isin(np.arange(CLASSES), batch["label"])
    np.testing.assert_array_equal((before != after).any(1), seen)
    last = BATCH - 1  # which is the last of its class
    target = batch["teacher"][last] / np.linalg.norm(batch["teacher"][last])
    own = batch["label"][last]
    crossed = np.linalg.det(
        np.stack([a @ np.eye(len(target))[:, :3] for a in (before[own], after[own], target)])
    )  # center, moved center and teacher lie on one line
    assert abs(crossed) < 1e-4
    assert not state.momentum.prototypes.any()


@pytest.mark.slow
def test_a_run_resumes_bitwise(tmp_path):
    """With a teacher of another length, run once, and sampled classes; its map is resumed too."""
    train, _ = demo_run.make_data(tmp_path / "data")
    teacher = face_network(tmp_path / "teacher.onnx", dimension=6)
    config = tiny_config(
        train,
        **{
            "distill.teacher": str(teacher), "distill.method": "centers",
            "distill.input_scale": "unit", "loss.name": "arcface", "head.sampling_rate": 0.9,
            "steps": 3, "checkpoint.every_steps": 1,
        },
    )  # fmt: skip
    run = tmp_path / "run"
    values, _ = trained(config, run)
    assert 0 < values["center_kept"] < 1
    whole = reading.read(run)[0]
    assert whole.weights.prototypes.shape == (demo_run.CLASSES, 6)
    for later in ("2", "3"):
        shutil.rmtree(run / "checkpoints" / later)
    saved = reading.read(run)[0].weights
    assert not np.array_equal(saved.prototypes, whole.weights.prototypes)
    assert not np.array_equal(saved.network[TO_TEACHER], whole.weights.network[TO_TEACHER])
    _, printed = trained(config, run)
    assert f"resumed {run} at step 1" in printed
    jax.tree.map(np.testing.assert_array_equal, reading.read(run)[0], whole)
