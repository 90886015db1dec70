"""Silence for what TensorStore says too late, of a save or a read that has failed."""

import logging
import sys
import traceback
from types import TracebackType
from typing import Any

_LATE = "Event loop is closed"
_LIBRARIES = ("orbax", "tensorstore")


def silence() -> None:
    """Let no traceback be printed where TensorStore answers to an event loop of Orbax that is gone.

    It does so, in threads of its own, for every array of which the failure was not the first: the
    failure itself was raised. Whatever else reaches these hooks of Python is passed on.
    """
    logging.getLogger("asyncio").addFilter(_is_not_late)  # once, however often it is added
    if getattr(sys.excepthook, "__module__", "") == __name__:
        return
    printed, ignored = sys.excepthook, sys.unraisablehook

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not _is_late(error, trace):
            printed(kind, error, trace)

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        if not _is_late(found.exc_value, found.exc_traceback):
            ignored(found)

    sys.excepthook, sys.unraisablehook = uncaught, unraisable


def _is_not_late(record: logging.LogRecord) -> bool:
    """Return False for the failure of a task or future of Orbax beside the one that was raised."""
    text = record.getMessage()
    if " exception was never retrieved" not in text:
        return True
    trace = record.exc_info[2] if record.exc_info else None
    places = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    return not any(library in place for place in (text, *places) for library in _LIBRARIES)


def _is_late(error: BaseException | None, trace: TracebackType | None) -> bool:
    """Return True for an answer to a loop that is closed, which no Python code has asked for."""
    if not isinstance(error, RuntimeError) or str(error) != _LATE:
        return False
    return trace is None or trace.tb_frame.f_globals.get("__name__", "").startswith("asyncio")
