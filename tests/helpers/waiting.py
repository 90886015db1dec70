"""Waiting for a process, and what it took; imports next to nothing, for small launchers."""

import contextlib
import os
import select
import signal


def wait(child: int, timeout: float) -> dict:
    """Wait for the leader of a session, which is killed when `timeout` seconds have passed."""
    handle = os.pidfd_open(child)
    try:
        in_time = bool(select.select([handle], [], [], timeout)[0])
    finally:
        os.close(handle)
    if not in_time:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return {
        "returncode": os.waitstatus_to_exitcode(status) if in_time else None,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
