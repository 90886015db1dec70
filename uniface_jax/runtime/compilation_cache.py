"""Compiled programs kept between runs, so that the second start of a recipe need not compile."""

import errno
import hashlib
import logging
import os
import platform
from pathlib import Path

import jax

from uniface_jax.runtime.ownership import make_private, reason_for_distrust

_log = logging.getLogger(__name__)


def _machine() -> str:
    """Name this kind of machine: one CPU's code must not be loaded on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        kind = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"


def default_folder() -> Path:
    """Return uniface_jax/ and the kind of machine in $XDG_CACHE_HOME, or in ~/.cache.

    Raises OSError where this user has no home folder.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache:
        try:
            cache = str(Path.home() / ".cache")
        except RuntimeError as e:
            raise OSError(errno.ENOENT, "no home folder; XDG_CACHE_HOME names another") from e
    return Path(cache) / "uniface_jax" / _machine()


def enable(folder: str) -> Path | None:
    """Keep compiled programs in `folder`; "auto" is default_folder(), "" keeps none.

    Before the first compilation. JAX_COMPILATION_CACHE_DIR, where set, wins. A folder that others
    can write into is not used, whoever named it: what lies there would run. Returns the folder
    where it is ours to choose.
    """
    named = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if not named and not folder:
        return None
    try:
        path = Path(named) if named else default_folder() if folder == "auto" else Path(folder)
        make_private(path)
        reason = reason_for_distrust(path)
    except OSError as e:
        reason = f"{e.filename or folder}: {e.strerror}"
    if reason:
        _log.warning("compiled programs are not kept: %s", reason)
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    if named:
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    return path
