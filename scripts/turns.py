"""Variants of a benchmark in processes of their own, taking turns: shared by scripts/bench_*.py."""

import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def serve(
    prepare: Callable[[str], Callable[[], Any]],
    *,
    warm: bool = False,
    about: Mapping[str, float] | None = None,
) -> None:
    """A variant's process: one timed run for each line, a job's name, that comes in.

    `prepare` makes a job's run, which waits until its result is there. The first run of a job is
    told apart (it compiles), the second is not counted. With `warm` each timed run comes right
    after another that is not counted: what waiting costs (a virtual machine's memory that went back
    to its host) is no part of it. Every answer is one line of JSON and holds what is in `about`,
    which `prepare` and the runs may fill.
    """
    current, run, about = None, None, {} if about is None else about
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        try:
            if line.strip() != current or run is None:
                current, run = line.strip(), None  # the last job's memory first
                run = prepare(current)
                started = time.perf_counter()
                run()
                answer["first_seconds"] = time.perf_counter() - started
                run()
            if warm:
                run()
            started, busy = time.perf_counter(), time.process_time()
            run()
            answer["seconds"] = time.perf_counter() - started
            answer["cpu_seconds"] = time.process_time() - busy
            answer["peak_bytes"] = peak_bytes()
            answer |= about
        except (ImportError, MemoryError, RuntimeError, ValueError) as e:
            answer = {"failed": f"{type(e).__name__}: {str(e).splitlines()[0][:200]}"}
        print(json.dumps(answer), flush=True)


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """One variant's process, `script --variant=name` with more arguments.

    most_seconds: of one turn; a process that takes longer is ended, and has failed.
    """

    def __init__(
        self,
        script: str,
        name: str,
        arguments: Sequence[str] = (),
        most_seconds: float = 86_400.0,
    ) -> None:
        self.name = name
        self._most_seconds = most_seconds
        self.failed: str | None = None  # why it cannot run
        self.turns: dict[str, list[dict[str, float]]] = {}  # by job
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments, f"--variant={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def turn(self, job: str = "step") -> None:
        """Run the job once and keep time and memory."""
        if self.failed:
            return
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(job + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.failed = "its process ended"
            return
        late = threading.Timer(self._most_seconds, self._process.kill)
        late.daemon, began = True, time.monotonic()
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        in_time = time.monotonic() - began < self._most_seconds
        why = "its process ended" if in_time else f"took more than {self._most_seconds:g} s"
        answer = json.loads(line) if line else {"failed": why}
        if "failed" in answer:
            self.failed = answer["failed"]
        else:
            self.turns.setdefault(job, []).append(answer)

    def end(self) -> None:
        """End the process."""
        self._process.communicate()

    def values(self, key: str = "seconds", job: str = "step") -> list[float]:
        """Return what all turns of a job gave."""
        return [turn[key] for turn in self.turns.get(job, []) if key in turn]

    def median(self, key: str = "seconds", job: str = "step") -> float:
        """Return the median over the turns of a job."""
        return statistics.median(self.values(key, job))


def ratios(ours: Worker, theirs: Worker, job: str = "step") -> dict[str, float]:
    """Return how many times as long `theirs` takes, by turns: median, lowest and highest."""
    return quotients(theirs.values(job=job), ours.values(job=job))


def quotients(seconds: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Return how many times `others` the seconds of the same turns are: as ratios()."""
    each = [a / b for a, b in zip(seconds, others, strict=True)]
    return {"median": statistics.median(each), "lowest": min(each), "highest": max(each)}


def spread(ratio: dict[str, float] | None) -> str:
    """Write what ratios() gave for a table; "-" for none."""
    if ratio is None:
        return "-"
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"


def interleave(workers: Sequence[Worker], turns: int, job: str = "step") -> None:
    """Let the workers that can run take so many turns, one after the other."""
    for _ in range(turns):
        for worker in workers:
            worker.turn(job)


def write_json(path: Path | None, report: dict) -> None:
    """Write the report to the file `path`, where one is given."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")
