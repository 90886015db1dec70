"""Ends a run between two steps when it is told to stop, in all processes after the same step."""

import contextlib
import os
import signal
import sys
import time
from types import FrameType
from typing import Self

import jax
from jax.experimental import multihost_utils

NOTICE_SECONDS = 3.0  # JAX's preemption service looks for SIGTERM once a second


class StopSignal:
    """SIGINT, SIGTERM and SIGHUP end the run after the step in progress; then a SIGINT at once.

    The first one says so on standard error. In several processes a signal to one of them stops all
    after the same step: JAX's preemption service hears SIGTERM, tells the others and fixes the
    step, some steps ahead; SIGINT and SIGHUP are passed on to it. A run that was started with
    SIGHUP ignored (nohup) goes on ignoring it.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.failure: Exception | None = None
        self._several = jax.process_count() > 1
        self._step = 0

    @property
    def interrupted(self) -> bool:
        """Return True where somebody at the keyboard stopped the run."""
        return self.received == "SIGINT"

    def reached(self, step: int) -> bool:
        """Return True to stop after so many steps. Each process must ask at every step."""
        self._step = step
        if not self._several:
            return self.received is not None
        if not multihost_utils.reached_preemption_sync_point(step):
            return False
        self.received = self.received or "preemption notice"
        return True

    def end_all(self, failure: Exception) -> None:
        """Have all processes stop after one step, for a failure of this one's input.

        As SIGTERM does. The step is at most one after the newest of any process: this one, which
        is two behind at most, must have the batches until there.
        """
        self.failure = failure
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(NOTICE_SECONDS)  # until all know the step; where they do not, the failure ends

    def __enter__(self) -> Self:
        numbers = [signal.SIGINT] if self._several else [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = signal.Signals(number).name
        # Not by print: the signal may have come in the midst of one.
        at = "the steps in progress" if self._several else f"step {self._step + 1}"
        line = f"{self.received}: finishing {at} and saving; Ctrl-C now ends the run at once"
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), f"\n{line}\n".encode())
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
