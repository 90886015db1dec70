"""Ends a run in which nothing moves any more: a collective or an input that will never come."""

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from uniface_jax.files.writing import open_again

TICKS = 20  # looks at the run in each deadline


class Watchdog:
    """A thread that ends the process with `exit_code` when `at` was not called for `deadline` s.

    Before that it says on standard error, and in `report`, where the run stands and where every
    thread of it is. Only time in which this process runs counts. With a deadline of 0 it does
    nothing.
    """

    def __init__(self, deadline: float, report: Path, name: str, exit_code: int) -> None:
        self._deadline, self._report, self._name = deadline, report, name
        self._exit_code = exit_code
        self._place, self._ticks = "starting", 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def at(self, place: str) -> None:
        """Note that something moved: the run is at `place` ("waiting for input of step 7")."""
        self._place, self._ticks = place, 0

    def __enter__(self) -> Self:
        if self._deadline:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(self._deadline / TICKS):
            # Ticks and not clocks: a process that was stopped for an hour has not hung.
            self._ticks += 1
            if self._ticks > TICKS:
                self._end()

    def _end(self) -> None:
        message = (
            f"stopped: {self._name}: nothing moved for {self._deadline:g} s while {self._place} "
            f"(config.watchdog_seconds); all threads: {self._report}"
        )
        print(message, file=sys.stderr, flush=True)
        try:
            with os.fdopen(open_again(self._report, os.O_APPEND), "a") as file:
                print(time.strftime("%Y-%m-%d %H:%M:%S"), message, file=file, flush=True)
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        os._exit(self._exit_code)  # a thread that hangs in a collective can be ended no other way
