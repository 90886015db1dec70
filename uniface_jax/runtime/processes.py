"""Several processes, one run: how they find one another, agree, and end.

All functions do the obvious thing in a single process.
"""

import errno
import faulthandler
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from uniface_jax.errors import EXIT_BAD_INPUT, EXIT_LOST, UserError, refused

MESSAGE_BYTES = 2000


class AgreedError(UserError):
    """Bad input of one process, for which all have saved the same step and end in good order."""


def initialize(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    heartbeat: int,
) -> None:
    """Join the other processes; before anything else is done with JAX.

    With a coordinator ("host:port" of process 0), all three must be given. Without, JAX looks for
    Slurm, a TPU pod or Open MPI; where it finds none this stays a single process. A process that
    says nothing for `heartbeat` seconds is taken for dead, which ends all. Raises UserError where
    the three do not fit together.
    """
    # When another process dies JAX aborts; the stacks of all threads would bury what it says.
    if faulthandler.is_enabled():
        faulthandler.enable(all_threads=False)
    # For as long, one that ends waits for the others to end.
    join = partial(
        jax.distributed.initialize,
        heartbeat_timeout_seconds=heartbeat,
        shutdown_timeout_seconds=heartbeat,
    )
    given = (coordinator, num_processes, process_id)
    if all(value is None for value in given):
        try:
            join()
        except ValueError as e:
            if "coordinator_address should be defined" not in str(e):
                raise UserError(f"the processes of this job could not be joined: {e}") from e
        return
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError(
            f"--coordinator={coordinator} --num_processes={num_processes} "
            f"--process_id={process_id}: give all three, or none where Slurm, a TPU pod or Open "
            "MPI starts the processes"
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}: must be from 0 to {num_processes - 1}, "
            f"as --num_processes={num_processes}"
        )
    if ":" not in coordinator or not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT of process 0")
    waits_for = (
        f"the {num_processes - 1} others at {coordinator}" if process_id == 0 else coordinator
    )
    bind = _free_address(coordinator) if process_id == 0 else None
    print(f"process {process_id} of {num_processes}: waiting for {waits_for}", flush=True)
    join(coordinator, num_processes, process_id, coordinator_bind_address=bind)


def _free_address(coordinator: str) -> str:
    """Return the address on which process 0 listens: of one interface where it is called by one.

    Whoever reaches the port can join the run or end it. By an IP address, or localhost, this
    machine listens there alone; a name may be another address for each of the others, so that it
    listens on all interfaces. Raises UserError where the port is in use, at which JAX crashes.
    """
    host, _, port = coordinator.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = ipaddress.ip_address(everywhere)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((str(address), int(port)))
    except (OSError, OverflowError) as e:
        if getattr(e, "errno", None) == errno.EADDRNOTAVAIL:  # translated on its way here
            return f"[{everywhere}]:{port}" if ":" in everywhere else f"{everywhere}:{port}"
        reason = getattr(e, "strerror", None) or e
        raise UserError(f"--coordinator={coordinator}: cannot listen there ({reason})") from e
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@contextmanager
def leaving_alone() -> Iterator[None]:
    """End this one of several processes at once where it alone cannot continue.

    That is after bad input, and with EXIT_LOST where a collective fails because another process has
    died. Whatever still waits for the others, a checkpoint in the background or the farewell at
    exit, would wait in vain. A single process sees the exceptions as they are.
    """
    if jax.process_count() == 1:
        yield
        return
    me = f"process {jax.process_index()} of {jax.process_count()}"
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        reason = " ".join(str(e).split())[:300]
        _leave(
            f"stopped: {me} lost another one ({reason}); start all of them again, with the same "
            "command",
            EXIT_LOST,
        )
    except AgreedError as e:
        print(f"error: {me}: {' '.join(str(e).split())}", file=sys.stderr)
        leave_at_once(EXIT_BAD_INPUT)
    except UserError as e:
        _leave(f"error: {me}: {' '.join(str(e).split())}", EXIT_BAD_INPUT)


def _leave(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    _end(status)


def leave_at_once(status: int) -> NoReturn:
    """End this process without waiting for its threads; the other processes are told so."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()
    _end(status)


def _end(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def is_main() -> bool:
    """Return True in the process that writes what is written once."""
    return jax.process_index() == 0


def all_agree(value: bool) -> bool:
    """Return True where `value` is true in every process. Every process must call this."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.asarray(value))))


def barrier(name: str) -> None:
    """Wait until every process has called this with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def on_main(act: Callable[[], None]) -> None:
    """Run `act` in the main process; its UserError is raised in all of them."""
    error = ""
    if is_main():
        try:
            act()
        except UserError as e:
            error = str(e) or "refused"
        except OSError as e:
            error = refused(e)
    if jax.process_count() > 1:
        message = np.zeros(MESSAGE_BYTES, np.uint8)
        encoded = error.encode()[:MESSAGE_BYTES]
        message[: len(encoded)] = list(encoded)
        shared = np.asarray(multihost_utils.broadcast_one_to_all(message), np.uint8)
        error = shared.tobytes().rstrip(b"\0").decode(errors="replace")
    if error:
        raise UserError(error)


def gather_rows(rows: np.ndarray, part: int) -> np.ndarray:
    """Gather the rows [at most part, ...] of all processes in order, each padded to part."""
    if jax.process_count() == 1:
        return rows
    filled = np.zeros((part, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return np.asarray(multihost_utils.process_allgather(filled, tiled=True))
