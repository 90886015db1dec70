"""Compiles the kernels for this machine, keeps them, and makes them known to XLA.

The library lies beside JAX's compiled programs, under a name made from the sources, jaxlib's
headers, the compiler, its options and the kind of machine, and is compiled again when any of these
changes. Without a compiler, with UNIFACE_NATIVE=0, or on a backend other than the CPU there are no
kernels.
"""

import ctypes
import errno
import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import jax

from uniface_jax.files.reading import read_regular
from uniface_jax.files.writing import open_again
from uniface_jax.runtime.compilation_cache import default_folder
from uniface_jax.runtime.ownership import make_private, reason_for_distrust

SOURCES = (
    "cross_entropy_head.cc", "convolution.cc", "winograd.cc", "depthwise.cc", "attention.cc",
    "batch_norm.cc", "nearest.cc", "fused_convolution.cc", "vectors.cc",
)  # fmt: skip
HEADERS = ("outer_products.h", "exponential.h", "tasks.h", "maps.h", "winograd.h")
TARGETS = {  # the name that programs call: the function of the library
    "uniface_cross_entropy_head": "UnifaceCrossEntropyHead",
    "uniface_convolution": "UnifaceConvolution",
    "uniface_input_gradient": "UnifaceInputGradient",
    "uniface_kernel_gradient": "UnifaceKernelGradient",
    "uniface_fused_convolution": "UnifaceFusedConvolution",
    "uniface_fused_grouped": "UnifaceFusedGrouped",
    "uniface_depthwise": "UnifaceDepthwise",
    "uniface_depthwise_input_gradient": "UnifaceDepthwiseInputGradient",
    "uniface_depthwise_kernel_gradient": "UnifaceDepthwiseKernelGradient",
    "uniface_attention": "UnifaceAttention",
    "uniface_attention_gradient": "UnifaceAttentionGradient",
    "uniface_batch_norm": "UnifaceBatchNorm",
    "uniface_batch_norm_gradient": "UnifaceBatchNormGradient",
    "uniface_winograd": "UnifaceWinograd",
    "uniface_winograd_kernel_gradient": "UnifaceWinogradKernelGradient",
}
COMPILERS = ("c++", "g++", "clang++")
SWITCH = "UNIFACE_NATIVE"
TIMEOUT_SECONDS = 300.0
_DIGEST_BYTES = 32

_off: ContextVar[bool] = ContextVar("native_off", default=False)
_log = logging.getLogger(__name__)


@contextmanager
def off() -> Iterator[None]:
    """Leave the kernels out of programs traced in this block, for other devices and comparisons."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def available() -> bool:
    """Return True where programs of this process's backend may call the kernels; may compile."""
    return not _off.get() and jax.default_backend() == "cpu" and library() is not None


@cache
def vector_width() -> int:
    """Return the floats of a vector, by which channels must divide; 0 without kernels."""
    kernels = library()
    return int(kernels.UnifaceVectorWidth()) if kernels else 0


def scratch(function: str, *sizes: int) -> int:
    """Return the floats of scratch memory that a kernel needs, by the library's own function."""
    kernels = library()
    assert kernels, "asked for without available()"
    of_library = getattr(kernels, function)
    of_library.restype = ctypes.c_int64
    return int(of_library(*map(ctypes.c_int64, sizes)))


@cache
def library() -> ctypes.CDLL | None:
    """Load the kernels and register them with XLA; None, with the reason in the log, without."""
    if os.environ.get(SWITCH) == "0":
        return None
    asked_for = shlex.split(os.environ.get("CXX", ""))  # maybe with options, or behind ccache
    compiler = asked_for or list(filter(shutil.which, COMPILERS))[:1]
    if not compiler or shutil.which(compiler[0]) is None:
        names = asked_for[0] if asked_for else ", ".join(COMPILERS)
        level = logging.WARNING if asked_for else logging.INFO
        _log.log(level, "no C++ compiler (%s): kernels are XLA's", names)
        return None
    try:
        found = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as e:
        said = (getattr(e, "stderr", None) or str(e)).strip()[-500:]
        _log.warning("kernels are XLA's, since %s failed: %s", shlex.join(compiler), said)
        return None
    for name, function in TARGETS.items():
        capsule = jax.ffi.pycapsule(getattr(found, function))
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    return found


def _command(compiler: list[str]) -> list[str]:
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    options = ["-std=c++17", "-O3", native, "-ffp-contract=fast", "-fPIC", "-shared", "-pthread"]
    return [*compiler, *options]


def _texts() -> Iterator[str]:
    """Yield all that is compiled: the sources, and the headers, jaxlib's wherever they lie."""
    here = Path(__file__).parent
    for name in (*SOURCES, *HEADERS):
        yield (here / name).read_text()
    for path in sorted(Path(jax.ffi.include_dir()).rglob("*.h")):
        yield path.read_text()


def _compiled(compiler: list[str]) -> Path:
    """Return the library's path; compile it unless it is there.

    Raises OSError or SubprocessError.
    """
    command = _command(compiler)
    version = subprocess.run(
        [*compiler, "--version"],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    ).stdout
    name = hashlib.sha256("\0".join([*_texts(), *command, version]).encode()).hexdigest()[:16]
    folder = default_folder() / "native"
    make_private(folder)
    if reason := reason_for_distrust(folder):
        raise PermissionError(errno.EPERM, f"not loaded from a cache of others: {reason}")
    path = folder / f"{name}.so"
    # One process of many compiles, the others wait for it.
    with os.fdopen(open_again(folder / "lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(path):
            with tempfile.TemporaryDirectory(dir=folder) as work:
                made = Path(work) / path.name
                _compile(command, made)
                with made.open("rb+") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
                    file.seek(0, os.SEEK_END)
                    file.write(digest)
                made.replace(path)
    return path


def _compile(command: list[str], made: Path) -> None:
    """Compile SOURCES, as many at a time as there are cores, and link the library `made`.

    Raises OSError or SubprocessError.
    """

    def run(*arguments: str) -> None:
        subprocess.run(
            [*command, "-isystem", jax.ffi.include_dir(), *arguments],
            check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip

    here = Path(__file__).parent
    objects = [str(made.with_name(f"{source}.o")) for source in SOURCES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source, o: run("-c", str(here / source), "-o", o), SOURCES, objects))
    run(*objects, "-o", str(made))


def _is_whole(path: Path) -> bool:
    """Return True for a library with the SHA-256 of its content behind it, where loaders stop.

    One that was cut short would end every process that loads it by a signal.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return False
    return hashlib.sha256(content[:-_DIGEST_BYTES]).digest() == content[-_DIGEST_BYTES:]
