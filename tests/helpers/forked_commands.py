"""Commands in processes of their own that begin with the package's imports done.

A command imports for two seconds before it works for a fraction of one. Here a process imports once
what commands import, and forks for each: what is forked runs `python -m uniface_jax.NAME …` from
there on, with its own arguments, environment, folder, memory and exit. No JAX backend is started
before the fork. onnxruntime is not imported: its thread would be missed at the end of a fork.
"""

import contextlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT

IMPORTED = (
    "cv2", "flax.linen", "jax", "matplotlib.pyplot", "optax", "orbax.checkpoint",
    "PIL.Image", "simplejpeg", "tensorboardX", "uniface_jax.data.conversion.run",
    "uniface_jax.evaluate.features", "uniface_jax.evaluate.protocols", "uniface_jax.train.loop",
    "uniface_jax.weights.workdir",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended; returncode is negative for a signal, None where it was out of time."""

    returncode: int | None
    output: str  # of stdout and stderr
    cpu_seconds: float
    peak_bytes: int


class ForkedCommands:
    """Runs commands, one after another; close it in the end."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.forked_commands"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "XLA_FLAGS": FAST_COMPILATION},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,
    ) -> Ended:
        """Run `python -m uniface_jax.ARGUMENTS` in `cwd`; its output is kept in `log`."""
        request = {
            "arguments": list(map(str, arguments)),
            "cwd": str(cwd),
            "log": str(log),
            "env": dict(env or {}),
            "timeout": timeout,
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        return Ended(output=log.read_text("utf-8", "backslashreplace"), **answer)

    def close(self) -> None:
        with self._server:
            self._server.stdin.close()
        assert self._server.returncode == 0


def wait(child: int, timeout: float) -> dict:
    """Wait for the leader of a session, which is killed when `timeout` seconds have passed."""
    handle = os.pidfd_open(child)
    try:
        in_time = bool(select.select([handle], [], [], timeout)[0])
    finally:
        os.close(handle)
    if not in_time:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return {
        "returncode": os.waitstatus_to_exitcode(status) if in_time else None,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def _become(request: dict) -> None:
    """Make this process one that was started for the command, up to running it."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, source in enumerate((nothing, log, log)):
        os.dup2(source, descriptor)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    warnings.resetwarnings()
    warnings.simplefilter("default")
    sys.argv = [sys.argv[0], *request["arguments"][1:]]
    sys.path[0] = request["cwd"]


def serve() -> str | None:
    """Fork for each request on stdin; return the module to run in the child, None at the end."""
    for module in IMPORTED:
        __import__(module)
    # JAX warns of forks, for the threads of its backends, of which none is started.
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(request)
            return f"uniface_jax.{request['arguments'][0]}"
        print(json.dumps(wait(child, request["timeout"])), flush=True)
    return None


if __name__ == "__main__":
    command = serve()
    if command is not None:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
