"""Silence for what TensorStore says too late, of a save or a read that has failed."""

import logging
import sys
import traceback
from types import TracebackType
from typing import Any

_LATE = "Event loop is closed"
_LIBRARIES = ("orbax", "tensorstore")


def silence() -> None:
    """Let no traceback be printed of arrays beside the one whose failure Orbax has raised.

    For each of them TensorStore answers, in threads of its own, to an event loop that is gone, and
    Orbax raises once more where Python throws the unfinished read away. Whatever else reaches these
    hooks of Python is passed on.
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
    return not _of_libraries(record.exc_info[2] if record.exc_info else None, text)


def _of_libraries(trace: TracebackType | None, *texts: str) -> bool:
    """Return True where Orbax or TensorStore is among `texts` or the files that `trace` is from."""
    places = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    return any(library in place for place in (*texts, *places) for library in _LIBRARIES)


def _is_late(error: BaseException | None, trace: TracebackType | None) -> bool:
    """Return True for what no code asked for: an answer to a closed loop, a read thrown away."""
    if error is not None and isinstance(error.__cause__, GeneratorExit):
        return _of_libraries(trace)
    if not isinstance(error, RuntimeError) or str(error) != _LATE:
        return False
    return trace is None or trace.tb_frame.f_globals.get("__name__", "").startswith("asyncio")
