"""A trace of some training steps, for TensorBoard's profile page or ui.perfetto.dev."""

from pathlib import Path
from typing import Any, Self

import jax

from uniface_jax.errors import UserError

FOLDER = "profile"  # in the workdir


def parse_range(text: str) -> tuple[int, int] | None:
    """Parse "10:15" as (10, 15): the steps 10 to 14 counted from 0; None for "".

    Raises UserError for anything else, or a range without a step in it.
    """
    if not text:
        return None
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise UserError(
            f"config.profile={text!r}: must be START:STOP, whole numbers with START < STOP, as in "
            "10:15; the first step of a run compiles and says little"
        )
    return int(start), int(stop)


class Profile:
    """Traces the steps of config.profile into a folder; does nothing where it is empty.

    A run that is resumed beyond the first of these steps traces those that are left.
    """

    def __init__(self, steps: str, folder: Path) -> None:
        self._steps = parse_range(steps)
        self._folder = folder
        self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def at(self, step: int, values: Any) -> str | None:
        """Start or stop the trace before step `step`, given what the step before it computed.

        Returns a line for the reader when the trace was written.
        """
        if self._steps is None:
            return None
        start, stop = self._steps
        if not self._running and start <= step < stop:
            jax.block_until_ready(values)  # the work of earlier steps stays out of the trace
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._running = True
        elif self._running and step >= stop:
            jax.block_until_ready(values)
            self.close()
            return (
                f"traced steps {start} to {stop - 1}: tensorboard --logdir={self._folder}, or open "
                "perfetto_trace.json.gz of it in ui.perfetto.dev"
            )
        return None

    def close(self) -> None:
        """End a trace that still runs."""
        if self._running:
            self._running, self._steps = False, None
            jax.profiler.stop_trace()
