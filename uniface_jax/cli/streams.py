"""Standard output and error that show names from elsewhere as text, whatever is in them."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from absl import logging
from typing_extensions import override

from uniface_jax.files.printable import printable

_KEPT = re.compile(r"([\n\t\r])")  # of lines, tables and progress bars


class _Printable(io.TextIOWrapper):
    """A stream on which no name can move a cursor, set a title or turn the direction of writing."""

    @override
    def write(self, text: str) -> int:
        if not text.isprintable():
            parts = _KEPT.split(text)
            text = "".join(part if _KEPT.fullmatch(part) else printable(part) for part in parts)
        return super().write(text)


def _escaping(stream: io.TextIOWrapper) -> _Printable:
    stream.flush()
    return _Printable(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=bool(stream.line_buffering),
        write_through=stream.write_through,
    )


@contextmanager
def printable_streams() -> Iterator[None]:
    """Escape control characters, and letters that the locale does not have, in what is printed.

    Whoever prints need not think of it: print(), warnings, logging and progress bars. What Python
    could not encode, a name that is not UTF-8 or a letter in an ASCII locale, is escaped too.
    """
    before = out, err = sys.stdout, sys.stderr
    if not (isinstance(out, io.TextIOWrapper) and isinstance(err, io.TextIOWrapper)):
        yield  # closed (None), or of a notebook or a test
        return
    handler = logging.get_absl_handler().python_handler
    made = sys.stdout, sys.stderr = _escaping(out), _escaping(err)
    former, handler.stream = handler.stream, sys.stderr
    try:
        yield
    finally:
        try:
            for stream in made:
                stream.flush()
        finally:
            (sys.stdout, sys.stderr), handler.stream = before, former
            for stream in made:
                stream.detach()  # else it would close the descriptors with itself
