"""Runs with a teacher's class centers in the prototypes' place: elastic, resumed bitwise."""

import shutil

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.demo_run import tiny_config, trained
from tests.helpers.tiny_training import first_state, random_batch, small_images, tiny_network
from uniface_jax import losses
from uniface_jax.checkpoints import reading
from uniface_jax.config import base
from uniface_jax.config.overrides import apply_named
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.head.beside import TO_TEACHER
from uniface_jax.runtime import parallel
from uniface_jax.state import class_sharded
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


@pytest.mark.slow
@pytest.mark.parametrize(("width", "loss"), [(None, "arcface"), (5, "uce")])
def test_a_step_is_the_same_on_any_number_of_devices(width, loss):
    """Some of 16 samples of 13 classes meet in a class, in one micro-batch or in several."""
    with small_images():
        network = tiny_network(dropout=0.0)
        config = base()
        config.distill.teacher, config.distill.method = "t.onnx", "centers"
        frozen = make_recipe(config, 100, 5, 512).settings.multipliers
        settings = step.Settings(
            CLASSES, block_size=5, distillation=Distillation(1.0, width, True), multipliers=frozen
        )
        start = prepared(first_state(network, loss, CLASSES, seed=1), settings)
        rng = np.random.default_rng(0)
        batch = random_batch(rng, BATCH, CLASSES)
        batch["teacher"] = rng.normal(size=(BATCH, width or 8)).astype(np.float32)
        found = []
        for devices in (1, 4):  # batch norm sees four images in both
            shared = settings._replace(micro_batches=4 // devices)
            one = step.make_step(network, losses.create(loss), lambda _: 0.1, shared)
            runner = parallel.create_runner("pmap", class_sharded(start), jax.devices()[:devices])
            placed, metrics = runner.compile(one)(runner.place(start), runner.put(batch))
            assert 0 < metrics["teacher_distance"] < 2
            assert 0 < metrics["center_kept"] < 1
            found.append(runner.logical(placed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *found)
    before, after = start.weights.prototypes, found[0].weights.prototypes
    assert after.shape == (CLASSES, width or 8)
    seen = np.isin(np.arange(CLASSES), batch["label"])
    np.testing.assert_array_equal((before != after).any(1), seen)
    last = BATCH - 1  # which is the last of its class
    target = batch["teacher"][last] / np.linalg.norm(batch["teacher"][last])
    own = batch["label"][last]
    crossed = np.linalg.det(
        np.stack([a @ np.eye(len(target))[:, :3] for a in (before[own], after[own], target)])
    )  # center, moved center and teacher lie on one line
    assert abs(crossed) < 1e-4
    assert not found[0].momentum.prototypes.any()
    if width:
        moved = found[0].weights.network[TO_TEACHER] - start.weights.network[TO_TEACHER]
        assert np.abs(moved).max() > 0


@pytest.mark.slow
def test_a_run_resumes_bitwise(tmp_path):
    train, _ = demo_run.make_data(tmp_path / "data")
    trained(tiny_config(train, **{"model.embedding_size": 6, "steps": 4}), tmp_path / "teacher")
    config = tiny_config(
        train,
        **{
            "distill.teacher": str(tmp_path / "teacher"), "distill.method": "centers",
            "loss.name": "arcface", "head.sampling_rate": 0.9,
        },
    )  # fmt: skip
    run = tmp_path / "run"
    values, _ = trained(config, run)
    assert 0 < values["center_kept"] < 1
    whole = reading.read(run)[0]
    assert whole.weights.prototypes.shape == (demo_run.CLASSES, 6)
    for later in ("8", "12"):
        shutil.rmtree(run / "checkpoints" / later)
    _, printed = trained(config, run)
    assert f"resumed {run} at step 4" in printed
    jax.tree.map(np.testing.assert_array_equal, reading.read(run)[0], whole)
