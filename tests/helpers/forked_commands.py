"""Commands in processes of their own that begin with the package's imports done.

A command imports for two seconds before it works for a fraction of one. Here a process imports once
what commands import, and forks for each: what is forked runs `python -m uniface_jax.NAME …`, or
`uniface NAME …`, from there on, with its own arguments, environment, folder, memory and exit. No
JAX backend is started before the fork. onnxruntime is not imported: its thread would be missed at
the end of a fork. What libraries read of the environment when they are imported is the server's: a
test that sets such a variable starts a process of its own. And a fork ends without Python taking
apart all that was imported, which costs more than most commands do.
"""

import atexit
import gc
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.compilation import FAST_COMPILATION
from tests.helpers.paths import ROOT
from tests.helpers.waiting import wait
from uniface_jax.cli import console

IMPORTED = (
    "cv2", "fastapi", "flax.linen", "jax", "matplotlib.pyplot", "optax", "orbax.checkpoint",
    "PIL.Image", "simplejpeg", "tensorboardX", "uniface_jax.data.conversion.run",
    "uniface_jax.evaluate.features", "uniface_jax.evaluate.protocols", "uniface_jax.train.loop",
    "uniface_jax.weights.workdir",
)  # fmt: skip

WARNING = re.compile(r"^\S+:\d+: \w*Warning: ", re.MULTILINE)  # as Python prints one


@dataclass(frozen=True)
class Ended:
    """How a command ended; returncode is negative for a signal, None where it was out of time."""

    returncode: int | None
    output: str  # of stdout and stderr
    cpu_seconds: float
    peak_bytes: int


class ForkedCommands:
    """Runs commands, one after another; close it in the end.

    cpu_seconds: what the commands have taken, until the server ends: then the system counts them
    among this process's children.
    """

    cpu_seconds = 0.0  # of all servers that live

    def __init__(self) -> None:
        self._seconds = 0.0
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (close ends it)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.forked_commands"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "XLA_FLAGS": FAST_COMPILATION},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
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
            "program": "python",
            "arguments": list(map(str, arguments)),
            "cwd": str(cwd),
            "streams": [str(log)],
            "env": dict(env or {}),
            "timeout": timeout,
        }
        return Ended(**self._ask(request), output=_read(log))

    def complete(
        self,
        program: str,
        arguments: Sequence[str],
        cwd: Path,
        timeout: float = 300,
        hidden: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as subprocess.run does with capture_output and text.

        program: "python" for `python -m uniface_jax.ARGUMENTS`, "uniface" for `uniface ARGUMENTS`.
        hidden: modules that it finds as little as if they were not installed.
        """
        command = [program, *map(str, arguments)]
        with tempfile.TemporaryDirectory(prefix="uniface_jax-streams-") as folder:
            streams = [Path(folder, name) for name in ("stdout", "stderr")]
            request = {
                "arguments": command[1:],
                "program": program,
                "cwd": str(cwd),
                "streams": list(map(str, streams)),
                "env": {},
                "hidden": hidden,
                "timeout": timeout,
            }
            status = self._ask(request)["returncode"]
            output, errors = map(_read, streams)
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout, output, errors)
        return subprocess.CompletedProcess(command, status, output, errors)

    def close(self) -> None:
        """End the server; AssertionError where its imports, which are the commands', warned."""
        with self._server:
            self._server.stdin.close()
        ForkedCommands.cpu_seconds -= self._seconds
        with self._said:
            said = self._everything_said()
        assert self._server.returncode == 0, said
        assert not WARNING.search(said), said

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, self._everything_said()
        ended = json.loads(answer)
        self._seconds += ended["cpu_seconds"]
        ForkedCommands.cpu_seconds += ended["cpu_seconds"]
        return ended

    def _everything_said(self) -> str:
        self._said.seek(0)
        return self._said.read()


def _read(log: Path) -> str:
    return log.read_text("utf-8", "backslashreplace")


def _become(request: dict) -> None:
    """Make this process one that was started for the command, up to running it."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    opened = [os.open(s, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for s in request["streams"]]
    for descriptor, source in enumerate((nothing, opened[0], opened[-1])):
        os.dup2(source, descriptor)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    sys.modules.update(dict.fromkeys(request.get("hidden", ())))
    _show_warnings()
    sys.path[0] = request["cwd"]
    if request["program"] == "uniface":
        sys.argv = ["uniface", *request["arguments"]]
    else:
        sys.argv = [sys.argv[0], *request["arguments"][1:]]


def _show_warnings() -> None:
    """Let Python print every warning, also those that a user is spared."""
    warnings.resetwarnings()
    warnings.simplefilter("default")
    # ml_collections.config_flags loads a file so before Python 3.12.
    warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)


def serve() -> dict | None:
    """Fork for each request on stdin; return it in the child, None at the end."""
    for module in IMPORTED:
        __import__(module)
    # JAX warns of forks, for the threads of its backends, of which none is started.
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    gc.freeze()  # no collection in a child touches, and so copies, what was imported
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        child = os.fork()
        if not child:
            _become(request)
            return request
        print(json.dumps(wait(child, request["timeout"])), flush=True)
    return None


def _run(request: dict) -> None:
    """Run the command in this process and end that, with the status that Python would end it by."""
    status = 0
    try:
        if request["program"] == "uniface":
            console.main()
        else:
            name = f"uniface_jax.{request['arguments'][0]}"
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as e:
        status = e.code or 0
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()  # Python warns of what was left open
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    asked = serve()
    if asked:
        _run(asked)
