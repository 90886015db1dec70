"""Compiled programs kept between runs, so that the second start of a recipe need not compile."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def _machine() -> str:
    """Name this kind of machine: one CPU's code must not be loaded on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        kind = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"


def default_folder() -> Path:
    """Return uniface_jax/ and the kind of machine in $XDG_CACHE_HOME, or in ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "uniface_jax" / _machine()


def enable(folder: str) -> Path | None:
    """Keep compiled programs in `folder`; "auto" is default_folder(), "" keeps none.

    Before the first compilation. JAX_COMPILATION_CACHE_DIR, where set, wins. Returns the folder.
    """
    if jax.config.jax_compilation_cache_dir or not folder:  # type: ignore[attr-defined]
        return None
    path = default_folder() if folder == "auto" else Path(folder)
    jax.config.update("jax_compilation_cache_dir", str(path))
    return path
