"""Ends a run between two steps when it is told to stop, in all processes after the same step."""

import os
import signal
from types import FrameType
from typing import Self

import jax
from jax.experimental import multihost_utils


class StopSignal:
    """SIGINT and SIGTERM end the run after the step in progress; a second SIGINT ends it at once.

    In several processes a signal to one of them stops all after the same step: JAX's preemption
    service hears SIGTERM, tells the others and fixes the step, some steps ahead; SIGINT is passed
    on to it.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._several = jax.process_count() > 1

    @property
    def interrupted(self) -> bool:
        """Return True where somebody at the keyboard stopped the run."""
        return self.received == "SIGINT"

    def reached(self, step: int) -> bool:
        """Return True to stop after so many steps. Each process must ask at every step."""
        if not self._several:
            return self.received is not None
        if not multihost_utils.reached_preemption_sync_point(step):
            return False
        self.received = self.received or "preemption notice"
        return True

    def __enter__(self) -> Self:
        numbers = (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
