"""Several processes, as scripts/launch_local.py starts them: the same run as in one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.helpers import demo_run
from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.forked_commands import WARNING
from tests.helpers.paths import ROOT
from uniface_jax.checkpoints import reading

STEPS, GROUP = 20, 8  # fewer samples in batch norm's groups let rounding errors grow
PATIENT = "--heartbeat_seconds=300"  # where nobody dies: a machine that stands still is no death


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return demo_run.make_data(tmp_path_factory.mktemp("data"))


def flags(data, devices: int, micro_batches: int = 2, **overrides):
    settings = {
        "batch_size": devices * micro_batches * GROUP,
        "micro_batches": micro_batches,
        "steps": STEPS,
        "optim.lr": 0.001,
        "optim.schedule": "constant",  # in whose step no length of a run is compiled
        **demo_run.ONE_BLOCK,
        "checkpoint.every_steps": 10,
        **overrides,
    }
    return demo_run.flags(data[0], **settings)


def virtual_devices(count: int) -> dict[str, str]:
    """The environment of a process with so many; launch_local.py adds its own number to ours."""
    return {"XLA_FLAGS": f"{FAST_COMPILATION} --xla_force_host_platform_device_count={count}"}


def launch(count: int, devices: int, workdir, arguments) -> subprocess.Popen:
    script = [sys.executable, "scripts/launch_local.py", str(count), f"--devices={devices}", "--"]
    return subprocess.Popen(
        [*script, f"--workdir={workdir}", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(count: int, devices: int, workdir, arguments) -> str:
    process = launch(count, devices, workdir, [*arguments, PATIENT])
    try:
        output, _ = process.communicate(timeout=540)
    except subprocess.TimeoutExpired:
        for child in children(process).values():  # it would wait for these
            os.kill(child, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"not done in 540 s: {output}") from None
    assert process.returncode == 0, output
    return output


def run_alone(forked, devices: int, workdir, arguments) -> None:
    command, log = ["train", f"--workdir={workdir}", *arguments], workdir.with_suffix(".log")
    done = forked.run(command, ROOT, log, virtual_devices(devices), timeout=540)
    assert done.returncode == 0, done.output
    assert not WARNING.search(done.output), done.output


def assert_close(workdir, expected, step=STEPS):
    ours, theirs = reading.read(workdir)[0], reading.read(expected)[0]
    assert int(ours.step) == int(theirs.step) == step
    for (path, value), other in zip(
        jax.tree_util.tree_leaves_with_path(ours.weights),
        jax.tree.leaves(theirs.weights),
        strict=True,
    ):
        np.testing.assert_allclose(
            value, other, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path)
        )


def wait_for_step(process, step: int) -> str:
    """Return what was printed until a step beyond `step` was logged."""
    printed = ""
    for line in process.stdout:
        printed += line
        if (found := re.search(r"step (\d+)/", line)) and int(found[1]) > step:
            return printed
    raise AssertionError(printed)


def children(process) -> dict[int, int]:
    """Process number -> pid of the trainings that a launch_local.py started."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if parent == process.pid and (number := re.search(r"--process_id=(\d+)", command)):
            found[int(number[1])] = int(folder.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_train_as_one_does(processes, rate, data, tmp_path, forked):
    steps = STEPS // 2
    overrides = {"head.sampling_rate": rate, "checkpoint.every_steps": steps // 2}
    if (processes, rate) == (2, 1.0):  # the demo's network of four stages, once
        overrides |= {"imports": None, "model.name": None, "model.width": 4}
    arguments = flags(data, 2 * processes, 4 // processes, steps=steps, **overrides)
    run_alone(forked, 2 * processes, tmp_path / "one", arguments)
    output = run(processes, 2, tmp_path / "several", arguments)
    assert_close(tmp_path / "several", tmp_path / "one", steps)
    assert len(re.findall(rf"step {steps}/{steps}", output)) == 1  # one writer of logs
    lines = (tmp_path / "several" / "metrics.jsonl").read_text().splitlines()
    ours = {line["step"]: line for line in map(json.loads, lines)}
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        np.testing.assert_allclose(ours[line["step"]]["loss"], line["loss"], rtol=1e-3)


def restore_elsewhere(source, target, processes: int, devices: int):
    """The checkpoint of `source`, restored on so many devices in so many processes, and saved."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        **({"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"} if processes > 1 else {}),
        **virtual_devices(devices),
    }
    command = [sys.executable, "-m", "tests.helpers.restore_worker", str(source), str(target)]
    several = [
        [f"localhost:{port}", str(processes), str(index)] if processes > 1 else []
        for index in range(processes)
    ]
    workers = [
        subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment) for arguments in several
    ]
    assert [worker.wait(240) for worker in workers] == [0] * processes


@pytest.mark.slow
def test_saved_on_eight_devices_goes_on_elsewhere(data, tmp_path, forked):
    """8 devices -> 4, 1, 2 processes x 3; 5 classes are divided by none of these."""
    # 24 groups, which 1, 2, 3, 4, 6, 8 can share; all its runs are of one length.
    arguments = flags(data, 8, 3, **{"optim.schedule": "cosine"})
    run_alone(forked, 8, tmp_path / "eight", arguments)
    environment = {**os.environ, **virtual_devices(8)}
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "uniface_jax.train", f"--workdir={workdir}", *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_step(process, 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    saved, _ = reading.read(workdir)
    assert 2 < int(saved.step) < STEPS
    for processes, devices in ((1, 4), (1, 1), (2, 3)):
        target = tmp_path / f"{processes}x{devices}"
        restore_elsewhere(workdir, target, processes, devices)
        jax.tree.map(np.testing.assert_array_equal, reading.read(target)[0], saved)
    output = run(2, 3, workdir, arguments)  # the same command
    assert f"at step {int(saved.step)}" in output
    assert "6 x cpu, batch 192 (batch norm sees 8)" in output
    assert_close(workdir, tmp_path / "eight")


@pytest.mark.slow
def test_sigterm_to_one_saves_all(data, tmp_path):
    process = launch(2, 1, tmp_path / "run", [*flags(data, 2, steps=100000), PATIENT])
    wait_for_step(process, 2)
    os.kill(children(process)[1], signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    step = int(re.search(r"saved step (\d+); the same command resumes", output)[1])
    assert reading.locate(tmp_path / "run") == (tmp_path / "run", step)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory, forked):
    """(the flags of a run that saves every other step, its workdir at the end on two devices)."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "one"
    arguments = flags(data, 2, **{"checkpoint.every_steps": 2})
    run_alone(forked, 2, workdir, arguments)
    return arguments, workdir


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_killed_ends_the_other_and_the_pair_resumes(victim, undisturbed, tmp_path):
    arguments, one = undisturbed
    process = launch(2, 1, tmp_path / "run", arguments)
    wait_for_step(process, 4)
    pids = children(process)
    os.kill(pids[victim], signal.SIGKILL)
    killed = time.monotonic()
    while Path(f"/proc/{pids[1 - victim]}").exists() and time.monotonic() < killed + 60:
        time.sleep(0.1)
    lasted = time.monotonic() - killed
    output, _ = process.communicate(timeout=120)
    assert lasted < 60, output
    assert process.returncode != 0
    output = run(2, 1, tmp_path / "run", arguments)
    assert "resumed" in output
    assert_close(tmp_path / "run", one)


@pytest.mark.slow
def test_a_stopped_process_is_noticed_by_the_others_watchdog(data, tmp_path):
    arguments = flags(data, 2, steps=100000, watchdog_seconds=30.0)
    process = launch(2, 1, tmp_path / "run", [*arguments, PATIENT])
    wait_for_step(process, 4)
    pids = children(process)
    os.kill(pids[1], signal.SIGSTOP)
    output = ""
    for line in process.stdout:
        output += line
        if "nothing moved" in line:
            break
    os.kill(pids[1], signal.SIGCONT)
    process.communicate(timeout=120)
    assert re.search(
        r"\[0\] stopped: process 0 of 2: nothing moved for 30 s while (waiting for the devices to "
        r"finish|starting) step \d+",
        output,
    ), output
    assert "File" in (tmp_path / "run" / "hang-0.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_an_input_that_fails_in_one_process_is_saved_by_all(victim, data, tmp_path):
    """Each process has a copy of the set of its own, one of which is cut short meanwhile."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    arguments = flags((Path("train"),), 2, steps=100000, **{"checkpoint.every_steps": 100000})
    running = []
    for index in range(2):
        shutil.copytree(data[0], tmp_path / str(index) / "train")
        command = [
            sys.executable, "-m", "uniface_jax.train", f"--workdir={tmp_path / 'run'}", *arguments,
            f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={index}",
            PATIENT,
        ]  # fmt: skip
        environment = {
            **os.environ,
            **virtual_devices(1),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
            "PYTHONPATH": str(ROOT),
        }
        running.append(
            subprocess.Popen(
                command,
                cwd=tmp_path / str(index),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    wait_for_step(running[0], 2)
    shard = next((tmp_path / str(victim) / "train").glob("*.tfrecord*"))
    os.truncate(shard, shard.stat().st_size // 8)
    outputs = [process.communicate(timeout=240)[0] for process in running]
    statuses = [process.returncode for process in running]
    assert (statuses[victim], statuses[1 - victim]) == (2, 75), outputs
    said = outputs[victim]
    found = re.search(
        rf"error: process {victim} of 2: \S+: record \d+: the file was cut short while it was "
        r"read; step (\d+) is saved, and the same command resumes there once that is mended",
        said,
    )
    assert found, said
    assert reading.locate(tmp_path / "run") == (tmp_path / "run", int(found[1]))
    assert "Traceback" not in "".join(outputs)
