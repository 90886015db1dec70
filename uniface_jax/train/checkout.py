"""The commit of this project's checkout, asked of git without running anything of a repository's.

A package that is installed, or that lies in somebody's own repository, has no commit of this
project. Git is asked for what a commit holds, and for nothing that reads the work tree: that may
run commands that the repository's configuration names (core.fsmonitor, filters).
"""

import hashlib
import os
import subprocess
import tomllib
from pathlib import Path

from uniface_jax.files.reading import read_regular

_SECONDS = 10.0
_MAX_BYTES = 1 << 24
_SAFE = ("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never")


def commit(checkout: Path) -> str | None:
    """Return the checkout's commit, "+" behind it when a tracked file differs; None outside of one.

    checkout: the folder above the package.
    """
    if not (checkout / ".git").exists() or not _is_this_project(checkout):
        return None
    try:
        head = _git(checkout, "rev-parse", "--verify", "HEAD").decode("ascii").strip()
        listed = _git(checkout, "ls-tree", "-r", "-z", head).split(b"\0")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    changed = any(_differs(checkout, entry) for entry in listed if entry)
    return head + ("+" if changed else "")


def _is_this_project(checkout: Path) -> bool:
    try:
        project = tomllib.loads(read_regular(checkout / "pyproject.toml", _MAX_BYTES).decode())
        return bool(project["project"]["name"] == "uniface_jax")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _git(checkout: Path, *arguments: str) -> bytes:
    outside = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(checkout), *_SAFE, *arguments],
        # No repository further up, nothing fetched, nothing asked.
        env={
            **outside,
            "GIT_CEILING_DIRECTORIES": str(checkout.parent),
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_TERMINAL_PROMPT": "0",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=_SECONDS,
    )
    return done.stdout


def _differs(checkout: Path, entry: bytes) -> bool:
    """Return True where a file is another one than an entry of ls-tree names, or is not there."""
    about, _, name = entry.partition(b"\t")
    mode, kind, digest = about.decode("ascii").split()
    if kind != "blob":
        return False
    file = checkout / os.fsdecode(name)
    try:
        if mode == "120000":
            content = os.fsencode(file.readlink())
        else:
            content = read_regular(file, _MAX_BYTES)
    except OSError:
        return True
    algorithm = "sha1" if len(digest) == 40 else "sha256"
    found = hashlib.new(algorithm, b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return found.hexdigest() != digest
