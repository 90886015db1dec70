"""Distilled runs: a teacher of any width, elastic, resumed bitwise, refused early."""

import shutil

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.demo_run import tiny_config, trained
from tests.helpers.device_steps import DeviceSteps
from tests.helpers.onnx_graphs import face_network
from tests.helpers.tiny_training import first_state, random_batch, small_images, tiny_network
from uniface_jax import losses
from uniface_jax.checkpoints import reading
from uniface_jax.config import base
from uniface_jax.config.overrides import apply_named
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.head.beside import TO_TEACHER as MAP
from uniface_jax.inference.network import load_network
from uniface_jax.train import step
from uniface_jax.train.loop import train_and_evaluate
from uniface_jax.train.settings import Distillation
from uniface_jax.train.teacher import FOLDER, TrainingImages, open_teacher, with_teacher
from uniface_jax.train.update import prepared

CLASSES, BATCH = 13, 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return demo_run.make_data(tmp_path_factory.mktemp("data"))


def test_teachers_are_refused_before_any_work(tmp_path):
    config = base()
    source = open_source("synthetic:3:6")
    config.distill.teacher = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config.distill.teacher=.*nowhere: .*no such model"):
        open_teacher(config, source)
    config.data.train, config.batch_size = "synthetic:3:64", 64
    with pytest.raises(UserError, match=r"config\.distill\.teacher="):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.distill.teacher = ""
    with pytest.raises(UserError, match=r"counts with distill\.teacher alone"):
        apply_named(config, ["distill.weight"])
    config.distill.weight = -1.0
    with pytest.raises(UserError, match=r"config.distill.weight=-1.0: must be > 0"):
        train_and_evaluate(config, tmp_path / "run")


def test_batches_get_the_teachers_features_of_their_records():
    features = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    (batch,) = with_teacher(iter([{"index": np.array([4, 1])}]), features)
    assert batch["teacher"].tolist() == [[8, 9], [2, 3]]


def test_another_image_stands_in_where_the_run_takes_another(faces):
    class Broken:
        name, num_classes = "broken", 1

        def __init__(self, source):
            self._source = source

        def __len__(self):
            return 3

        def __getitem__(self, index):
            item = self._source[index]
            return item._replace(image=b"none") if index != 1 else item

    images = Broken(open_source(faces))
    expected = TrainingImages(images, skip=False).pixels(1)
    with pytest.raises(UserError, match="broken: record 2"):
        TrainingImages(images, skip=False).pixels(2)
    for index in range(3):
        assert (TrainingImages(images, skip=True).pixels(index) == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("width", [None, 5])
def test_a_step_is_the_same_on_any_number_of_devices(width):
    with small_images():
        network = tiny_network(dropout=0.0)
        settings = step.Settings(
            CLASSES, micro_batches=4, block_size=5, distillation=Distillation(2.0, width)
        )
        start = prepared(first_state(network, "uce", CLASSES, seed=1), settings)
        rng = np.random.default_rng(0)
        batch = random_batch(rng, BATCH, CLASSES)
        batch["teacher"] = rng.normal(size=(BATCH, width or 8)).astype(np.float32)
        steps = DeviceSteps((network, losses.create("uce")), settings, start, 0.1)
        found = []
        for devices in (1, 4):
            state, (metrics,) = steps.run(devices, [batch])
            assert 0 < metrics["teacher_distance"] < 2
            found.append(state)
    assert (MAP in found[0].weights.network) == (width is not None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *found)
    if width is not None:
        moved = found[0].weights.network[MAP] - start.weights.network[MAP]
        assert np.abs(moved).max() > 0


@pytest.mark.slow
def test_a_distilled_run_resumes_bitwise_and_leaves_a_plain_network(data, tmp_path):
    train, pairs = data
    trained(tiny_config(train, **{"model.embedding_size": 6, "steps": 4}), tmp_path / "teacher")
    config = tiny_config(
        train,
        **{
            "distill.teacher": str(tmp_path / "teacher"), "distill.weight": 4.0,
            "eval.data": str(pairs), "optim.ema": 0.5,
        },
    )  # fmt: skip
    run = tmp_path / "run"
    values, _ = trained(config, run)
    assert 0 < values["teacher_distance"] < 2
    assert "ema/pairs/auc" in values or any(key.startswith("ema/") for key in values)
    whole = reading.read(run)[0]
    assert whole.weights.network[MAP].shape == (8, 6)
    (file,) = (run / FOLDER).glob("*.npy")
    features = np.load(file)
    assert features.shape == (40, 6)
    for later in ("8", "12"):
        shutil.rmtree(run / "checkpoints" / later)
    _, printed = trained(config, run)
    assert f"resumed {run} at step 4" in printed
    jax.tree.map(np.testing.assert_array_equal, reading.read(run)[0], whole)
    np.testing.assert_array_equal(np.load(file), features)
    for weights in ("raw", "ema"):
        _, variables, _ = load_network(run, weights)
        assert MAP not in variables["params"]
    # Another run begins with its network: a plain one without the map, a distilled one with a new.
    values, _ = trained(tiny_config(train, finetune=str(run), steps=4), tmp_path / "tuned")
    assert "teacher_distance" not in values
    again = tiny_config(train, finetune=str(tmp_path / "tuned"), steps=4,
                 **{"distill.teacher": str(tmp_path / "teacher")})  # fmt: skip
    assert "teacher_distance" in trained(again, tmp_path / "again")[0]


@pytest.mark.slow
def test_the_teacher_may_be_an_onnx_file_of_the_same_width(data, tmp_path):
    file = tmp_path / "teacher.onnx"
    face_network(file)
    config = tiny_config(
        data[0], steps=4, **{"distill.teacher": str(file), "distill.input_scale": "unit"}
    )
    values, _ = trained(config, tmp_path / "run")
    assert "teacher_distance" in values
    assert MAP not in reading.read(tmp_path / "run")[0].weights.network
