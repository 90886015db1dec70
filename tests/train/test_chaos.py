"""Whole runs that are stopped, killed, starved of disk or damaged: nothing is lost."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT
from uniface_jax.checkpoints import reading

FAST = {"XLA_FLAGS": FAST_COMPILATION}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return demo_run.make_data(tmp_path_factory.mktemp("data"))


def flags(data, **overrides):
    settings = {"batch_size": 8, "log.every_steps": 1, **demo_run.ONE_BLOCK, **overrides}
    return demo_run.flags(data[0], **settings)


class Training:
    """A training in a process of its own, whose lines can be waited for."""

    def __init__(self, workdir, arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uniface_jax.train", f"--workdir={workdir}", *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **FAST},
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.lines.extend(self.process.stdout or ())

    @property
    def step(self) -> int:
        found = [match for line in self.lines if (match := re.match(r"step (\d+)/", line))]
        return int(found[-1][1]) if found else 0

    def wait_for(self, what, seconds=240):
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, "".join(self.lines)
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.002)

    def says(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def end(self) -> int:
        status = self.process.wait(240)
        self._reader.join(5)
        self.process.stdout.close()
        return status


def assert_same(workdir, expected):
    ours, theirs = reading.read(workdir)[0], reading.read(expected)[0]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_sigterm_saves_within_a_step_and_the_lock_keeps_others_out(data, tmp_path, run_cli):
    workdir = tmp_path / "run"
    endless = {"steps": 100000, "checkpoint.every_steps": 100000, "log.every_steps": 1}
    # With no module from outside, whose import would be a second line of the refusal.
    arguments = demo_run.flags(data[0], batch_size=8, **endless)
    training = Training(workdir, arguments)
    training.wait_for(lambda: training.step >= 2)
    second = run_cli("train", f"--workdir={workdir}", *arguments)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"in use by process {training.process.pid} on " in second.stderr
    training.process.send_signal(signal.SIGTERM)
    step = training.step
    assert training.end() == 75, training.lines
    saved = int(re.search(r"SIGTERM: saved step (\d+); the same", "".join(training.lines))[1])
    assert step <= saved <= step + 2  # one in progress, and one that was not printed yet
    assert reading.locate(workdir) == (workdir, saved)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["full", "full while saving", "read-only"])
def test_a_disk_that_takes_nothing_does_not_stop_training(fault, data, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        workdir = disk / "run"
        arguments = flags(data, steps=100000, **{"checkpoint.every_steps": 10})
        training = Training(workdir, arguments)
        folder = workdir / "checkpoints"
        training.wait_for(lambda: training.step > 12 and (folder / "10").exists())
        if fault == "full while saving":
            training.wait_for(lambda: any(folder.glob(f"*{reading.TEMPORARY}*")))
        if fault == "read-only":
            # An open log would keep the disk from being made read-only; a bind does not mind.
            subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True)
        else:
            with (disk / "filler").open("wb", buffering=0) as filler:
                try:
                    while filler.write(b"x" * 1024):
                        pass
                except OSError:
                    pass
        training.wait_for(lambda: training.says("was not saved"))
        failed_at = training.step
        good = reading.locate(workdir)[1]
        training.wait_for(lambda: training.step > failed_at + 12)  # goes on, and tries again
        assert sum("was not saved" in line for line in training.lines) > 1
        assert reading.locate(workdir)[1] == good
        reading.read(workdir)
        if fault == "read-only":
            subprocess.run(["mount", "-o", "remount,rw,bind", str(disk)], check=True)
        else:
            (disk / "filler").unlink()
        training.wait_for(lambda: reading.locate(workdir)[1] > failed_at)
        training.process.send_signal(signal.SIGTERM)
        assert training.end() == 75, training.lines[-20:]
        state, _ = reading.read(workdir)
        steps = [
            json.loads(line)["step"]
            for line in (workdir / "metrics.jsonl").read_text().splitlines()
        ]
        assert steps == list(range(1, steps[-1] + 1))
        assert int(state.step) >= steps[-1]
    finally:
        if training.process.poll() is None:
            training.process.kill()
            training.end()
        while subprocess.run(["umount", "-l", str(disk)], capture_output=True).returncode == 0:
            pass


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    data, tmp_path, run_cli
):
    arguments = flags(data)
    workdir = tmp_path / "run"
    assert run_cli("train", f"--workdir={workdir}", *arguments).returncode == 0
    shutil.copytree(workdir, tmp_path / "undisturbed")
    state = workdir / "checkpoints" / "12" / "state"
    largest = max((p for p in state.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)
    done = run_cli("train", f"--workdir={workdir}", *arguments)
    assert done.returncode == 0, done.stderr
    assert "checkpoints/12: not a readable checkpoint" in done.stderr
    assert "corrupt_checkpoints/12, the checkpoint before it is used" in done.stderr
    assert "at step 8" in done.stdout
    assert_same(workdir, tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"debug.nans": True}, ["stopped:", "nan"]),
        ({"debug.checks": True}, ["stopped: step", "device 0"]),
        (
            {"nonfinite.action": "skip", "nonfinite.limit": 3},
            ["skipped, 2 so far", "3 in a row (config.nonfinite.limit)", "nonfinite-0.jsonl"],
        ),
    ],
)
def test_a_run_that_diverges_says_so_in_its_way(extra, words, data, tmp_path, run_cli):
    arguments = flags(data, **{"optim.lr": 1e38, "steps": 40, **extra})
    done = run_cli("train", f"--workdir={tmp_path / 'run'}", *arguments)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.slow
def test_debug_flags_change_nothing(data, tmp_path, run_cli):
    for name, extra in (("plain", {}), ("checks", {"debug.checks": True, "debug.nans": True})):
        arguments = flags(data, steps=4, **extra)
        done = run_cli("train", f"--workdir={tmp_path / name}", *arguments)
        assert done.returncode == 0, done.stderr
    ours, theirs = (reading.read(tmp_path / name)[0] for name in ("checks", "plain"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


@pytest.mark.slow
def test_harmed_at_random_moments_all_end_the_same(data, tmp_path):
    report = tmp_path / "chaos.json"
    done = subprocess.run(
        [
            *(sys.executable, "scripts/chaos.py", "--runs=3", f"--data={data[0]}"),
            *(f"--folder={tmp_path / 'chaos'}", f"--json={report}"),
        ],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **FAST},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(report.read_text())
    assert summary["bitwise_the_same"] == 3
    assert summary["faults"] >= 3


def cut_a_shard(training, train):
    shard = next(train.glob("*.tfrecord*"))
    os.truncate(shard, shard.stat().st_size // 8)


def kill_decoders(training, train):
    deadline = time.monotonic() + 60
    while training.process.poll() is None and time.monotonic() < deadline:
        tasks = Path(f"/proc/{training.process.pid}/task").glob("*/children")
        for child in [int(number) for file in tasks for number in file.read_text().split()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def hang_up(training, train):
    training.process.send_signal(signal.SIGHUP)


@pytest.mark.slow
@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize("decoders", ["threads", "processes"])
@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (cut_a_shard, 2, r"error: \S+tfrecord\S+: record \d+: the file was cut short .*is saved"),
        (kill_decoders, 76, r"step \d+ is saved(.|\n)*stopped: a decoding process died 3 times"),
        (hang_up, 75, r"SIGHUP: finishing step \d+ (.|\n)*SIGHUP: saved step \d+; the same"),
    ],
)
def test_what_ends_a_run_leaves_it_saved(fault, status, words, decoders, data, tmp_path):
    if decoders == "threads" and fault is kill_decoders:
        pytest.skip("threads cannot be killed")
    train = shutil.copytree(data[0], tmp_path / "train")
    endless = {"steps": 100000, "checkpoint.every_steps": 100000, "data.decoders": decoders}
    training = Training(tmp_path / "run", flags((train,), **endless))
    training.wait_for(lambda: training.step >= 2)
    fault(training, train)
    assert training.end() == status, training.lines[-20:]
    output = "".join(training.lines)
    assert re.search(words, output), output[-2000:]
    assert "Traceback" not in output
    reached = training.step
    assert reached <= reading.locate(tmp_path / "run")[1] <= reached + 2
