"""The training time of `make demo`, now and as it was before the work on speed.

    python scripts/bench_demo.py --json=demo.json

The earlier commit is checked out beside this one, so that a clone with its history is needed. Both
train the demo's 400 steps on the same faces, by turns, compiling everything anew: the process from
its start to its end, and the training within it as the run itself reports it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from turns import write_json

from uniface_jax.cli import say

ROOT = Path(__file__).resolve().parent.parent
BEFORE = "9878e0e~1"  # the commit before the first one that made the CPU faster


def command(checkout: Path, *arguments: str, cache: Path) -> None:
    """Runs one of the checkout's command lines in it, with an empty cache of compiled programs."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=checkout, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"error: {arguments[0]} in {checkout}: {done.stderr.strip().splitlines()[-1]}")


def train(checkout: Path, steps: int, folder: Path) -> dict[str, float]:
    """Seconds of the whole process and of its training."""
    folder.mkdir()
    options = ["--config=configs/demo.py", f"--config.steps={steps}", f"--workdir={folder / 'run'}"]
    started = time.perf_counter()
    command(checkout, "uniface_jax.train", *options, cache=folder / "compiled")
    whole = time.perf_counter() - started
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    training = max(line["elapsed_seconds"] for line in values if "elapsed_seconds" in line)
    return {"process": whole, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default=BEFORE, help="commit")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="20 steps, one turn")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.turns = 20, 1
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = folder / "before"
        subprocess.run([*git, "add", "--quiet", "--detach", before, args.before], check=True)
        try:
            command(ROOT, "uniface_jax.demo_data", str(folder / "faces"), cache=folder / "data")
            checkouts = {"before": before, "now": folder / "now"}
            checkouts["now"].mkdir()
            for part in ("uniface_jax", "configs"):
                (checkouts["now"] / part).symlink_to(ROOT / part)
            turns: dict[str, list[dict[str, float]]] = {key: [] for key in checkouts}
            for checkout in checkouts.values():
                (checkout / "runs").mkdir()
                (checkout / "runs" / "faces").symlink_to(folder / "faces")
            for turn in range(args.turns):
                for key, checkout in checkouts.items():
                    turns[key].append(train(checkout, args.steps, folder / f"{key}-{turn}"))
        finally:
            subprocess.run([*git, "remove", "--force", before], check=True)
    say(f"{args.steps} steps; seconds, medians of {args.turns} turns")
    say(f"{'':10} {'process':>9} {'training':>9}")
    medians = {
        key: {what: statistics.median(turn[what] for turn in each) for what in each[0]}
        for key, each in turns.items()
    }
    for key, row in medians.items():
        say(f"{key:10} {row['process']:9.1f} {row['training']:9.1f}")
    ratios = {what: medians["before"][what] / medians["now"][what] for what in medians["now"]}
    say(f"{'times':10} {ratios['process']:9.2f} {ratios['training']:9.2f}")
    write_json(args.json, {"before": args.before, "seconds": turns, "ratios": ratios})


if __name__ == "__main__":
    main()
