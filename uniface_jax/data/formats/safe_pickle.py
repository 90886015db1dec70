"""Verification pickles read as data: no constructor, no import, no callable is ever reached.

Python's own unpickler calls whatever a file names, and even a restricted one takes the memory that
a file declares. Here pickletools (the standard library's disassembler, which runs nothing) splits
the file into opcodes, and a small stack machine gives meaning to those that lists of bytes and
booleans need. Lengths are bounded by the file, since opcodes are read through a memory map.
Besides lists, tuples, text, numbers and booleans, exactly five calls are understood, by name:
    _codecs.encode(text, "latin1")                        bytes, as Python 3 writes them for 2
    numpy.dtype("u1", …), then its state                  the type of bytes, booleans or integers
    numpy.core.multiarray._reconstruct(ndarray, …), then its state     an array of such a type
    numpy.core.numeric._frombuffer(bytes, dtype, shape, order)         the same, of protocol 5
    numpy.core.multiarray.scalar(dtype, bytes)            a boolean or an integer
"""

import io
import lzma
import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from uniface_jax.errors import UserError
from uniface_jax.files.reading import open_regular

_ENCODE = "_codecs.encode"
_NDARRAY = "numpy.ndarray"
_DTYPE = "numpy.dtype"
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_GLOBALS = frozenset((_ENCODE, _NDARRAY, _DTYPE, *_RECONSTRUCT, *_FROM_BUFFER, *_SCALAR))
_ITEM_BYTES = {"b1": 1, **{f"{kind}{size}": size for kind in "iu" for size in (1, 2, 4, 8)}}

XZ_MAGIC = b"\xfd7zXZ\0"
# In a set the same image stands in many pairs, so that xz makes it a few times smaller.
_MAX_EXPANSION, _MIN_UNPACKED_BYTES = 50, 1 << 20
_MAX_DICTIONARY_BYTES = 1 << 27  # of `xz -9` twice
_CHUNK_BYTES = 1 << 20
# What is given to a stream and lies behind it is copied: little of it, for not too many streams.
_GIVEN_BYTES, _MAX_STREAMS = 1 << 16, 1 << 12
_PADDING = re.compile(rb"\0*")  # behind a stream

_CONSTANTS: dict[str, Any] = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None, "EMPTY_TUPLE": ()}
_LATIN1 = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))  # Python 2's str: bytes
_LITERALS = frozenset(
    (
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "UNICODE",
    )
) | frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG1"))
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Global(str):
    """A global's name, as the pickle gives it; never looked up."""


class _Array:
    """Array or dtype of numpy under construction.

    Attributes:
        kind: "array" or "dtype".
        code: of the type, a key of _ITEM_BYTES, once known.
        order: "little" or "big", of the bytes of an item.
        content: the array's bytes once known.
    """

    def __init__(self, kind: str, code: str = ""):
        self.kind, self.code = kind, code
        self.order: Literal["little", "big"] = "little"
        self.content: bytes | None = None

    def fill(self, shape: Any, dtype: Any, content: Any) -> bool:
        """Set type and content where they are of one row or column; return False otherwise."""
        if not (isinstance(dtype, _Array) and dtype.kind == "dtype"):
            return False
        if not isinstance(content, bytes | bytearray) or not isinstance(shape, tuple):
            return False
        if not 1 <= len(shape) <= 2 or any(type(size) is not int for size in shape):
            return False
        count = len(content) // _ITEM_BYTES[dtype.code]
        if shape not in ((count,), (count, 1), (1, count)):
            return False
        if count * _ITEM_BYTES[dtype.code] != len(content):
            return False
        self.code, self.order, self.content = dtype.code, dtype.order, bytes(content)
        return True

    def numbers(self) -> list[int]:
        """Return the items of an array; those that are not 0 are True where it has booleans."""
        content = self.content or b""
        size = _ITEM_BYTES[self.code]
        items = (content[place : place + size] for place in range(0, len(content), size))
        signed = self.code.startswith("i")
        found = [int.from_bytes(item, self.order, signed=signed) for item in items]
        return [bool(number) for number in found] if self.code == "b1" else found


_MARK = object()


class _RefusedError(Exception):
    """A thing in the pickle that is not allowed; the message says which."""


def load(path: Path) -> Any:
    """Return the object in the pickle at `path`: lists and tuples of bytes, str, int, bool, None.

    The file may be packed by xz.
    Numpy arrays come back as objects of which `content` gives the bytes, `items` the numbers. A
    hostile file may nest values so that printing or comparing them takes for ever: check types
    first. Takes memory in proportion to the file, whatever the file declares.

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
        # Read, not mapped: a file that is cut short meanwhile must be no signal (SIGBUS).
        with open_regular(path) as file:
            content = file.read()
        if content.startswith(XZ_MAGIC):
            content = _unpacked(content)
        return _Machine(len(content)).run(io.BytesIO(content))
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


def _unpacked(content: bytes) -> bytes:
    """Return what a file of xz holds; refused where that is far more than pairs of images need."""
    most = _MIN_UNPACKED_BYTES + _MAX_EXPANSION * len(content)
    pieces, size, at, streams = [], 0, 0, 0
    while at < len(content):  # one stream after another, as lzma.open reads them
        streams += 1
        if streams > _MAX_STREAMS:
            raise _RefusedError(f"more than {_MAX_STREAMS} streams of xz")
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DICTIONARY_BYTES)
        while not unpacker.eof:
            given = content[at : at + _GIVEN_BYTES] if unpacker.needs_input else b""
            if unpacker.needs_input and not given:
                raise EOFError("xz that is cut short")
            at += len(given)
            piece = unpacker.decompress(given, _CHUNK_BYTES)
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise _RefusedError(f"more than {most} bytes in {len(content)} of xz")
        at -= len(unpacker.unused_data)
        padding = _PADDING.match(content, at)
        at = padding.end() if padding else at
    return b"".join(pieces)


class _Machine:
    """A stack machine; `room` bounds what calls may add up to, by the size of the file."""

    def __init__(self, room: int):
        self.room = room

    def run(self, data: io.BytesIO) -> Any:
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
        """Return the result of one of the calls that are understood."""
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _RefusedError(f"a call of a {type(function).__name__}")
        if function == _ENCODE and len(arguments) == 2:
            text, encoding = arguments
            if isinstance(text, str) and encoding in ("latin1", "latin-1"):
                self.room -= len(text)  # one long text encoded again and again would fill memory
                if self.room < 0:
                    raise _RefusedError("more text to encode than the file is long")
                return text.encode("latin-1")
        if function == _DTYPE and arguments and isinstance(arguments[0], str | bytes):
            code = arguments[0]
            code = (code.decode("latin-1") if isinstance(code, bytes) else code).lstrip("|")
            if code in _ITEM_BYTES:
                return _Array("dtype", code)
        if function in _FROM_BUFFER and len(arguments) == 4:
            content, dtype, shape, _ = arguments
            array = _Array("array")
            if array.fill(shape, dtype, content):
                return array
        if function in _SCALAR and len(arguments) == 2:
            array = _Array("array")
            if array.fill((1,), *arguments):
                return array.numbers()[0]
        if function in _RECONSTRUCT and arguments and arguments[0] == _NDARRAY:
            return _Array("array")
        raise _RefusedError(f"a call of {function} with arguments that are not an image's")


def _opcodes(data: Any) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """Yield the opcodes in a file."""
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
    """Set a state as numpy does: (version, shape, dtype, fortran order, bytes) of an array."""
    if not isinstance(target, _Array):
        raise _RefusedError(f"a state for a {type(target).__name__}")
    if target.kind == "dtype":
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if isinstance(order, str | bytes) and order in (">", b">"):
            target.order = "big"
        return
    if not (isinstance(state, tuple) and len(state) == 5 and target.fill(*state[1:3], state[4])):
        raise _RefusedError("a numpy array that is not one row of bytes, booleans or integers")


def content(value: Any) -> Any:
    """Return the bytes of a uint8 array or a bytearray; any other value as it is."""
    if isinstance(value, bytearray):
        return bytes(value)
    return value.content if isinstance(value, _Array) and value.code == "u1" else value


def items(value: Any) -> Any:
    """Return the list of what a list, a tuple or an array holds; any other value as it is."""
    if isinstance(value, _Array) and value.content is not None:
        return value.numbers()
    return list(value) if isinstance(value, tuple) else value
