"""Variants of a benchmark in processes of their own, taking turns: shared by scripts/bench_*.py."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def serve(prepare: Callable[[], tuple[Callable[[], Any], dict]]) -> None:
    """A variant's process: prepares, says what it is, then runs once for each line that comes in.

    `prepare` returns the run and what to report of it. Every answer is one line of JSON.
    """
    try:
        run, about = prepare()
        started = time.perf_counter()
        run()
        about["first_seconds"] = time.perf_counter() - started
        run()
    except (ImportError, MemoryError, RuntimeError) as e:
        about = {"failed": f"{type(e).__name__}: {str(e).splitlines()[0][:200]}"}
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        started, busy = time.perf_counter(), time.process_time()
        run()
        answer = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - busy,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(json.dumps(answer), flush=True)


class Worker:
    """One variant's process, `script --variant=name` with more arguments."""

    def __init__(self, script: str, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.turns: list[dict[str, float]] = []
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments, f"--variant={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        return json.loads(line) if line else {"failed": "its process was ended"}

    @property
    def failed(self) -> str | None:
        """Why it cannot run, or None."""
        return self.about.get("failed")

    def turn(self) -> None:
        """Runs once and keeps time and memory."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "failed" in answer:
            self.about |= answer
        else:
            self.turns.append(answer)

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def median(self, key: str = "seconds") -> float:
        """Median over the turns."""
        return statistics.median(turn[key] for turn in self.turns)


def ratios(ours: Worker, theirs: Worker) -> dict[str, float]:
    """How many times as long `theirs` takes, turn by turn: median, lowest and highest."""
    each = [b["seconds"] / a["seconds"] for a, b in zip(ours.turns, theirs.turns, strict=True)]
    return {"median": statistics.median(each), "lowest": min(each), "highest": max(each)}


def interleave(workers: Sequence[Worker], turns: int) -> None:
    """Lets the workers that can run take so many turns, one after the other."""
    for _ in range(turns):
        for worker in workers:
            if not worker.failed:
                worker.turn()
    for worker in workers:
        worker.end()


def write_json(path: Path | None, report: dict) -> None:
    """The report at `path`, where one is given."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")
