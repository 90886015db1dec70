"""The kernels of uniface_jax/native in a program of their own, compiled for any processor.

tests/native/driver.cc has them without jaxlib, and runs under qemu-user where this machine is
another. Inside `in_place_of_the_library` the package's own functions call them, with what those
know of shapes, scratch memory and the width of vectors.
"""

import ctypes
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.helpers.paths import ROOT
from uniface_jax.native import build, nearest

NATIVE = ROOT / "uniface_jax" / "native"
TYPES = {"float32": "f32", "int32": "s32", "bool": "pred"}
COMPILING_SECONDS = 300
THREADS = 3


def compiled(command: Sequence[str], folder: Path) -> Path:
    """Compile the driver by a compiler with its options, as build.py does but for those."""
    (folder / "kernels.inc").write_text(_kernels())
    made = folder / "driver"
    done = subprocess.run(
        [
            *command, "-std=c++17", "-ffp-contract=fast", "-pthread", "-isystem",
            jax.ffi.include_dir(), "-I", NATIVE, "-I", folder,
            ROOT / "tests" / "native" / "driver.cc", "-o", made,
        ],
        capture_output=True, text=True, timeout=COMPILING_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return made


def _kernels() -> str:
    """Return all sources as one, and tables of their functions.

    XLA's headers and the inner loops are compiled once for all, which takes a third of the time.
    What a source has for itself lies in a namespace of its own, beside that of the headers; those
    that are in no namespace come last.
    """
    texts = {name: (NATIVE / name).read_text() for name in build.SOURCES}
    in_order = sorted(texts, key=lambda name: "namespace uniface" not in texts[name])
    lines = [f'#include "{name}"' for name in build.HEADERS]
    handlers, scratches = {}, {}
    for number, name in enumerate(in_order):
        own = f"uniface_{number}"
        lines += [f"namespace {own} {{ using namespace uniface; }}", f"#define uniface {own}"]
        lines += [f'#include "{name}"', "#undef uniface"]
        for found, pattern in (
            (handlers, r"XLA_FFI_DEFINE_HANDLER_SYMBOL\(\s*(\w+)"),
            (scratches, r'extern "C" int64_t (\w+Scratch)\('),
        ):
            found.update({of: f"{own}::{of}" for of in re.findall(pattern, texts[name])})
    assert {*handlers} == {*build.TARGETS.values()}
    lines.append("const std::map<std::string, XLA_FFI_Handler*> kHandlers = {")
    lines += [f'  {{"{name}", {function}}},' for name, function in handlers.items()]
    lines.append("};\nconst std::map<std::string, Scratch> kScratches = {")
    lines += [f'  {{"{name}", ScratchBy({function})}},' for name, function in scratches.items()]
    return "\n".join([*lines, "};", ""])


class Driver:
    """A running driver, which answers one request after the other."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.called: set[str] = set()
        self.threads = THREADS

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes both pipes, at which the driver ends, and waits for it
            pass
        status = self._process.returncode
        assert status == 0, f"the driver ended with status {status}"

    def asked(self, line: str, *arrays: np.ndarray) -> list[str]:
        """Send a request; return the words of the answer. Raises RuntimeError for an error."""
        sent = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        self._process.stdin.write(line.encode() + b"\n" + sent)
        self._process.stdin.flush()
        answer = self._process.stdout.readline().decode().split()
        if not answer:
            raise AssertionError(f"the driver ended at {line}: status {self._process.wait()}")
        if answer[0] == "error":
            raise RuntimeError(" ".join(answer[1:]))
        return answer[1:]

    def received(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Read an array that follows an answer."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(self._process.stdout.read(count), dtype).reshape(shape)

    def width(self) -> int:
        """Return the floats of a vector."""
        return int(self.asked("width")[0])

    def exponentials(self, values: np.ndarray) -> np.ndarray:
        """Return exp(-values) by exponential.h, float32."""
        padded = np.pad(values, (0, -len(values) % 16))
        self.asked(f"exp {len(padded)}", padded)
        return self.received(padded.shape, np.float32)[: len(values)]

    def ffi_call(self, name: str, results: Any, **_: Any) -> Callable[..., Any]:
        """Stand in for jax.ffi.ffi_call, of arrays that are there."""
        function = build.TARGETS[name]

        def run(*arrays: Any, **attributes: Any) -> list[np.ndarray]:
            given = [np.asarray(array) for array in arrays]
            words = ["call", function, str(self.threads)]
            for kind, of_kind in (("arg", given), ("ret", results)):
                for array in of_kind:
                    sizes = " ".join(map(str, (len(array.shape), *array.shape)))
                    words.append(f"{kind} {TYPES[np.dtype(array.dtype).name]} {sizes}")
            for key, value in sorted(attributes.items()):
                is_float = isinstance(value, np.floating)
                number = float(value).hex() if is_float else int(value)
                words.append(f"attr {'f32' if is_float else 's32'} {key} {number}")
            self.asked(" ".join(words), *given)
            self.called.add(function)
            return [self.received(result.shape, result.dtype) for result in results]

        return run


class _Library:
    """Functions of the driver that callers look for in a ctypes.CDLL."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Callable[..., int]:
        def scratch(*sizes: ctypes.c_int64) -> int:
            return int(self._driver.asked(f"scratch {name} {_words(s.value for s in sizes)}")[0])

        by_name = {"UnifaceVectorWidth": self._driver.width, "UnifaceNearestOfCodes": self._nearest}
        function = by_name.get(name, scratch)
        return lambda *arguments: function(*arguments)  # with attributes, as ctypes' have

    def _nearest(self, address: int, begin: int, end: int) -> int:
        """Go over blocks as nearest.cc does, with arrays at the addresses of its struct."""
        n = nearest._Arguments.from_address(address)
        count, k, width = n.query_count, n.k, 4 * n.groups
        padded = end * nearest.BLOCK_ROWS

        def array(of: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            memory = (ctypes.c_char * size).from_address(getattr(n, of))
            return np.frombuffer(memory, dtype).reshape(shape)

        best = array("best", (count, k), np.float32)
        capacity = n.capacity - n.found
        next_block, found = map(int, self._driver.asked(
            f"nearest {_words((n.groups, count, k, capacity, end, begin, end))}",
            array("codes", (padded, width), np.uint8),
            *(array(of, (padded,), np.float32) for of in ("scales", "errors")),
            array("queries", (count, width), np.int8), array("sums", (count,), np.int32),
            *(array(of, (count,), np.float32) for of in ("query_scales", "by_error", "beyond")),
            best,
        ))  # fmt: skip
        best[:] = self._driver.received((count, k), np.float32)
        for of, dtype in (
            ("found_queries", np.int32), ("found_rows", np.int64), ("found_bounds", np.float32)
        ):  # fmt: skip
            room = array(of, (n.capacity,), dtype)
            room[n.found : n.found + found] = self._driver.received((found,), dtype)
        n.found += found
        return next_block


def _words(numbers: Any) -> str:
    return " ".join(map(str, numbers))


@contextmanager
def in_place_of_the_library(driver: Driver) -> Iterator[None]:
    """Let the functions of uniface_jax.native call the driver's kernels, outside of jit."""
    library, width = _Library(driver), driver.width()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "library", lambda: library)
        patch.setattr(build, "vector_width", lambda: width)
        patch.setattr(jax.ffi, "ffi_call", driver.ffi_call)
        yield
