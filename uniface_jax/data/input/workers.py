"""Threads or processes that fill batches.

Threads take turns in everything that Python does, so that their number brings less and less;
processes do not, but each takes half a second to start, opens the source itself and holds some
60 MB. They are programs of their own, neither forks (JAX has threads) nor multiprocessing's (which
imports the main script again), in a session of their own, so that Ctrl-C does not reach them. Each
hangs on a socket to the process that gives it work and ends when that is gone, even by SIGKILL;
where the system can (Linux), it does so also if it was stopped (SIGSTOP). One that dies or is
stopped is replaced, and does its work anew: the batches are the same.
"""

import collections
import contextlib
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from mmap import MAP_POPULATE, MAP_SHARED, mmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from typing_extensions import override

from uniface_jax.data.formats.landmarks import POINTS
from uniface_jax.data.input.augment import Augment, augmentations
from uniface_jax.data.input.buffers import Buffers, SharedBuffers
from uniface_jax.data.input.decoding import Memory, Part, fill
from uniface_jax.data.sources.base import Source
from uniface_jax.errors import UserError

_PROGRAM = f"""
import sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
from {__name__} import serve
serve(connection, int(sys.argv[2]), int(sys.argv[3]))
"""

MAX_DEATHS = 3  # of the processes in a row, without a piece of work done between them
_PATIENCE = 5.0  # seconds without an answer, until a process is looked at
_PR_SET_PDEATHSIG = 1  # of Linux's prctl

Parts = Sequence[tuple[slice, Part]]  # of a batch: where, and what
Finish = Callable[[], dict[int, int]]


class WorkerLostError(RuntimeError):
    """Decoding processes died again and again; nothing is known to be wrong with the data."""


@dataclass(frozen=True)
class Work:
    """Work that decoders do, in all batches.

    Attributes:
        source: where the records are read.
        augment: the augmentations but the mirror.
        shape: of a batch's images, [B, S, S, 3].
        skip: let the next usable record stand in for one that cannot be used.
        landmarks: give those of each image too.
    """

    source: Source
    augment: Augment
    shape: tuple[int, ...]
    skip: bool = False
    landmarks: bool = False

    def memory(self, pixels: np.ndarray) -> Memory:
        """Return the memory of images, uint8 [K, S, S, 3], with that of what belongs to them."""
        labels = np.empty(len(pixels), np.int32)
        points = np.empty((len(pixels), POINTS, 2), np.float32) if self.landmarks else None
        return Memory(pixels, labels, points)


class Decoders(Protocol):
    """Memory for batches, and workers that fill it. All of it is called by one thread."""

    buffers: Buffers

    def start(self, parts: Parts, batch: Memory) -> Finish:
        """Begin to decode, as decoding.fill, into memory whose pixels are an array of `buffers`.

        The returned function waits until all is done and raises what went wrong; it returns the
        records that were used instead of others, by their place in the batch. Those of several
        batches are called in the order in which they came, and none after one has raised.
        """

    def close(self) -> None:
        """End threads or processes, at once."""


class Threads(Decoders):
    """Decoders in `count` threads."""

    def __init__(self, work: Work, count: int):
        self.buffers = Buffers(work.shape)
        self._pool = ThreadPoolExecutor(count, "decode")
        self._fill = _fill(work)

    @override
    def start(self, parts: Parts, batch: Memory) -> Finish:
        submit = self._pool.submit
        tasks = [submit(self._fill, part, batch.at(at)) for at, part in parts]

        def finish() -> dict[int, int]:
            wait(tasks, return_when=FIRST_EXCEPTION)  # woken once, not by every part
            done = zip(parts, tasks, strict=True)
            return _in_batch((at, task.result()) for (at, _), task in done)

        return finish

    @override
    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Processes(Decoders):
    """Decoders in `count` processes. Each has its next work at hand when it is done with one.

    Where processes die MAX_DEATHS times in a row, `start`, or the function that it returns, raises
    WorkerLostError.
    """

    def __init__(self, work: Work, count: int):
        self.buffers = SharedBuffers(work.shape)
        setup = _packed(work)
        self._processes = [_Process(setup, self.buffers.file) for _ in range(count)]

    @override
    def start(self, parts: Parts, batch: Memory) -> Finish:
        offset = self.buffers.offset(batch.pixels)
        pending = [process.pending() for process in self._processes]
        waits = []
        for at, part in parts:
            number = pending.index(min(pending))  # the slower ones get less
            pending[number] += 1
            task = (offset, at, tuple(part))
            waits.append((at, self._processes[number].start(task, batch.at(at))))

        def finish() -> dict[int, int]:
            return _in_batch((at, wait_for()) for at, wait_for in waits)

        return finish

    @override
    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.program.wait()
        self.buffers.close()


def _in_batch(replaced: Iterable[tuple[slice, dict[int, int]]]) -> dict[int, int]:
    """Return what was used instead by its place in the batch, of that by its place in a part."""
    return {at.start + place: used for at, those in replaced for place, used in those.items()}


@dataclass
class _Owed:
    """A piece of work that a process was given, and what it may be writing to until it is done."""

    task: tuple[Any, ...]
    memory: Memory
    replaced: dict[int, int]


class _Process:
    """One decoding process, and the work that it owes, in order; it is started again if it dies."""

    def __init__(self, setup: bytes, file: int):
        self._setup, self._file = setup, file
        self._owed: collections.deque[_Owed] = collections.deque()
        self._done = 0  # pieces of work, of all
        self._deaths = 0  # since the last of them
        self._launch()

    def _launch(self) -> None:
        """Start the program, and give it all that is owed."""
        here, there = socket.socketpair()
        self._connection = Connection(here.detach())
        # The system ends the program with the thread that started it, which must be one that stays.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        arguments = [str(there.fileno()), str(self._file), str(parent)]
        with there:
            self.program = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments], pass_fds=(there.fileno(), self._file),
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        with contextlib.suppress(OSError):  # it has died already, which the first answer will tell
            self._connection.send(sys.path)
            self._connection.send_bytes(self._setup)
            for owed in self._owed:
                self._connection.send(owed.task)

    def kill(self) -> None:
        """End the program, also one that is stopped; program.wait() clears it away."""
        self.program.kill()

    def pending(self) -> int:
        """Return how many pieces of work it has not done yet, after a look at what it has sent."""
        while self._owed and self._connection.poll():
            self._receive()
        return len(self._owed)

    def start(self, task: tuple[Any, ...], memory: Memory) -> Callable[[], dict[int, int]]:
        """Send a task; the returned function waits until it is done and its labels are there."""
        owed = _Owed(task, memory, {})
        self._owed.append(owed)
        number = self._done + len(self._owed)
        try:
            self._connection.send(task)
        except OSError:
            self._replace()

        def finish() -> dict[int, int]:
            while self._done < number:
                self._receive()
            return owed.replaced

        return finish

    def _receive(self) -> None:
        """Take in the labels of the oldest piece of work; raise what went wrong with it."""
        try:
            while not self._connection.poll(_PATIENCE):
                if _is_stopped(self.program.pid):  # it would keep the run waiting for ever
                    self._replace()
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._replace()
            return
        if isinstance(answer, Exception):
            raise answer
        owed = self._owed.popleft()
        owed.memory.labels[:], points, replaced = answer
        if owed.memory.landmarks is not None:
            owed.memory.landmarks[:] = points
        owed.replaced.update(replaced)
        self._done += 1
        self._deaths = 0

    def _replace(self) -> None:
        """Start the program anew, where it died or was stopped; WorkerLostError if too often."""
        self.kill()
        code = self.program.wait()
        self._connection.close()
        self._deaths += 1
        if self._deaths >= MAX_DEATHS:
            raise WorkerLostError(
                f"a decoding process died {self._deaths} times, the last time with code {code} (-9 "
                "is often a lack of memory: try fewer --config.data.threads, or "
                "--config.data.decoders=threads)"
            )
        self._launch()


def _is_stopped(pid: int) -> bool:
    """Return True for a process that was stopped by a signal; False where nothing is known."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")


def _packed(work: Work) -> bytes:
    """Return what a decoding process is given first; UserError for what cannot be sent."""
    try:
        return pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as e:  # of parts from outside
        raise UserError(
            f"{work.source.name}: no decoding process can be started ({e}); define the part at the "
            "top level of a module of config.imports, or take --config.data.decoders=threads"
        ) from e


def _fill(work: Work) -> Callable[[Part, Memory], dict[int, int]]:
    """Return decoding.fill of a Part, given its memory."""
    cv2.setNumThreads(1)  # images are in parallel; OpenCV's own threads fight for the cores
    return partial(fill, work.source, augmentations(work.augment), skip=work.skip)


def serve(connection: Connection, file: int, parent: int) -> None:
    """Fill parts of the arrays in `file` until the connection ends, in a decoding process.

    parent: the number of the process that is served, with which this one is to end; 0 leaves that
    to the connection.
    """
    # A scheduler may ask all processes to stop; the main one still has a step to finish then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if parent and (prctl := getattr(ctypes.CDLL(None), "prctl", None)):
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # which ended before it could be told
            return
    try:
        setup = connection.recv_bytes()
        decode = _guarded(lambda: _Filler(file, pickle.loads(setup)))
        while True:
            task = connection.recv()
            connection.send(decode if isinstance(decode, Exception) else _guarded(decode, *task))
    except (EOFError, OSError):
        return


class _Filler:
    """A decoding process' maps of the arrays in `file`, of which it fills parts."""

    def __init__(self, file: int, work: Work):
        self._file, self._work, self._shape = file, work, work.shape
        self._fill = _fill(work)
        self._maps: dict[int, np.ndarray] = {}

    def __call__(
        self, offset: int, at: slice, part: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray | None, dict[int, int]]:
        """Fill a Part; return its labels and landmarks, and decoding.fill's. See Decoders.start."""
        if offset not in self._maps:
            # All page faults now, not one by one between images.
            flags, size = MAP_SHARED | MAP_POPULATE, int(np.prod(self._shape))
            memory = mmap(self._file, size, flags, offset=offset)
            self._maps[offset] = np.frombuffer(memory, np.uint8).reshape(self._shape)
        filled = self._work.memory(self._maps[offset][at])
        replaced = self._fill(Part(*part), filled)
        return filled.labels, filled.landmarks, replaced


def _guarded(work: Callable[..., Any], *given: Any) -> Any:
    """Return the result of work(*given), or the exception to raise in the main process."""
    try:
        return work(*given)
    except UserError as e:
        return e
    except Exception:
        return RuntimeError(f"in a decoding process:\n{traceback.format_exc()}")
