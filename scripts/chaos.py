"""Kills trainings by SIGKILL at random moments, resumes them, and compares what they end with.

    python scripts/chaos.py --runs=50 --json=chaos.json

Every run is the demo with a tiny network and a checkpoint every three steps. It is killed at least
once: while a checkpoint is being written, at some moment of a random step, or while it starts; then
the same command goes on, perhaps to be killed again, until it is done. All must end with bitwise
the parameters of an undisturbed run. Status 1 where one does not.
"""

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from uniface_jax.checkpoints import reading

STEPS = 24
FLAGS = {
    "model.width": 4,
    "model.embedding_size": 8,
    "batch_size": 8,
    "steps": STEPS,
    "eval.data": "",
    "checkpoint.every_steps": 3,
    "checkpoint.keep": 2,
    "log.every_steps": 1,
    "data.threads": 1,
}
KINDS = {"write": 5, "step": 4, "start": 1}  # how often each is drawn
KILL_AGAIN = 0.25  # chance of each resumed attempt
MOST_ATTEMPTS = 20
PATIENCE = 600  # seconds for one attempt


class Result(NamedTuple):
    """One run: how it was killed, how often a checkpoint was half-written then, how it ended."""

    kills: list[str]
    half_written: int
    end: str  # "same", "different", or why it could not be resumed


def start(workdir: Path, arguments: list[str], cache: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "uniface_jax.train", f"--workdir={workdir}"]
    flags = [f"--config.{key}={value}" for key, value in FLAGS.items()]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        # The same step is compiled a hundred times otherwise.
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen(
            [*command, *flags, *arguments], env=environment, stdout=log, stderr=log
        )


def half_written(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob(f"*{reading.TEMPORARY}*"))


def logged(workdir: Path) -> int:
    """Return the last step in metrics.jsonl, 0 without."""
    try:
        return int(json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"])
    except (OSError, ValueError, IndexError):
        return 0


def wait_for(kind: str, process: subprocess.Popen, workdir: Path, rng: random.Random) -> bool:
    """Returns at a random moment of this kind: True, or False where the run ended before it."""
    now, began = logged(workdir), time.monotonic()
    if kind == "start":
        pause = rng.uniform(0, 8)
        while time.monotonic() < began + pause and process.poll() is None:
            time.sleep(0.01)
        return process.poll() is None
    target = rng.randint(now + 1, STEPS - 1) if now < STEPS - 1 else STEPS
    while process.poll() is None and time.monotonic() < began + PATIENCE:
        if logged(workdir) >= target and (kind != "write" or half_written(workdir)):
            time.sleep(rng.uniform(0, 0.02 if kind == "write" else 0.3))
            return process.poll() is None
        time.sleep(0.001)
    return False


def run_once(number: int, seed: int, folder: Path, arguments: list[str], expected) -> Result:
    rng = random.Random(seed * 1000 + number)
    workdir = folder / f"run{number:03d}"
    kills: list[str] = []
    half = 0
    for _ in range(MOST_ATTEMPTS):
        process = start(workdir, arguments, folder / "cache")
        if not kills or rng.random() < KILL_AGAIN:
            kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
            if wait_for(kind, process, workdir, rng):
                process.kill()
                process.wait()
                half += half_written(workdir)
                kills.append(f"{kind} at step {logged(workdir)}")
                continue
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return Result(kills, half, "hung")
        if status:
            return Result(kills, half, f"status {status}: {workdir}.log")
        if kills:
            break
        shutil.rmtree(workdir)  # it was faster than the killer: once more
    else:
        return Result(kills, half, f"not done in {MOST_ATTEMPTS} attempts")
    state, _ = reading.read(workdir)
    same = all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)
    )
    if same:
        shutil.rmtree(workdir)
    return Result(kills, half, "same" if same else f"different: {workdir}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs go; default a temporary one")
    parser.add_argument("--data", help="a TFRecord folder instead of the demo's faces")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no run starts later")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [f"--config.data.train={options.data}"] if options.data else []

    began = time.monotonic()
    if start(folder / "undisturbed", arguments, folder / "cache").wait(PATIENCE):
        print((folder / "undisturbed.log").read_text(), file=sys.stderr)
        return 1
    expected, _ = reading.read(folder / "undisturbed")

    def one(number: int) -> Result | None:
        if time.monotonic() > began + options.seconds:
            return None
        return run_once(number, options.seed, folder, arguments, expected)

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = pool.map(one, range(options.runs))
        bar = tqdm(outcomes, total=options.runs, unit="run", disable=None)
        results = [result for result in bar if result]
    kinds = collections.Counter(kill.split()[0] for result in results for kill in result.kills)
    summary = {
        "runs": len(results),
        "kills": sum(kinds.values()),
        "kills_by_kind": dict(kinds),
        "kills_with_a_half_written_checkpoint": sum(result.half_written for result in results),
        "bitwise_the_same": sum(result.end == "same" for result in results),
        "different": sum(result.end.startswith("different") for result in results),
        "not_resumed": [
            result.end for result in results if not result.end.startswith(("same", "different"))
        ],
        "seconds": round(time.monotonic() - began),
    }
    for key, value in summary.items():
        print(f"{key:38} {value}")
    if options.json:
        runs = [result._asdict() for result in results]
        options.json.write_text(json.dumps(summary | {"results": runs}, indent=1) + "\n")
    return 0 if summary["bitwise_the_same"] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
