"""Check and time everything on one GPU in one call of less than ten minutes.

    python scripts/gpu_in_ten_minutes.py --output=runs/gpu [--data=people/train --pairs=pairs.bin]
        [--only=r100,tests]

For a GPU that is lent for a quarter of an hour. The parts run one after the other, those worth most
first: steps in turns with PyTorch, plain and by torch.compile(mode="max-autotune"), the tests of
numbers, a training, the head, all pairs, and more sizes. What each printed is in OUTPUT/PART.txt
and in OUTPUT/summary.json, written anew after each, so that a run that is cut short has told what
it found. A part that fails or takes longer than it may is told, and the others go on; what has no
time left is left out, for another call with --only. --data is what the training reads, as
config.data.train, and --pairs what it is validated by, as config.eval.data: 300 steps are 17 epochs
of 9,000 images, about a split of LFW. Without --data its images are noise. --smallest runs each
part in its smallest form on any machine, CPUs too: what this script is tested with.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from uniface_jax.cli import say
from uniface_jax.files.atomic import write_bytes
from uniface_jax.train.run_record import git_commit

ROOT = Path(__file__).resolve().parent.parent
SECONDS, LEAST_SECONDS = 570.0, 15.0  # of a whole run; with less left no part begins
# Of one variant's turn, its compilation with it: PyTorch's max-autotune tries kernels for minutes,
# and must not cost the others' figures.
TURN_SECONDS = 140
# Of one device, which UNIFACE_TEST_PLATFORM lets run anywhere; first what only GPUs do so.
NUMBERS = (
    "tests/models/test_folded.py", "tests/train/test_few_kernels.py", "tests/models/test_linear.py",
    "tests/losses", "tests/models/test_layers.py", "tests/models/test_convolution.py",
    "tests/head/test_loss_golden.py", "tests/evaluate/all_pairs",
)  # fmt: skip
TELL_CHARACTERS = 2000  # of a part's last words in the summary


class Part(NamedTuple):
    """Command after the name of Python, and the most seconds that it may take."""

    command: list[str]
    seconds: float
    platform: str | None = None  # of the tests


def step(network: str, classes: int, batch: int, *more: str) -> list[str]:
    """Return the command that times one step next to PyTorch's."""
    return [
        "scripts/bench_gpu.py", f"--networks={network}", f"--classes={classes}",
        f"--batches={batch}", "--variants=ours,torch,torch max-autotune", "--turns=3",
        f"--most_seconds={TURN_SECONDS}", *more,
    ]  # fmt: skip


def parts(data: str | None, pairs: str | None) -> dict[str, Part]:
    """Return everything for a GPU, the parts worth most first.

    data, pairs: what the training reads and is validated by; None for images of noise, and none.
    """
    train = [
        "-m", "uniface_jax.train", "--config=casia:uce", "--config.model.dtype=bfloat16",
        "--config.head.product_dtype=bfloat16", "--config.micro_batches=1",
        f"--config.data.train={data or 'synthetic:10572:100000'}", "--config.steps=300",
        "--config.log.every_steps=50", f"--config.eval.data={pairs or ''}",
        "--workdir={output}/training",
    ]  # fmt: skip
    found = {
        "r100": Part(step("lresnet100", 10_572, 256), 270),
        "tests": Part(["-m", "pytest", "-q", "-n", "0", "-m", "not slow", *NUMBERS], 120, "cuda"),
        "r50": Part(step("lresnet50", 10_572, 256), 200),
        "training": Part(train, 90),
        "r100-360k": Part(step("lresnet100", 360_232, 256), 270),
        "vit_b": Part(step("vit_b", 10_572, 256, "--attention=cudnn"), 240),
        "mbf": Part(step("mbf", 10_572, 256), 200),
        "head": Part(["scripts/bench_head.py", "--dtype=bfloat16", "--only=streamed"], 60),
        "pairs": Part(["scripts/bench_pairs.py", "--images=50000,100000", "--numpy-rows=0"], 60),
    }
    sizes = [(n, c, b) for n in ("lresnet50", "lresnet100") for c in (10_572, 360_232)
             for b in (128, 512, 256)]  # fmt: skip
    for network, classes, batch in sizes:
        found.setdefault(f"{network}-{classes}-{batch}", Part(step(network, classes, batch), 270))
    return found


def smallest_parts() -> dict[str, Part]:
    """Return a part of each kind in its smallest form."""
    bench = [
        "scripts/bench_gpu.py", "--networks=lresnet18", "--classes=100", "--batches=2",
        "--variants=ours", "--turns=1", "--steps=1", "--any_device", "--side=64",
    ]  # fmt: skip
    head = [
        "scripts/bench_head.py", "--only=streamed", "--turns=1", "--batch=8", "--classes=64",
        "--dim=8",
    ]  # fmt: skip
    train = [
        "-m", "uniface_jax.train", "--config=demo", "--config.data.train=synthetic:8:64",
        "--config.eval.data=", "--config.batch_size=16", "--config.steps=2",
        "--config.model.width=4", "--workdir={output}/training",
    ]  # fmt: skip
    pairs = ["scripts/bench_pairs.py", "--images=200,400", "--dim=8", "--numpy-rows=0",
             "--fars=1e-2"]  # fmt: skip
    tests = ["-m", "pytest", "-q", "-n", "0", "tests/losses/test_slopes.py"]
    return {
        "step": Part(bench, 600),
        "tests": Part(tests, 600, "cpu"),
        "training": Part(train, 600),
        "head": Part(head, 600),
        "pairs": Part(pairs, 600),
    }


def run(part: Part, output: Path, file: Path, limit: float) -> dict[str, Any]:
    """Run a part for at most `limit` seconds, with what it prints in `file`."""
    command = [sys.executable, *(word.format(output=output) for word in part.command)]
    if command[1].startswith("scripts/bench"):
        command.append(f"--json={file.with_suffix('.json')}")
    env = dict(os.environ, XLA_PYTHON_CLIENT_PREALLOCATE="false")
    if part.platform:
        env["UNIFACE_TEST_PLATFORM"] = part.platform
    began = time.monotonic()
    with file.open("wb") as printed:
        # A group of its own: a benchmark's workers end with it.
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=printed, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            status: int | str = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = f"ended after {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = file.read_text(errors="replace")
    return {
        "command": command[1:],
        "status": status,
        "seconds": time.monotonic() - began,
        "printed": text[-TELL_CHARACTERS:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for all results")
    parser.add_argument("--data", help="what the training reads, as config.data.train")
    parser.add_argument("--pairs", help="what it is validated by, as config.eval.data")
    parser.add_argument("--only", help="parts, separated by commas")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole run")
    parser.add_argument("--smallest", action="store_true", help="the smallest form, on any device")
    args = parser.parse_args()
    known = smallest_parts() if args.smallest else parts(args.data, args.pairs)
    names = args.only.split(",") if args.only else list(known)
    if unknown := set(names) - known.keys():
        parser.error(f"--only={args.only}: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    args.output.mkdir(parents=True, exist_ok=True)
    output, end = args.output.resolve(), time.monotonic() + args.seconds
    summary: dict[str, Any] = {"commit": git_commit(), "parts": {}}
    for name in names:
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            found: dict[str, Any] = {"status": "left out: no time"}
        else:
            limit = min(known[name].seconds, left)
            found = run(known[name], output, output / f"{name}.txt", limit)
        summary["parts"][name] = found
        write_bytes(output / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
        say(f"== {name}: {found['status'] or 'done'} ({found.get('seconds', 0):.0f} s)")
        say(*found.get("printed", "").rstrip().splitlines()[-12:])
    if any(found["status"] for found in summary["parts"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
