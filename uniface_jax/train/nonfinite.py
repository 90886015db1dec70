"""Response to a loss or gradient that is not finite: stop, or skip and count; with a record."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from uniface_jax.data.sources.base import Source
from uniface_jax.files.writing import open_again


class NotFiniteError(RuntimeError):
    """Loss was not finite; the message names step, records and the last good checkpoint."""


class FiniteGuard:
    """Looks at the metrics of every step; appends to workdir/nonfinite-PROCESS.jsonl.

    A line there is one step of one process: its step, loss, grad_norm, and the records and labels
    of the process's part of the batch. `skipped` counts the steps of the whole run that step.py
    left out (Settings.skip_nonfinite). `limit`: so many in a row are more than bad luck.
    """

    def __init__(self, workdir: Path, source: Source, skip: bool, limit: int) -> None:
        self._path = workdir / f"nonfinite-{jax.process_index()}.jsonl"
        self._source, self._skip, self._limit = source, skip, limit
        self._in_row = 0
        self.skipped = 0

    def check(
        self, step: int, values: dict[str, float], batch: Mapping[str, Any], last: int | None
    ) -> str | None:
        """Warn where the step was skipped; raise NotFiniteError where the run must stop."""
        if math.isfinite(values["loss"] + values["grad_norm"]):
            self._in_row = 0
            return None
        where = self._record(step, values, batch)
        self._in_row += 1
        what = (
            f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}; the "
            f"records of {self._source.name} are in {where}"
        )
        if self._skip and self._in_row < self._limit:
            self.skipped += 1
            return f"{what}; skipped, {self.skipped} so far"
        if self._skip:
            what += f"; {self._in_row} in a row (config.nonfinite.limit)"
        raise NotFiniteError(
            f"{what}; "
            + ("nothing was saved yet" if last is None else f"the last checkpoint is {last}")
        )

    def _record(self, step: int, values: Mapping[str, float], batch: Mapping[str, Any]) -> str:
        line = {
            "step": step,
            "loss": str(values["loss"]),
            "grad_norm": str(values["grad_norm"]),
            "data": self._source.name,
            "records": np.asarray(batch["index"]).tolist(),
            "labels": np.asarray(batch["label"]).tolist(),
        }
        try:
            with os.fdopen(open_again(self._path, os.O_APPEND), "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as e:  # the run's message matters more than this file
            return f"no file ({self._path}: {e.strerror}): {line['records'][:16]}…"
        return str(self._path)
