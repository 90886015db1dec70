"""Who fills batches: threads of this process, or processes that write into its memory.

Threads take turns in everything that Python does, so that their number brings less and less;
processes do not, but each takes half a second to start, opens the source itself and holds some
60 MB. They are programs of their own, neither forks (JAX has threads) nor multiprocessing's (which
imports the main script again), in a session of their own, so that Ctrl-C does not reach them. Each
hangs on a socket to the thread that gives it work and ends when that is gone, even by SIGKILL.
"""

import pickle
import queue
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from mmap import MAP_POPULATE, MAP_SHARED, mmap
from multiprocessing.connection import Connection
from typing import Any, Protocol

import cv2
import numpy as np

from uniface_jax.data.augment import Augment, augmentations
from uniface_jax.data.buffers import Buffers, SharedBuffers
from uniface_jax.data.decoding import Part, fill
from uniface_jax.data.items import Source
from uniface_jax.errors import UserError

_PROGRAM = """
import sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
from uniface_jax.data.decoders import serve
serve(connection, int(sys.argv[2]))
"""


class Decoders(Protocol):
    """Memory for batches, and what fills it; fill() is called by several threads at a time."""

    @property
    def buffers(self) -> Buffers:
        """Gives arrays for batches; called by one thread."""

    def fill(self, part: Part, batch: np.ndarray, labels: np.ndarray, where: slice) -> None:
        """As decoding.fill, `where` of an array of `buffers` and of its labels."""

    def close(self) -> None:
        """Ends the processes, at once."""


class Here:
    """Decodes in the thread that calls."""

    def __init__(self, source: Source, config: Augment, shape: tuple[int, ...]):
        self.buffers = Buffers(shape)
        self._source, self._functions = source, augmentations(config)
        cv2.setNumThreads(1)  # images are in parallel; OpenCV's own threads fight for the cores

    def fill(self, part: Part, batch: np.ndarray, labels: np.ndarray, where: slice) -> None:
        """See Decoders."""
        fill(self._source, part, self._functions, batch[where], labels[where])

    def close(self) -> None:
        """See Decoders."""


class Processes:
    """Gives the work of each of `count` threads to a process."""

    def __init__(self, source: Source, config: Augment, shape: tuple[int, ...], count: int):
        self._shape = shape
        self.buffers = SharedBuffers(shape)
        self._processes: list[subprocess.Popen] = []
        self._idle: queue.SimpleQueue[tuple[subprocess.Popen, Connection]] = queue.SimpleQueue()
        setup = pickle.dumps((source, config, shape))
        for _ in range(count):
            here, there = socket.socketpair()
            connection = Connection(here.detach())
            with there:
                process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, str(there.fileno()), str(self.buffers.file)],
                    pass_fds=(there.fileno(), self.buffers.file),
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            self._processes.append(process)
            connection.send(sys.path)
            connection.send_bytes(setup)
            self._idle.put((process, connection))

    def fill(self, part: Part, batch: np.ndarray, labels: np.ndarray, where: slice) -> None:
        """See Decoders. Raises UserError when the process has died."""
        process, connection = self._idle.get()
        try:
            connection.send((self.buffers.offset(batch), where, tuple(part)))
            answer = connection.recv()
        except (EOFError, OSError):
            raise UserError(
                f"a decoding process died with code {process.wait()} (-9 is often a lack of "
                "memory: try fewer --config.data.threads, or --config.data.decoders=threads)"
            ) from None
        finally:
            self._idle.put((process, connection))
        if isinstance(answer, Exception):
            raise answer
        labels[where] = answer

    def close(self) -> None:
        """See Decoders."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self.buffers.close()


def serve(connection: Connection, file: int) -> None:
    """A decoding process: fills parts of the arrays in `file` until the connection ends."""
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
    """Fills parts of the arrays in `file`, in a decoding process."""

    def __init__(self, file: int, source: Source, config: Augment, shape: tuple[int, ...]):
        self._file, self._shape = file, shape
        self._here = Here(source, config, shape)
        self._maps: dict[int, np.ndarray] = {}

    def __call__(self, offset: int, where: slice, part: Sequence[np.ndarray]) -> np.ndarray:
        """The labels, int32 [K], of a Part; see Decoders.fill."""
        if offset not in self._maps:
            # All page faults now, not one by one between images.
            flags, size = MAP_SHARED | MAP_POPULATE, int(np.prod(self._shape))
            memory = mmap(self._file, size, flags, offset=offset)
            self._maps[offset] = np.frombuffer(memory, np.uint8).reshape(self._shape)
        labels = np.empty(self._shape[0], np.int32)
        self._here.fill(Part(*part), self._maps[offset], labels, where)
        return labels[where]


def _guarded(work: Callable[..., Any], *given: Any) -> Any:
    """The result of work(*given), or the exception to raise in the main process."""
    try:
        return work(*given)
    except UserError as e:
        return e
    except Exception:
        return RuntimeError(f"in a decoding process:\n{traceback.format_exc()}")
