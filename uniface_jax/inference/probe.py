"""The first run of a foreign ONNX model: in a process of its own, which may be ended.

A graph can loop 2^62 times or ask for more memory than there is, already while it is loaded. What
holds for a few images here, in bounded time and memory, is then relied on.
"""

import io
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.inference import probe_worker

MIN_SECONDS = 5  # of processor time, in which a network of any use loads and sees four images
BYTES_PER_SECOND = 25_000_000  # of the model: large ones are given more
WALL_FACTOR = 5  # on a busy machine
MIN_MEMORY = 1 << 30  # of addresses, of which the libraries' own are 0.2 GB
MEMORY_FACTOR = 8  # times the model


@dataclass(frozen=True)
class Answer:
    """The outputs of a feed by their index, empty for what is no array of numbers; or its error.

    values: arrays. shapes: of outputs that are too large to be sent.
    """

    values: Mapping[int, np.ndarray]
    shapes: Mapping[int, tuple[int, ...]]
    error: str | None


def probe(path: Path, content: bytes, input_name: str, feeds: Sequence[np.ndarray]) -> list[Answer]:
    """Run a serialized model on each of `feeds` in another process; return the answers.

    Raises:
        UserError: names `path` where the model does not load, or the process ended: beyond the
            limits, or by a fault in onnxruntime.
    """
    seconds = MIN_SECONDS + len(content) // BYTES_PER_SECOND
    memory = MIN_MEMORY + MEMORY_FACTOR * len(content)
    arrays = io.BytesIO()
    np.savez(arrays, **{str(i): feed for i, feed in enumerate(feeds)})  # type: ignore[arg-type]
    script = str(Path(probe_worker.__file__))
    too_long = UserError(
        f"{path}: did not end within {seconds} s of processor time on {len(feeds[0])} images; "
        "expected a network, not an endless loop"
    )
    try:
        done = subprocess.run(
            # -P: this folder's modules do not stand for others.
            [sys.executable, "-P", script, input_name, str(seconds), str(memory)],
            input=len(content).to_bytes(8, "little") + content + arrays.getvalue(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds * WALL_FACTOR,
        )
    except subprocess.TimeoutExpired as e:
        raise too_long from e
    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        raise too_long
    if done.returncode:
        raise UserError(
            f"{path}: a first run of it, in a process of its own with {memory >> 30} GB of memory, "
            f"ended with status {done.returncode}"
        )
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as found:
        answers = dict(found)
    if "error" in answers:
        raise UserError(f"{path}: onnxruntime refuses it ({one_line(str(answers['error']))})")
    return [_answer(answers, f"{i}/") for i in range(len(feeds))]


def one_line(text: str) -> str:
    """Return the beginning of an error's text as one line."""
    return " ".join(text.split())[:300]


def _answer(found: Mapping[str, np.ndarray], prefix: str) -> Answer:
    values, shapes = {}, {}
    for key, array in found.items():
        if key.startswith(f"{prefix}value/"):
            values[int(key.rpartition("/")[2])] = array
            shapes[int(key.rpartition("/")[2])] = array.shape
        elif key.startswith(f"{prefix}shape/"):
            shapes[int(key.rpartition("/")[2])] = tuple(int(size) for size in array)
    error = found.get(f"{prefix}error")
    return Answer(values, shapes, None if error is None else one_line(str(error)))
