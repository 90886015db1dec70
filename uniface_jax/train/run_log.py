"""Log of a run: console lines, a progress bar on a terminal, metrics.jsonl, TensorBoard."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.record_writer import register_writer_factory
from tqdm import tqdm

from uniface_jax.files.appender import Appender
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import parse_json
from uniface_jax.files.reading import read_lines

METRICS_FILE = "metrics.jsonl"
MAX_METRICS_BYTES = 1 << 32
SILENCE_SECONDS = 30.0  # without a line, where no bar shows that a run is alive


def duration(seconds: float) -> str:
    """Format seconds as "3h05m", "2m07s" or "9s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def warn(text: str) -> None:
    """Print a warning on standard error, above the progress bar where there is one."""
    _say(f"warning: {text}", sys.stderr)


def _say(text: str, file: TextIO) -> None:
    # The reader's own disk may be full (> log.txt): no reason to stop training.
    with contextlib.suppress(OSError):
        tqdm.write(text, file=file)
        file.flush()


class _BoardFiles:
    """Files as tensorboardX opens them: by its hook for other file systems.

    Its own would let a full disk kill the thread that writes, and the next scalars wait forever.
    """

    PREFIX = "appended"

    def directory_check(self, path: str) -> None:
        Path(path.removeprefix(f"{self.PREFIX}:")).mkdir(parents=True, exist_ok=True)

    def open(self, path: str) -> Appender:
        return Appender(Path(path.removeprefix(f"{self.PREFIX}:")), warn)


class Clock:
    """Splits the time since the last report into waiting for input and the rest."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget all until now: what follows is measured alone."""
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0

    def waited(self, seconds: float, images: int) -> None:
        """Count one batch: how long it was waited for, and how many images it holds."""
        self._waited += seconds
        self._images += images

    def report(self) -> dict[str, float]:
        """Return images_per_second and input_share (0..1) since the last report; then restart."""
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        result = {
            "images_per_second": self._images / elapsed,
            "input_share": self._waited / elapsed,
        }
        self.restart()
        return result


class RunLog:
    """Log of one run in `workdir`; in processes that do not `write` it does nothing.

    A run that is resumed at an earlier step than it had logged drops the lines beyond that step.
    """

    def __init__(
        self, workdir: Path, first_step: int, total_steps: int, write: bool = True
    ) -> None:
        self._write = write
        self._said = time.monotonic()  # when the last line was
        self._stepped = False  # whether a line has said of a first step
        if not write:
            return
        self._metrics = workdir / METRICS_FILE
        self._keep_until(first_step)
        self._file = Appender(self._metrics, warn)
        register_writer_factory(_BoardFiles.PREFIX, _BoardFiles())
        self._board = SummaryWriter(
            f"{_BoardFiles.PREFIX}:{workdir / 'tensorboard'}",
            purge_step=first_step + 1 if first_step else None,
        )
        self._bar = tqdm(
            total=total_steps, initial=first_step, unit="step", disable=not sys.stderr.isatty()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._write:
            self._bar.close()
            self._file.close()
            self._board.close()

    def _keep_until(self, step: int) -> None:
        if not self._metrics.exists():
            return
        kept, broken = [], []
        lines = read_lines(self._metrics, MAX_METRICS_BYTES)
        for number, line in enumerate(lines, 1):
            try:
                if parse_json(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                # The last line may be of a run that was killed while it wrote.
                broken += [number] if number < len(lines) else []
        if broken:
            warn(
                f"{self._metrics}: {len(broken)} lines that are no JSON of a step are left out, "
                f"the first of them line {broken[0]}"
            )
        write_bytes(self._metrics, "".join(line + "\n" for line in kept).encode())

    def advance(self, values: Mapping[str, float]) -> None:
        """Move the progress bar by one step; it shows the loss in `values`, where there is one."""
        if self._write:
            if "loss" in values:
                self._bar.set_postfix_str(f"loss {values['loss']:.4f}", refresh=False)
            self._bar.update()

    def alive(self, step: int, values: Mapping[str, float]) -> None:
        """Print a short line where none has been printed for a while and there is no bar.

        step: the newest one. values: metrics of it, or of the one before.
        """
        silent = time.monotonic() - self._said >= SILENCE_SECONDS
        if self._write and self._bar.disable and (silent or not self._stepped):
            loss = f"  loss {values['loss']:.4f}" if "loss" in values else ""
            self.line(f"step {step}/{self._bar.total}{loss}")
            self._stepped = True

    def line(self, text: str) -> None:
        """Print a line for the reader, above the progress bar where there is one."""
        self._said = time.monotonic()
        if self._write:
            _say(text, sys.stdout)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of one step to metrics.jsonl (null where not finite) and TensorBoard."""
        if not self._write:
            return
        line = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._file.write((json.dumps({"step": step, **line}) + "\n").encode())
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def images(self, name: str, step: int, images: np.ndarray) -> None:
        """Write a row of images [N, H, W, 3] uint8 to TensorBoard."""
        if self._write:
            self._board.add_images(name, images, step, dataformats="NHWC")


def console_line(step: int, total_steps: int, epoch: float, values: Mapping[str, float]) -> str:
    """Format step, epoch, loss, learning rate, thresholds, speed, input share and time left."""
    parts = [
        f"step {step}/{total_steps}",
        f"epoch {epoch:.2f}",
        f"loss {values['loss']:.4f}",
        f"lr {values['learning_rate']:.4g}",
    ]
    if "threshold" in values:
        parts.append(
            f"threshold b/s {values['threshold']:.4f} "
            f"(b-log(C-1))/s {values['threshold_without_log']:.4f}"
        )
    remaining = (total_steps - step) * values["batch_size"] / max(values["images_per_second"], 1e-9)
    parts += [
        f"{values['images_per_second']:.0f} images/s",
        f"input {100 * values['input_share']:.0f}%",
        f"left {duration(remaining)}",
    ]
    return "  ".join(parts)
