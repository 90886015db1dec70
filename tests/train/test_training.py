"""Whole runs as a user starts them: resumed bitwise, refused early, stopped by a bad loss."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT
from uniface_jax.checkpoints import reading


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return demo_run.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory, run_cli):
    train, pairs = data
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    flags = demo_run.flags(train, **{"eval.data": pairs, "eval.every_steps": 6})
    done = run_cli("train", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def assert_same_parameters(workdir, expected):
    ours, theirs = reading.read(workdir)[0], reading.read(expected)[0]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert int(ours.step) == 12


def test_a_run_leaves_what_it_should(undisturbed):
    workdir, output = undisturbed
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["width"] == 4
    record = json.loads((workdir / "run.json").read_text())
    (kept,) = record["data"].pop("sets")
    assert record["data"] == {"images": 40, "classes": 5}
    assert (kept["images"], kept["classes"]) == (40, 5)
    assert record["parameters"]["prototypes"] == 5 * 8
    assert record["parameters"]["bias"] == 1
    assert record["versions"]["jax"] == jax.__version__
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert sorted(losses) == [2, 4, 6, 8, 10, 12]
    assert losses[12] < losses[2]
    evaluated = [line["step"] for line in lines if "eval/auc" in line]
    assert evaluated == [6, 12]
    for word in (
        "epoch",
        "loss",
        "lr",
        "threshold b/s",
        "(b-log(C-1))/s",
        "images/s",
        "input",
        "left",
    ):
        assert word in output
    assert list((workdir / "tensorboard").iterdir())


def test_only_the_last_and_the_best_are_kept(undisturbed):
    workdir, _ = undisturbed
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert steps[-2:] == [8, 12]  # config.checkpoint.keep = 2
    assert set(steps) <= {6, 8, 12}


def start(workdir, train):
    command = [sys.executable, "-m", "uniface_jax.train", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *demo_run.flags(train)],
        cwd=ROOT, env={**os.environ, "XLA_FLAGS": FAST_COMPILATION},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(what, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_interrupted_and_resumed_is_bitwise_the_same(number, data, undisturbed, tmp_path, run_cli):
    workdir = tmp_path / "run"
    process = start(workdir, data[0])
    # SIGKILL: once a checkpoint is there. SIGINT: as soon as a step was logged.
    if number == signal.SIGKILL:
        wait_for((workdir / "checkpoints" / "4").exists, process)
    else:
        metrics = workdir / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
    process.send_signal(number)
    output, error = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else -9), error
    if number == signal.SIGINT:
        assert "the same command resumes" in output
    _, step = reading.locate(workdir)
    assert 0 < step < 12
    again = run_cli("train", f"--workdir={workdir}", *demo_run.flags(data[0]))
    assert again.returncode == 0, again.stderr
    assert f"at step {step}" in again.stdout
    assert_same_parameters(workdir, undisturbed[0])
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8, 10, 12]


def one_line_error(done) -> str:
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.optim.lrr=0.1", ["lrr", "optim"]),
        ("--config.optim.lr=fast", ["lr", "fast"]),
        ("--config.batch_size=15", ["config.batch_size=15", "1 devices x 2 micro_batches"]),
        ("--config.loss.name=triplet", ["loss.name='triplet'", "uce"]),
        ("--config=configs/none.py", ["configs/none.py"]),
        ("--workdirr=x", ["workdirr"]),
    ],
)
def test_wrong_flags(flag, words, data, tmp_path, run_cli):
    flags = [f for f in demo_run.flags(data[0]) if f.split("=")[0] != flag.split("=")[0]]
    message = one_line_error(run_cli("train", f"--workdir={tmp_path / 'w'}", *flags, flag))
    for word in words:
        assert word in message
    assert not (tmp_path / "w").exists()


def test_workdir_of_another_config(data, undisturbed, run_cli):
    workdir, _ = undisturbed
    flags = demo_run.flags(data[0], **{"optim.lr": 0.7})
    message = one_line_error(run_cli("train", f"--workdir={workdir}", *flags))
    assert "config.optim.lr=0.1, this one has 0.7" in message


def test_cut_short_data_set(data, tmp_path, run_cli):
    broken = tmp_path / "train"
    broken.mkdir()
    for path in data[0].iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[:-100] if "tfrecord" in path.name else content)
    message = one_line_error(
        run_cli("train", f"--workdir={tmp_path / 'w'}", *demo_run.flags(broken))
    )
    assert "tfrecord" in message
    assert not (tmp_path / "w" / "checkpoints").exists()


def test_non_finite_loss_stops_and_keeps_what_is_good(data, tmp_path, run_cli):
    workdir = tmp_path / "run"
    flags = demo_run.flags(data[0], **{"optim.lr": 1e38, "steps": 40})
    done = run_cli("train", f"--workdir={workdir}", *flags)
    assert done.returncode == 1
    assert "stopped: step" in done.stderr
    assert "loss" in done.stderr
    if list((workdir / "checkpoints").glob("[0-9]*")):
        state, _ = reading.read(workdir)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.weights))


@pytest.mark.slow  # tests/train/test_fine_tuning.py has cheaper ones
def test_finetune_takes_the_weights(data, undisturbed, tmp_path, run_cli):
    source, _ = undisturbed
    workdir = tmp_path / "tuned"
    flags = demo_run.flags(
        data[0], finetune=source, steps=1, **{"optim.lr": 1e-9, "optim.warmup_epochs": 0.0}
    )
    done = run_cli("train", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    ours, theirs = reading.read(workdir)[0], reading.read(source)[0]
    assert int(ours.step) == 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours.weights, theirs.weights
    )
    flags = demo_run.flags(data[0], finetune=source, **{"model.width": 8})
    done = run_cli("train", f"--workdir={tmp_path / 'other'}", *flags)
    message = one_line_error(done)
    assert "finetune" in message
    assert "shape" in message


def test_import_is_light():
    code = "import sys, uniface_jax; print('jax' in sys.modules, 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
    code = "import sys, uniface_jax.train.loop; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]
