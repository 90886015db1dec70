"""Faults that scripts/chaos.py brings on a training, at a random moment of it.

Each fault is a function of the run and a generator of random numbers. It does its harm, undoes what
an operator would undo, and returns what it did with the statuses that the training may end with.
"""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from uniface_jax.checkpoints import reading
from uniface_jax.errors import EXIT_BAD_INPUT, EXIT_PREEMPTED

STEPS = 24
PATIENCE = 900  # seconds for one attempt
KILLED = -signal.SIGKILL
DISK_BYTES = 32 * 2**20  # of a run's own file system


@dataclass
class Training:
    """Hold one run: a process at a time, its workdir, and the data set that is its own.

    disk: the mounted file system of the workdir, None where mounting is not allowed.
    """

    workdir: Path
    data: Path
    disk: Path | None
    process: subprocess.Popen = field(init=False)

    @property
    def running(self) -> bool:
        """Return True until the process has ended."""
        return self.process.poll() is None

    @property
    def half_written(self) -> bool:
        """Return True while a checkpoint is being written, or where one was left."""
        return any((self.workdir / "checkpoints").glob(f"*{reading.TEMPORARY}*"))

    @property
    def logged(self) -> int:
        """Return the last step in metrics.jsonl, 0 without."""
        try:
            lines = (self.workdir / "metrics.jsonl").read_text().splitlines()
            return int(json.loads(lines[-1])["step"])
        except (OSError, ValueError, IndexError, KeyError):
            return 0


class TooLateError(Exception):
    """Training ended before the moment came."""


Fault = Callable[[Training, random.Random], tuple[str, set[int]]]


def wait_for_step(run: Training, rng: random.Random, writing: bool = False) -> str:
    """Wait for a random moment of a random step, or of a checkpoint's writing; say which it is."""
    now, began = run.logged, time.monotonic()
    target = rng.randint(now + 1, STEPS - 1) if now < STEPS - 1 else STEPS
    while run.running and time.monotonic() < began + PATIENCE:
        if run.logged >= target and (not writing or run.half_written):
            time.sleep(rng.uniform(0, 0.02 if writing else 0.3))
            if run.running:
                return f"at step {run.logged}"
        time.sleep(0.001)
    raise TooLateError


def kill(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Send SIGKILL in a step."""
    at = wait_for_step(run, rng)
    run.process.kill()
    return at, {KILLED}


def kill_while_writing(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Send SIGKILL while a checkpoint is written."""
    at = wait_for_step(run, rng, writing=True)
    run.process.kill()
    return at, {KILLED}


def kill_at_start(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Send SIGKILL within eight seconds."""
    pause, began = rng.uniform(0, 8), time.monotonic()
    while run.running and time.monotonic() < began + pause:
        time.sleep(0.01)
    if not run.running:
        raise TooLateError
    run.process.kill()
    return f"after {pause:.1f} s", {KILLED}


def hang_up(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Send SIGHUP, as when a terminal is closed."""
    at = wait_for_step(run, rng)
    run.process.send_signal(signal.SIGHUP)
    return at, {EXIT_PREEMPTED, 0}  # 0: the last step was being finished


def stop_and_continue(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Send SIGSTOP, and after a while SIGCONT, or SIGKILL."""
    at, pause = wait_for_step(run, rng), rng.uniform(0.1, 4)
    run.process.send_signal(signal.SIGSTOP)
    time.sleep(pause)
    if rng.random() < 0.3:
        run.process.kill()
        return f"{at}, for {pause:.1f} s, then killed", {KILLED}
    run.process.send_signal(signal.SIGCONT)
    return f"{at}, for {pause:.1f} s", {0}


def kill_decoder(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Send SIGKILL or SIGSTOP to the decoding processes."""
    at = wait_for_step(run, rng)
    children = Path(f"/proc/{run.process.pid}/task")
    with contextlib.suppress(OSError):
        found = [pid for file in children.glob("*/children") for pid in file.read_text().split()]
        number = rng.choice([signal.SIGKILL, signal.SIGSTOP])
        for pid in found:
            subprocess.run(["kill", f"-{int(number)}", pid], check=False, capture_output=True)
        if found:
            return f"{at}: {len(found)} by {signal.Signals(number).name}", {0}
    raise TooLateError


def fill_disk(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Fill the disk for a while."""
    assert run.disk
    at, pause = wait_for_step(run, rng), rng.uniform(0.2, 3)
    filler = run.disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    time.sleep(pause)
    filler.unlink()
    return f"{at}, for {pause:.1f} s", {0}


def truncate_shard(run: Training, rng: random.Random) -> tuple[str, set[int]]:
    """Cut a shard short, and restore it when the training has ended."""
    at = wait_for_step(run, rng)
    shard = max(run.data.glob("*.tfrecord-*"), key=lambda file: file.stat().st_size)
    whole = run.data / "whole"
    shutil.copy2(shard, whole)
    with shard.open("r+b") as file:
        file.truncate(rng.randrange(shard.stat().st_size // 4))
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(PATIENCE)
    whole.replace(shard)
    return at, {EXIT_BAD_INPUT, 0}  # 0: it had read all that it needs


# How often each is drawn.
FAULTS: dict[str, tuple[Fault, int]] = {
    "write": (kill_while_writing, 4),
    "step": (kill, 3),
    "start": (kill_at_start, 1),
    "SIGHUP": (hang_up, 3),
    "SIGSTOP": (stop_and_continue, 3),
    "decoder": (kill_decoder, 3),
    "disk": (fill_disk, 3),
    "shard": (truncate_shard, 3),
}
