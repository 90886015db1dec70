"""Do harm to trainings at random moments, resume them, and compare what they end with.

    python scripts/chaos.py --runs=50 --json=chaos.json

Every run is the demo with a tiny network and a checkpoint every three steps. At least one fault of
chaos_faults.py comes to it: SIGKILL while a checkpoint is being written, in a step or at the start;
SIGHUP; SIGSTOP; a decoding process killed or stopped; a full disk; a shard cut short. Where it ends
by that, with the status that it should, the same command goes on, perhaps to the next fault, until
it is done. All must end with bitwise the parameters of an undisturbed run. Status 1 where one does
not. A full disk is a file system of its own, which only root may mount: others go without.
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
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from chaos_faults import DISK_BYTES, FAULTS, PATIENCE, STEPS, TooLateError, Training
from tqdm import tqdm

from uniface_jax.checkpoints import reading

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
OPTIMIZERS = {  # each with what it is trained beside: AdamW with sampled classes and a mean
    "sgd": {},
    "adamw": {
        "optim.name": "adamw", "optim.lr": 0.001, "optim.ema": 0.9, "head.sampling_rate": 0.4,
    },
}  # fmt: skip
FAULT_AGAIN = 0.25  # chance of each resumed attempt
MOST_ATTEMPTS = 20


class Result(NamedTuple):
    """Hold one run: its faults, how often a checkpoint was half-written then, how it ended."""

    faults: list[str]
    half_written: int
    end: str  # "same", "different", or why it could not be resumed


@dataclass(frozen=True)
class Chaos:
    """Hold what all runs share. data: the data set; kinds: of the faults that are drawn.

    flags: of every run, by key.
    """

    folder: Path
    data: Path
    kinds: list[str]
    seed: int
    expected: reading.TrainState
    flags: dict[str, object]


def start(workdir: Path, cache: Path, log: Path, **overrides: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "uniface_jax.train", f"--workdir={workdir}"]
    flags = [f"--config.{key}={value}" for key, value in (FLAGS | overrides).items()]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        # The same step is compiled a hundred times otherwise.
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with log.open("a") as file:
        return subprocess.Popen([*command, *flags], env=environment, stdout=file, stderr=file)


def mount(folder: Path) -> Path | None:
    """Mount a small file system at `folder`; None where that is not allowed."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        return None
    return None if done.returncode else folder


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        disk = mount(Path(folder) / "disk")
        return bool(disk) and not subprocess.run(["umount", str(disk)]).returncode


def run_once(chaos: Chaos, number: int) -> Result:
    """Do one run in a folder of its own, which is removed where all is well."""
    folder = chaos.folder / f"run{number:03d}"
    disk = mount(folder / "disk") if "disk" in chaos.kinds else None
    shutil.copytree(chaos.data, folder / "data")
    try:
        result = attempts(chaos, number, Training((disk or folder) / "run", folder / "data", disk))
        if result.end != "same" and disk:
            shutil.copytree(disk, folder / "left")
    finally:
        if disk:
            subprocess.run(["umount", "-l", str(disk)], check=False)
    if result.end == "same":
        shutil.rmtree(folder)
    return result


def attempts(chaos: Chaos, number: int, run: Training) -> Result:
    rng = random.Random(chaos.seed * 1000 + number)
    log = run.data.parent / "log.txt"
    weights = [FAULTS[kind][1] for kind in chaos.kinds]
    faults: list[str] = []
    half = 0
    for _ in range(MOST_ATTEMPTS):
        kind = ""
        if not faults or rng.random() < FAULT_AGAIN:
            kind = rng.choices(chaos.kinds, weights)[0]
        decoders = "processes" if kind == "decoder" else "threads"
        overrides = {"data.train": run.data, "data.prepare": "", "data.decoders": decoders}
        overrides |= chaos.flags
        run.process = start(run.workdir, chaos.folder / "cache", log, **overrides)
        allowed = {0}
        if kind:
            try:
                done, allowed = FAULTS[kind][0](run, rng)
                faults.append(f"{kind} {done}")
            except TooLateError:
                pass
        try:
            status = run.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            run.process.kill()
            return Result(faults, half, f"hung after {faults}: {log}")
        half += bool(kind) and status != 0 and run.half_written
        if status not in allowed:
            return Result(faults, half, f"status {status} after {faults}: {log}")
        if not status and faults:
            break
        if not status:
            shutil.rmtree(run.workdir)  # it was faster than the fault: once more
    else:
        return Result(faults, half, f"not done in {MOST_ATTEMPTS} attempts: {log}")
    state, _ = reading.read(run.workdir)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(chaos.expected), strict=True)
    same = all(np.array_equal(a, b) for a, b in pairs)
    return Result(faults, half, "same" if same else f"different after {faults}: {log}")


def prepared(
    folder: Path, data: str | None, kinds: list[str], seed: int, flags: dict[str, object]
) -> Chaos:
    """Train undisturbed for what all runs share; SystemExit where that fails."""
    workdir, log = folder / "undisturbed", folder / "undisturbed.log"
    overrides = ({"data.train": data} if data else {}) | flags
    if start(workdir, folder / "cache", log, **overrides).wait(PATIENCE):
        sys.exit(log.read_text())
    config = json.loads((workdir / "config.json").read_text())
    expected, _ = reading.read(workdir)
    return Chaos(folder, Path(config["data"]["train"]), kinds, seed, expected, flags)


def summarize(results: list[Result], seconds: float) -> dict[str, object]:
    kinds = collections.Counter(fault.split()[0] for result in results for fault in result.faults)
    ends = [result.end for result in results]
    return {
        "runs": len(results),
        "faults": sum(kinds.values()),
        "faults_by_kind": dict(kinds),
        "ended_with_a_half_written_checkpoint": sum(result.half_written for result in results),
        "bitwise_the_same": ends.count("same"),
        "different": [end for end in ends if end.startswith("different")],
        "not_resumed": [end for end in ends if not end.startswith(("same", "different"))],
        "seconds": round(seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(FAULTS), help="of faults; default: all")
    parser.add_argument("--folder", type=Path, help="where the runs go; default a temporary one")
    parser.add_argument(
        "--optimizer", choices=OPTIMIZERS, default="sgd",
        help="adamw: with sampled classes (r < 1) and a mean of the weights",
    )  # fmt: skip
    parser.add_argument("--data", help="a TFRecord folder instead of the demo's faces")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no run starts later")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in FAULTS]:
        parser.error(f"--kinds: no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    if "disk" in kinds and not can_mount():
        print("mounting is not allowed here: no full disks", file=sys.stderr)
        kinds.remove("disk")
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)

    began = time.monotonic()
    flags = OPTIMIZERS[options.optimizer]
    chaos = prepared(folder, options.data, kinds, options.seed, flags)

    def one(number: int) -> Result | None:
        return run_once(chaos, number) if time.monotonic() < began + options.seconds else None

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = pool.map(one, range(options.runs))
        bar = tqdm(outcomes, total=options.runs, unit="run", disable=None)
        results = [result for result in bar if result]
    summary = summarize(results, time.monotonic() - began)
    if options.json:
        runs = [result._asdict() for result in results]
        options.json.write_text(json.dumps(summary | {"results": runs}, indent=1) + "\n")
    for key, value in summary.items():
        print(f"{key:38} {value}")
    return 0 if summary["bitwise_the_same"] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
