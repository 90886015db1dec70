"""Threads or processes that fill batches.

Threads take turns in everything that Python does, so that their number brings less and less;
processes do not, but each takes half a second to start, opens the source itself and holds some
60 MB. They are programs of their own, neither forks (JAX has threads) nor multiprocessing's (which
imports the main script again), in a session of their own, so that Ctrl-C does not reach them. Each
hangs on a socket to the process that gives it work and ends when that is gone, even by SIGKILL.
"""

import collections
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from mmap import MAP_POPULATE, MAP_SHARED, mmap
from multiprocessing.connection import Connection
from typing import Any, Protocol

import cv2
import numpy as np
from typing_extensions import override

from uniface_jax.data.input.augment import Augment, augmentations
from uniface_jax.data.input.buffers import Buffers, SharedBuffers
from uniface_jax.data.input.decoding import Part, fill
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError

_PROGRAM = f"""
import sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
from {__name__} import serve
serve(connection, int(sys.argv[2]))
"""


Parts = Sequence[tuple[slice, Part]]  # of a batch: where, and what


class Decoders(Protocol):
    """Memory for batches, and workers that fill it. All of it is called by one thread."""

    buffers: Buffers

    def start(self, parts: Parts, batch: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
        """Begin to decode, as decoding.fill, into an array of `buffers` and its labels.

        The returned function waits until all is done and raises what went wrong. Those of several
        batches are called in the order in which they came, and none after one has raised.
        """

    def close(self) -> None:
        """End threads or processes, at once."""


class Threads(Decoders):
    """Decoders in `count` threads."""

    def __init__(self, source: Source, config: Augment, shape: tuple[int, ...], count: int):
        self.buffers = Buffers(shape)
        self._pool = ThreadPoolExecutor(count, "decode")
        self._fill = _fill(source, config)

    @override
    def start(self, parts: Parts, batch: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
        submit = self._pool.submit
        tasks = [submit(self._fill, part, batch[at], labels[at]) for at, part in parts]

        def finish() -> None:
            wait(tasks, return_when=FIRST_EXCEPTION)  # woken once, not by every part
            for task in tasks:
                task.result()

        return finish

    @override
    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Processes(Decoders):
    """Decoders in `count` processes. Each has its next work at hand when it is done with one.

    A process that has died is a UserError of `start`, or of the function that it returns.
    """

    def __init__(self, source: Source, config: Augment, shape: tuple[int, ...], count: int):
        self.buffers = SharedBuffers(shape)
        setup = pickle.dumps((source, config, shape))
        self._processes = [_Process(setup, self.buffers.file) for _ in range(count)]

    @override
    def start(self, parts: Parts, batch: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
        offset = self.buffers.offset(batch)
        pending = [process.pending() for process in self._processes]
        waits = []
        for at, part in parts:
            number = pending.index(min(pending))  # the slower ones get less
            pending[number] += 1
            waits.append(
                self._processes[number].start((offset, at, tuple(part)), batch, labels[at])
            )

        def finish() -> None:
            for wait_for in waits:
                wait_for()

        return finish

    @override
    def close(self) -> None:
        for process in self._processes:
            process.program.kill()
        for process in self._processes:
            process.program.wait()
        self.buffers.close()


class _Process:
    """One decoding process, and the labels that it owes, in the order of its work."""

    def __init__(self, setup: bytes, file: int):
        here, there = socket.socketpair()
        self._connection = Connection(here.detach())
        with there:
            self.program = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(there.fileno()), str(file)],
                pass_fds=(there.fileno(), file), stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._connection.send(sys.path)
        self._connection.send_bytes(setup)
        # The labels that it will send, and the batch that it may be writing to until then.
        self._owed: collections.deque[tuple[np.ndarray, np.ndarray]] = collections.deque()
        self._done = 0  # pieces of work, of all

    def pending(self) -> int:
        """Return how many pieces of work it has not done yet, after a look at what it has sent."""
        while self._owed and self._connection.poll():
            self._receive()
        return len(self._owed)

    def start(
        self, task: tuple[Any, ...], batch: np.ndarray, labels: np.ndarray
    ) -> Callable[[], None]:
        """Send a task; the returned function waits until it is done and its labels are there."""
        try:
            self._connection.send(task)
        except OSError:
            raise self._died() from None
        self._owed.append((labels, batch))
        number = self._done + len(self._owed)

        def finish() -> None:
            while self._done < number:
                self._receive()

        return finish

    def _receive(self) -> None:
        """Take in the labels of the oldest piece of work; raise what went wrong with it."""
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if isinstance(answer, Exception):
            raise answer
        labels, _ = self._owed.popleft()
        labels[:] = answer
        self._done += 1

    def _died(self) -> UserError:
        """Return the error that says with which code the process ended."""
        return UserError(
            f"a decoding process died with code {self.program.wait()} (-9 is often a lack of "
            "memory: try fewer --config.data.threads, or --config.data.decoders=threads)"
        )


def _fill(source: Source, config: Augment) -> Callable[[Part, np.ndarray, np.ndarray], None]:
    """Return decoding.fill of a Part, given pixels and labels."""
    cv2.setNumThreads(1)  # images are in parallel; OpenCV's own threads fight for the cores
    return partial(fill, source, augmentations(config))


def serve(connection: Connection, file: int) -> None:
    """Fill parts of the arrays in `file` until the connection ends, in a decoding process."""
    # A scheduler may ask all processes to stop; the main one still has a step to finish then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        setup = connection.recv_bytes()
        decode = _guarded(lambda: _Filler(file, *pickle.loads(setup)))
        while True:
            task = connection.recv()
            connection.send(decode if isinstance(decode, Exception) else _guarded(decode, *task))
    except (EOFError, OSError):
        return


class _Filler:
    """A decoding process' maps of the arrays in `file`, of which it fills parts."""

    def __init__(self, file: int, source: Source, config: Augment, shape: tuple[int, ...]):
        self._file, self._shape = file, shape
        self._fill = _fill(source, config)
        self._maps: dict[int, np.ndarray] = {}

    def __call__(self, offset: int, at: slice, part: Sequence[np.ndarray]) -> np.ndarray:
        """Fill a Part; return its labels, int32 [K]. See Decoders.start."""
        if offset not in self._maps:
            # All page faults now, not one by one between images.
            flags, size = MAP_SHARED | MAP_POPULATE, int(np.prod(self._shape))
            memory = mmap(self._file, size, flags, offset=offset)
            self._maps[offset] = np.frombuffer(memory, np.uint8).reshape(self._shape)
        pixels = self._maps[offset][at]
        labels = np.empty(len(pixels), np.int32)
        self._fill(Part(*part), pixels, labels)
        return labels


def _guarded(work: Callable[..., Any], *given: Any) -> Any:
    """Return the result of work(*given), or the exception to raise in the main process."""
    try:
        return work(*given)
    except UserError as e:
        return e
    except Exception:
        return RuntimeError(f"in a decoding process:\n{traceback.format_exc()}")
