"""Verification pickles read as data: no constructor, no import, no callable is ever reached.

Python's own unpickler calls whatever a file names, and even a restricted one takes the memory that
a file declares. Here pickletools (the standard library's disassembler, which runs nothing) splits
the file into opcodes, and a small stack machine gives meaning to those that lists of bytes and
booleans need. Lengths are bounded by the file, since opcodes are read through a memory map.
Besides lists, tuples, text, numbers and booleans, exactly three calls are understood, by name:
    _codecs.encode(text, "latin1")                        bytes, as Python 3 writes them for 2
    numpy.dtype("u1", …), then its state                  the type uint8
    numpy.core.multiarray._reconstruct(ndarray, …), then its state     a uint8 array: its bytes
"""

import mmap
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError

_ENCODE = "_codecs.encode"
_NDARRAY = "numpy.ndarray"
_DTYPE = "numpy.dtype"
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_GLOBALS = frozenset((_ENCODE, _NDARRAY, _DTYPE, *_RECONSTRUCT))

_CONSTANTS: dict[str, Any] = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None, "EMPTY_TUPLE": ()}
_LATIN1 = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))  # Python 2's str: bytes
_LITERALS = frozenset(
    ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE")
) | frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG1"))
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Global(str):
    """A global's name, as the pickle gives it; never looked up."""


class _Array:
    """A numpy array or dtype under construction; `content` is the array's bytes once known."""

    def __init__(self, kind: str):
        self.kind = kind
        self.content: bytes | None = None


_MARK = object()


class _RefusedError(Exception):
    """A thing in the pickle that is not allowed; the message says which."""


def load(path: Path) -> Any:
    """Return the object in the pickle at `path`: lists and tuples of bytes, str, int, bool, None.

    uint8 numpy arrays come back as an object of which `content` gives the bytes. A hostile file may
    nest values so that printing or comparing them takes for ever: check types first. Takes memory
    in proportion to the file, whatever the file declares.

    Raises:
        UserError: the pickle holds anything else, of which a global is named, or is truncated or
            corrupt.

    Example:
        >>> import pickle, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "pairs.bin"
        ...     _ = file.write_bytes(pickle.dumps(([b"an image"], [True])))
        ...     load(file)
        ([b'an image'], [True])
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Machine(len(data)).run(data)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    except _RefusedError as e:
        raise UserError(f"{path}: refused, the pickle holds {e}") from e
    except MemoryError:
        raise
    except Exception as e:  # an empty file, and every way in which opcodes can be malformed
        raise UserError(
            f"{path}: not a pickle, or a truncated one ({str(e)[:100] or type(e).__name__})"
        ) from e


class _Machine:
    """A stack machine; `room` bounds what calls may add up to, by the size of the file."""

    def __init__(self, room: int):
        self.room = room

    def run(self, data: mmap.mmap) -> Any:
        """Return the object that the opcodes in `data` build."""
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        for opcode, argument, position in _opcodes(data):
            name = opcode.name
            if name in _LITERALS:
                stack.append(argument)
            elif name in _LATIN1:
                stack.append(argument.encode("latin-1"))
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _PUT:
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in _GET:
                stack.append(memo[argument])
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "LIST":
                stack.append(_pop_to_mark(stack))
            elif name in ("APPEND", "APPENDS"):
                values = [stack.pop()] if name == "APPEND" else _pop_to_mark(stack)
                if not isinstance(stack[-1], list):
                    raise _RefusedError(
                        f"an append to a {type(stack[-1]).__name__} at byte {position}"
                    )
                stack[-1].extend(values)
            elif name in _TUPLES:
                count = _TUPLES[name]
                stack[-count:] = [tuple(stack[-count:])]
            elif name == "TUPLE":
                stack.append(tuple(_pop_to_mark(stack)))
            elif name == "GLOBAL":
                stack.append(_global(*argument.split(" ", 1)))
            elif name == "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_global(module, attribute))
            elif name == "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self.call(function, arguments))
            elif name == "BUILD":
                state = stack.pop()
                _set_state(stack[-1], state)
            elif name == "STOP":
                return stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise _RefusedError(f"the opcode {name} at byte {position}")
        raise _RefusedError("no end")

    def call(self, function: Any, arguments: Any) -> Any:
        """Return the result of one of the three calls that are understood."""
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _RefusedError(f"a call of a {type(function).__name__}")
        if function == _ENCODE and len(arguments) == 2:
            text, encoding = arguments
            if isinstance(text, str) and encoding in ("latin1", "latin-1"):
                self.room -= len(text)  # one long text encoded again and again would fill memory
                if self.room < 0:
                    raise _RefusedError("more text to encode than the file is long")
                return text.encode("latin-1")
        if function == _DTYPE and arguments and arguments[0] in ("u1", "|u1", b"u1", b"|u1"):
            return _Array("dtype")
        if function in _RECONSTRUCT and arguments and arguments[0] == _NDARRAY:
            return _Array("array")
        raise _RefusedError(f"a call of {function} with arguments that are not an image's")


def _opcodes(data: Any) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """Yield the opcodes in a memory map, which has the two methods of a file that genops needs."""
    yield from pickletools.genops(data)


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    """Remove the values above the topmost mark, and the mark; return the values."""
    start = len(stack) - 1
    while stack[start] is not _MARK:
        start -= 1
        if start < 0:
            raise _RefusedError("a list without its beginning")
    values = stack[start + 1 :]
    del stack[start:]
    return values


def _global(module: Any, attribute: Any) -> _Global:
    """Return a global of the known ones."""
    if not isinstance(module, str) or not isinstance(attribute, str):
        raise _RefusedError("a global whose name is not text")
    name = f"{module}.{attribute}"
    if name not in _GLOBALS:
        raise _RefusedError(f"the global {name[:200]!r}, which only a program would need")
    return _Global(name)


def _set_state(target: Any, state: Any) -> None:
    """Set a state as numpy does for uint8: (version, shape, dtype, fortran order, bytes)."""
    if not isinstance(target, _Array):
        raise _RefusedError(f"a state for a {type(target).__name__}")
    if target.kind == "dtype":
        return  # byte order and alignment, which a type of one byte does not have
    try:
        _, shape, dtype, _, content = state
        is_bytes = isinstance(dtype, _Array) and dtype.kind == "dtype"
        valid = is_bytes and isinstance(content, bytes) and shape == (len(content),)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise _RefusedError("a numpy array that is not one row of uint8")
    target.content = content


def content(value: Any) -> Any:
    """Return the bytes of a uint8 array; any other value as it is."""
    return value.content if isinstance(value, _Array) else value
