"""Processes that work on tasks and end with this one, whatever ends it.

Each process has a pipe of its own to the main one. When that is gone, even by SIGKILL, the pipe
breaks and the process stops at its next report, so that no orphan keeps writing.
"""

import gc
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from uniface_jax.errors import UserError

Work = Callable[[Any, Callable[[int], None]], Any]  # of a task and a tick; its result


def run(
    work: Work, tasks: Iterable[Any], workers: int, tick: Callable[[int], None]
) -> Iterator[Any]:
    """Yield the results of work(task, tick) for all tasks, as they come, from `workers` processes.

    With one worker everything runs in this process. Tasks are taken from the iterable as processes
    come free. An exception in one, UserError and OSError as they are, ends all; so does closing the
    iterator.

    Args:
        work: a function at the top of a module.
        tasks: what can be pickled.
        workers: processes.
        tick: called here with what the processes report.

    Raises:
        UserError: a process died.
    """
    if workers == 1:
        for task in tasks:
            yield work(task, tick)
        return
    # A fork would copy this process's threads' locks.
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, SpawnProcess] = {}
    try:
        for task in (remaining := iter(tasks)):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, work), daemon=True)
            process.start()
            there.close()
            processes[here] = process
            here.send(task)
            if len(processes) == workers:
                break
        busy = set(processes)
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                kind, value = _answer(connection, processes[connection])
                if kind == "tick":
                    tick(value)
                elif kind == "error":
                    raise value
                else:
                    task = next(remaining, None)
                    if task is None:
                        busy.discard(connection)
                    else:
                        connection.send(task)
                    yield value
    finally:
        for connection, process in processes.items():
            connection.close()
            process.terminate()
        for process in processes.values():
            process.join()


def _answer(connection: Connection, process: SpawnProcess) -> tuple[str, Any]:
    """Return the kind and the value of a process's next message; UserError when it has died."""
    try:
        kind, value = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise UserError(
            f"a worker process died with code {process.exitcode} (-9 is often a lack of memory: "
            "try fewer --workers); the same command resumes"
        ) from None
    return kind, value


def ticking(progress: Any) -> Callable[[int], None]:
    """Return the tick that moves a progress bar."""

    def tick(count: int) -> None:
        progress.update(count)

    return tick


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _serve(connection: Connection, work: Work) -> None:
    """Work on tasks from the pipe until it breaks, in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the main process ends us
    gc.disable()  # the work makes many objects and no cycles: looking for them took a third

    def tick(count: int) -> None:
        try:
            connection.send(("tick", count))
        except OSError as e:
            raise SystemExit from e

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer = "done", work(task, tick)
        except (UserError, OSError) as e:
            answer = "error", e
        except Exception:
            answer = "error", RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except OSError:
            return
