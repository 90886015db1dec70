"""Compare saving and restoring a checkpoint with digests and without, taking turns.

    python scripts/bench_checkpoint.py --json=checkpoint.json

The state is that of a head: prototypes and their momentum, --gigabytes together. Saving lasts until
the checkpoint has its name, with all that goes on in the background; restoring is onto the devices,
as a resumed run does it. Before each turn the disk has taken what was written before. One process
does both, in turns: of two, one may keep memory for good that the other asks for at every turn.
"""

import argparse
import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import turns

from uniface_jax.checkpoints import digests, reading, saving
from uniface_jax.runtime.parallel import create_runner
from uniface_jax.state import TrainState, Weights, class_sharded

FEATURES = 512
WITH, WITHOUT = "with", "without"  # digests
JOBS = ("save", "restore")


class WithoutDigests(saving.Checkpoints):
    """Save as format 1 did."""

    def _items(self, state: TrainState, run: Any) -> ocp.args.Composite:
        items = {
            reading.STATE: ocp.args.PyTreeSave(reading.to_tree(state)),
            reading.RUN: ocp.args.JsonSave(dict(run)),
        }
        return ocp.args.Composite(**items)


def create_state(gigabytes: float) -> TrainState:
    """Return a state of random numbers, which do not compress, as trained ones do not."""
    rows = int(gigabytes * 2**30 / (2 * 4 * FEATURES))
    rng = np.random.default_rng(0)

    def weights() -> Weights:
        kernel = rng.standard_normal((3, 3, 8, 8), np.float32)
        prototypes = rng.standard_normal((rows, FEATURES), np.float32)
        return Weights({"kernel": kernel}, prototypes, np.float32(0))

    return TrainState(np.int32(1), weights(), weights(), {"mean": np.zeros(8, np.float32)})


def prepare(args: argparse.Namespace) -> Callable[[str], Callable[[], Any]]:
    """Make the state once, and return what prepares a job's run."""
    logical = create_state(args.gigabytes)
    runner = create_runner("shard_map", class_sharded(logical))
    state, shapes = runner.place(logical), jax.eval_shape(lambda: logical)
    run = {"data": {"num_classes": len(logical.weights.prototypes)}, "config": "{}"}
    kinds = {WITH: saving.Checkpoints, WITHOUT: WithoutDigests}

    def save(variant: str) -> None:
        checkpoints = kinds[variant](args.folder / variant)
        checkpoints.save(state, run)
        assert checkpoints.wait()
        checkpoints.close()

    def restore(variant: str) -> None:
        folder = args.folder / variant / reading.FOLDER / "1"
        said: list[str] = []
        restored, _ = reading.restore_state(folder, runner.template(shapes), shapes, said.append)
        jax.block_until_ready(restored)
        assert bool(said) == (variant == WITHOUT)

    def digest() -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(args.folder / "digests")
        (args.folder / "digests").mkdir(parents=True)
        tree = reading.to_tree(state)
        digests.to_write(tree, reading.to_tree(shapes)).write(args.folder / "digests")

    jobs = {f"save {v}": functools.partial(save, v) for v in kinds}
    jobs |= {f"restore {v}": functools.partial(restore, v) for v in kinds}
    return (jobs | {"digest": digest}).__getitem__


def serve(args: argparse.Namespace) -> None:
    """Run a job for each line that comes in, and answer with its seconds."""
    runs = prepare(args)
    for line in sys.stdin:
        job = line.strip()
        if job.startswith("save"):
            shutil.rmtree(args.folder / job.split()[1], ignore_errors=True)
        os.sync()
        started, busy = time.perf_counter(), time.process_time()
        runs(job)()
        seconds, used = time.perf_counter() - started, time.process_time() - busy
        print(json.dumps({"seconds": seconds, "cpu_seconds": used}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the state")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small state and few turns")
    parser.add_argument("--folder", type=Path, help="where the checkpoints go; default: a new one")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.gigabytes, args.turns = min(args.gigabytes, 0.05), min(args.turns, 3)
    if args.variant:
        serve(args)
        return
    folder = args.folder or Path(tempfile.mkdtemp(prefix="bench-checkpoint-"))
    arguments = [f"--gigabytes={args.gigabytes}", f"--folder={folder}"]
    worker = turns.Worker(__file__, "both", arguments)
    try:
        report = measure(worker, args)
    finally:
        worker.end()
        shutil.rmtree(folder, ignore_errors=True)
    turns.write_json(args.json, report)


def measure(worker: turns.Worker, args: argparse.Namespace) -> dict[str, Any]:
    """Let the variants take turns, print the table and return the numbers."""
    for job in JOBS:
        for turn in range(args.turns + 1):
            for variant in (WITH, WITHOUT)[:: 1 if turn % 2 else -1]:
                worker.turn(f"{job} {variant}")
        if worker.failed:
            sys.exit(worker.failed)
        for variant in (WITH, WITHOUT):
            del worker.turns[f"{job} {variant}"][0]  # the first of each fills caches
    turns.interleave([worker], args.turns, "digest")
    report: dict[str, Any] = {"gigabytes": args.gigabytes, "turns": args.turns, "digest": "CRC32C"}
    print(f"CRC32C of {args.gigabytes:g} GiB by blocks of rows; with / without digests")
    for job in JOBS:
        keys = {variant: f"{job} {variant}" for variant in (WITH, WITHOUT)}
        ratio = turns.quotients(worker.values(job=keys[WITH]), worker.values(job=keys[WITHOUT]))
        seconds = {variant: worker.median(job=key) for variant, key in keys.items()}
        busy = {variant: worker.median("cpu_seconds", key) for variant, key in keys.items()}
        report[job] = {"ratio": ratio, "seconds": seconds, "cpu_seconds": busy}
        print(
            f"{job:8} {seconds[WITH]:6.2f} / {seconds[WITHOUT]:6.2f} s  "
            f"{turns.spread(ratio):24} processor {busy[WITH]:6.2f} / {busy[WITHOUT]:6.2f} s"
        )
    alone = worker.median(job="digest")
    report["digest_seconds"] = alone
    speed = args.gigabytes * 2**30 / alone / 1e9
    print(f"the digests alone, on one core: {alone:.2f} s, {speed:.1f} GB/s")
    return report


if __name__ == "__main__":
    main()
