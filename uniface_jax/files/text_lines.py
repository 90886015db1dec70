"""Text files: large ones of fields between blanks, and lists in any encoding; errors name lines."""

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from uniface_jax.errors import UserError
from uniface_jax.files.reading import NotRegularError, open_regular

BLOCK_BYTES = 1 << 24
MAX_LINE_BYTES = 4096
MAX_LISTED_BYTES = 8192  # of a line that names files


def blocks(file: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield pieces of the file: (number of the first line, whole lines, each with its newline).

    Memory is bounded by BLOCK_BYTES; a progress bar is shown on a terminal.

    Raises:
        UserError: the file cannot be read, or has a line of MAX_LINE_BYTES; the message says where.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "pairs.txt").write_text("1 2\n3 4")
        ...     list(blocks(Path(folder) / "pairs.txt"))
        [(1, b'1 2\n3 4\n')]
    """
    number = 1
    try:
        with open_regular(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            shown = sys.stderr.isatty() and size > BLOCK_BYTES
            bar = tqdm(total=size, desc=file.name, unit="B", unit_scale=True, disable=not shown)
            with bar:
                while block := opened.read(BLOCK_BYTES):
                    if not block.endswith(b"\n"):
                        rest = opened.readline(MAX_LINE_BYTES)
                        if len(rest) == MAX_LINE_BYTES:
                            raise UserError(
                                f"{file}: a line of {MAX_LINE_BYTES} bytes or more after line "
                                f"{number}"
                            )
                        block += rest
                    bar.update(len(block))
                    yield number, block if block.endswith(b"\n") else block + b"\n"
                    number += block.count(b"\n")
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e


def parsed(
    file: Path, start: int, block: bytes, parse: Callable[[bytes], np.ndarray], wanted: str
) -> np.ndarray:
    """Return parse(block); where it refuses, name the first line that it refuses.

    Args:
        file: named in the error.
        start: the number of the block's first line.
        block: whole lines, each ended by a newline.
        parse: raises ValueError or OverflowError for lines of another form, each on its own.
        wanted: the form, for the error.

    Raises:
        UserError: `parse` refuses the block.
    """
    try:
        return parse(block)
    except (ValueError, OverflowError) as refused:
        lines = [line + b"\n" for line in block.removesuffix(b"\n").split(b"\n")]
        good, bad = 0, len(lines)  # lines[:good] are well, lines[:bad] are not
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                parse(b"".join(lines[good:middle]))
                good = middle
            except (ValueError, OverflowError):
                bad = middle
        line = lines[good].decode("utf-8", "replace").strip()
        raise UserError(
            f"{file}: line {start + good}: {line[:80]!r}; expected {wanted}"
        ) from refused


def text_lines(block: bytes) -> list[str]:
    """Return the lines of a block; bytes that are no UTF-8 are replaced."""
    return block.decode("utf-8", "replace").removesuffix("\n").split("\n")


def integers(block: bytes, columns: int) -> np.ndarray:
    r"""Return the numbers of a block: non-negative int32 [lines, columns].

    Raises:
        ValueError: a line is another one, or empty.

    Example:
        >>> integers(b"1 2\n3 4\n", columns=2).tolist()
        [[1, 2], [3, 4]]
    """
    # The C reader of loadtxt, fed bytes, reads ten million lines a second; it skips empty lines.
    if not block.strip():
        raise ValueError("empty lines")
    rows = np.loadtxt(io.BytesIO(block), np.int32, comments=None, ndmin=2, encoding="latin-1")
    if rows.shape != (block.count(b"\n"), columns) or np.min(rows) < 0:
        raise ValueError("other lines")
    return rows


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    r"""Yield the number and the text of each line of a list that a person or a tool has written.

    Windows' line ends and byte order marks (UTF-8, UTF-16) are taken off. Bytes that are no UTF-8
    are kept as os.fsdecode keeps those of file names, so that they name the same file.

    Raises:
        UserError: the file is no regular file, cannot be read, has a line of MAX_LISTED_BYTES, a
            NUL or odd UTF-16; the message names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "list.txt").write_bytes(b"\xef\xbb\xbfa.png 1\r\nb.png 2\r\n")
        ...     list(numbered_lines(Path(folder) / "list.txt"))
        [(1, 'a.png 1'), (2, 'b.png 2')]
    """
    number = 0
    try:
        with open_regular(file) as opened:
            mark = opened.read(2)
            utf16 = mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            opened.seek(0)
            encoding, errors = ("utf-16", "strict") if utf16 else ("utf-8-sig", "surrogateescape")
            text = io.TextIOWrapper(opened, encoding=encoding, errors=errors, newline=None)
            while line := text.readline(MAX_LISTED_BYTES):
                number += 1
                if len(line) == MAX_LISTED_BYTES:
                    raise UserError(f"{file}: line {number}: longer than {MAX_LISTED_BYTES} bytes")
                if "\0" in line:
                    raise UserError(f"{file}: line {number}: a NUL byte; expected a list as text")
                yield number, line.rstrip("\n")
    except NotRegularError as e:
        raise UserError(f"{file}: not a file; expected a list as text") from e
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from e
    except UnicodeError as e:
        raise UserError(f"{file}: line {number + 1}: not the text that its mark says ({e})") from e
