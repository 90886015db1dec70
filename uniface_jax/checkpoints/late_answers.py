"""Silence for what TensorStore says too late, of a save or a read that has failed."""

import logging
import sys
from typing import Any

_LATE = "Event loop is closed"


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
        if not _is_late(error):
            printed(kind, error, trace)

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        if not _is_late(found.exc_value):
            ignored(found)

    sys.excepthook, sys.unraisablehook = uncaught, unraisable


def _is_not_late(record: logging.LogRecord) -> bool:
    # Of tasks beside the one whose failure was raised.
    return " exception was never retrieved" not in record.getMessage()


def _is_late(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == _LATE
