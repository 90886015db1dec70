"""A run inspected as a user does: figures, JSON, and what is wrong with the input in one line."""

import json

import matplotlib.image
import numpy as np
import pytest

from tests.helpers.demo_run import CLASSES, EACH, flags, make_data
from uniface_jax.checkpoints import reading
from uniface_jax.data.conversion.unpacking import write_folders
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError
from uniface_jax.inspection.workdir import inspect, read_history, training_images

FIGURES = ("curves", "similarities", "dominance", "history", "hyperparameters")


@pytest.fixture(scope="module")
def run(tmp_path_factory, run_cli):
    folder = tmp_path_factory.mktemp("inspection")
    train, _ = make_data(folder)
    done = run_cli("train", f"--workdir={folder / 'run'}", *flags(train, steps=8))
    assert done.returncode == 0, done.stderr
    return folder / "run", train


def test_command_line(run, run_cli, tmp_path):
    workdir, _ = run
    done = run_cli("inspection", f"--workdir={workdir}", f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    for name in FIGURES:
        pixels = matplotlib.image.imread(tmp_path / f"{name}.png")
        assert pixels.std() > 0.05
    report = json.loads((tmp_path / "inspection.json").read_text())
    state, _ = reading.read(workdir)
    at = float(state.weights.bias) / 64
    assert report["step"] == 8
    assert report["loss"] == {"name": "uce"}
    assert report["thresholds"]["b/s"] == pytest.approx(at, abs=1e-6)
    assert report["thresholds"]["(b - log(C-1))/s"] == pytest.approx(
        at - np.log(CLASSES - 1) / 64, abs=1e-6
    )
    found = report["similarities"]
    assert (found["samples"], found["classes"]) == (CLASSES * EACH, CLASSES)
    assert found["at_threshold"]["threshold"] == report["thresholds"]["b/s"]
    assert -1 < found["min_positive"] < 1
    assert report["history"]["step"] == [2, 4, 6, 8]
    assert set(report["hyperparameters"]) == {
        "defaults", "margin", "negative_weight", "sampling_rate", "scale",
    }  # fmt: skip
    verdict = "separates" if found["one_threshold"] else "does not separate"
    assert f"one threshold {verdict} them" in done.stdout


def test_same_numbers_in_process_and_from_a_sample(run):
    workdir, train = run
    whole = inspect(workdir, data=str(train))
    assert whole.recipe.num_classes == CLASSES
    some = inspect(workdir / "checkpoints" / "8", images=10, batch_size=4)
    assert len(some.found.positive) == 10
    assert np.isin(some.found.positive.round(4), whole.found.positive.round(4)).all()


def test_training_images(run):
    _, train = run
    images, labels = training_images(train, 1000, seed=0)
    assert len(images) == len(labels) == CLASSES * EACH
    np.testing.assert_array_equal(np.bincount(labels), np.full(CLASSES, EACH))
    few, _ = training_images(train, 7, seed=1)
    assert len(set(few)) == 7
    assert set(few) < set(images)


def test_any_source_can_be_inspected(run, tmp_path):
    _, train = run
    images, _ = training_images(train, 1000, seed=0)
    write_folders(open_source(train), tmp_path / "folders")
    unpacked, labels = training_images(str(tmp_path / "folders"), 1000, seed=0)
    assert set(unpacked) == set(images)
    np.testing.assert_array_equal(np.bincount(labels), np.full(CLASSES, EACH))


def test_other_data(run, tmp_path):
    workdir, train = run
    features = json.loads((train / "features.json").read_text())
    text = json.dumps(features).replace(f'"numClasses": "{CLASSES}"', '"numClasses": "4"')
    assert text != json.dumps(features)
    for file in train.iterdir():
        if file.name != "label.labels.txt":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(UserError, match=f"4 classes, but .*run was trained on {CLASSES}"):
        inspect(workdir, data=str(tmp_path))


def test_history(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(UserError, match=r"metrics.jsonl: No such file"):
        read_history(path)
    path.write_text('{"step": 2, "loss": 3.5}\n{"step": 2, "eval/auc": 0.5}\n'
                    '{"step": 4, "loss": 2.5, "threshold": 0.25}\n')  # fmt: skip
    history = read_history(path)
    assert history["step"].tolist() == [2, 4]
    assert history["loss"].tolist() == [3.5, 2.5]
    assert np.isnan(history["threshold"][0])
    assert history["threshold"][1] == 0.25
    path.write_text('{"step": 2, "loss": 3.5}\n{"step": 4, "lo')
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2 is not JSON"):
        read_history(path)
    path.write_text('{"loss": null, "step": 2}\n')
    assert np.isnan(read_history(path)["loss"]).tolist() == [True]
    for line in (
        '{"step": 1e400, "loss": 1}', '{"step": 10000000000000000000, "loss": 1}', '["loss"]',
        '{"step": "2", "loss": 1}', '{"step": 2, "loss": [1]}', '{"step": null, "loss": 1}',
        '"loss"', "7", '{"step": 2, "loss": "x"}',
    ):  # fmt: skip
        path.write_text(line)
        with pytest.raises(UserError, match=r"metrics.jsonl: line 1 is not JSON of a step's numb"):
            read_history(path)
    path.write_bytes(b'{"step": 2, "loss": 1, "x\xff": 3}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl: line 1 is not JSON"):
        read_history(path)
    path.write_text('{"step": 2, "eval/auc": 0.5}\n')
    with pytest.raises(UserError, match="no step of training"):
        read_history(path)


def test_no_workdir_ends_in_one_line(run_cli, tmp_path):
    done = run_cli("inspection", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has no finished checkpoint" in done.stderr
