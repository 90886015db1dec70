"""Runs every benchmark of scripts/ and writes what they print to docs/benchmarks.md.

    python scripts/bench_all.py --quick
    python scripts/bench_all.py --only=train,conv

A benchmark is a scripts/bench_NAME.py that takes --json. Each runs alone; one that fails or takes
longer than --timeout is said to have, and the others go on. With --only the page keeps the other
benchmarks' parts, with their dates, and the file of --json their numbers: so a long run can be done
in parts.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from uniface_jax.train.run_record import git_commit, versions

SCRIPTS = Path(__file__).resolve().parent
PAGE = SCRIPTS.parent / "docs" / "benchmarks.md"
HEADER = """# Benchmarks

Written by `python scripts/bench_all.py`: what each benchmark printed, with the machine, the
versions and the date. Ratios count more than times: this machine's speed drifts, so each benchmark
lets its variants take turns.
"""


def benchmarks() -> dict[str, Path]:
    """By name: scripts/bench_NAME.py that take --json."""
    found = sorted(SCRIPTS.glob("bench_*.py"))
    named = {path.stem.removeprefix("bench_"): path for path in found if path != Path(__file__)}
    return {k: path for k, path in named.items() if k != "all" and '"--json"' in path.read_text()}


def processor() -> str:
    """Return the processor's name and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def run(name: str, path: Path, args: argparse.Namespace) -> tuple[str, dict | None]:
    """Runs one benchmark: (its part of the page, its numbers or None)."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder) / "numbers.json"
        options = ["--quick"] if args.quick and '"--quick"' in path.read_text() else []
        command = [sys.executable, str(path), f"--json={numbers}", *options]
        started = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=SCRIPTS.parent, capture_output=True, text=True, timeout=args.timeout
            )
            output, problem = done.stdout, ""
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                problem = f"Failed with status {done.returncode}: {last}"
        except subprocess.TimeoutExpired as e:
            output = e.stdout.decode() if isinstance(e.stdout, bytes) else (e.stdout or "")
            problem = f"Stopped after {args.timeout:.0f} s."
        seconds = time.perf_counter() - started
        try:
            report = json.loads(numbers.read_text())
        except (OSError, ValueError):
            report = None
    shown = " ".join(["python", f"scripts/{path.name}", *options])
    found, commit = versions(), git_commit()
    about = (
        f"{datetime.date.today()}, {seconds:.0f} s, {processor()}, load {os.getloadavg()[0]:.1f}"
    )
    tools = ", ".join(f"{package} {version}" for package, version in found.items())
    lines = [f"## {name}", "", f"`{shown}`: {about}; commit {commit}; {tools}.", ""]
    lines += [problem, ""] if problem else []
    lines += ["```", output.rstrip() or "(it printed nothing)", "```", ""]
    return "\n".join(lines), report


def parts_of(page: str) -> dict[str, str]:
    """Return the page's parts by benchmark."""
    return {part.split("\n", 1)[0][3:]: part for part in re.split(r"(?m)^(?=## )", page)[1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--quick", action="store_true", help="small sizes, where there are any")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for each")
    parser.add_argument("--output", type=Path, default=PAGE)
    parser.add_argument("--json", type=Path, help="file for the numbers of all")
    args = parser.parse_args()
    there = benchmarks()
    suited = [name for name in there if name != "gpu" or shutil.which("nvidia-smi")]
    names = args.only.split(",") if args.only else suited
    if unknown := [name for name in names if name not in there]:
        parser.error(
            f"--only={args.only}: no benchmark {unknown[0]!r}; there are {', '.join(there)}"
        )
    page = args.output.read_text() if args.output.exists() and args.only else ""
    parts, numbers, failed = parts_of(page), {}, []
    if args.only and args.json and args.json.exists():
        numbers = json.loads(args.json.read_text())
    for name in tqdm(names, unit="benchmark", disable=not sys.stderr.isatty()):
        parts[name], report = run(name, there[name], args)
        numbers[name] = report
        if report is None:
            failed.append(name)
        ordered = [parts[key].rstrip() + "\n" for key in sorted(parts)]
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("\n".join([HEADER, *ordered]))
        if args.json:
            args.json.write_text(json.dumps(numbers, indent=2) + "\n")
        print(f"{name}: {'failed' if report is None else 'done'}", flush=True)
    print(f"{args.output}: {len(names)} benchmarks" + (f", failed: {failed}" if failed else ""))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
