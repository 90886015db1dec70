"""Compiles a step for a target in a process of its own, so that a compiler that dies ends no plan.

Compilers for devices that are not there crash on some programs, or take more memory than there is,
which no exception tells. The process is a program of its own, no fork (JAX has threads), in a
session of its own, so that Ctrl-C does not reach it. It hangs on a pipe to the plan and ends when
that is gone, however that ended.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from typing import Any, NoReturn

import jax

from uniface_jax.config import stored
from uniface_jax.errors import EXIT_BAD_INPUT, UserError
from uniface_jax.files.own_folder import own_folder_if_trusted
from uniface_jax.native import build
from uniface_jax.plan import kept, program, topology
from uniface_jax.plan.targets import Target
from uniface_jax.train.from_config import Recipe

_PROGRAM = f"""
import json, sys
request = json.loads(sys.argv[1])
sys.path[:] = request["path"]
from {__name__} import serve
serve(request)
"""

_log = logging.getLogger(__name__)


def compiled(recipe: Recipe, target: Target) -> kept.Program:
    """Return a recipe of program.planned as the target's compiler makes its step.

    What the compiler writes to standard error appears there when it has ended; of one that died,
    whose last words are pages, it is logged for debugging. Raises UserError where the compiler is
    not installed, makes no program or dies.
    """
    request = {
        "path": sys.path,
        "config": stored.to_json(recipe.config),
        "images": recipe.num_images,
        "classes": recipe.num_classes,
        "target": target,
    }
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(request)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, start_new_session=True,
        ) as child,
    ):  # fmt: skip
        assert child.stdout
        try:
            answer = child.stdout.read()
            status = child.wait()
        finally:
            child.kill()
        words.seek(0)
        said = words.read().decode(errors="replace")
    if status < 0:
        _log.debug("%s", said)
    else:
        sys.stderr.write(said)
    if status == EXIT_BAD_INPUT:
        raise UserError(answer.decode())
    if status:
        raise UserError(f"--target={target.name}: its compiler {_end(status)}")
    return kept.parsed(answer)


def compiled_here(recipe: Recipe, target: Target) -> kept.Program:
    """Do as compiled() within this process; what was compiled before is read (kept.py)."""
    devices = topology.devices_of(target)
    with build.off():
        lowered = program.lowered(recipe, devices)
    folder = own_folder_if_trusted("programs", partial(_log.warning, "programs are not kept: %s"))
    name = kept.key([lowered.as_text(), *topology.compiler(target)])
    found = kept.read(folder, name) if folder else None
    if found is None:
        began = time.monotonic()
        try:
            with build.off():
                made = lowered.compile(dict(topology.options(target)))
        except jax.errors.JaxRuntimeError as e:  # as where it does not fit
            said = (str(e).splitlines() or [type(e).__name__])[0][:300]
            raise UserError(f"--target={target.name}: its compiler made no program: {said}") from e
        seconds = time.monotonic() - began
        memory = program.memory_of(made, not target.is_gpu)
        found = kept.Program(memory, made.as_text() or "", seconds)
        if folder:
            kept.write(folder, name, found)
    return found


def serve(request: dict[str, Any]) -> NoReturn:
    """Compile what a plan asks for, write it to standard output, and end this process."""
    threading.Thread(target=_end_with_the_plan, name="plan", daemon=True).start()
    answer = os.dup(1)
    os.dup2(2, 1)  # what compilers print is no part of the answer
    jax.config.update("jax_platforms", "cpu")
    target = Target(*request["target"])
    try:
        config = stored.from_json(request["config"])
        recipe = program.planned(config, request["images"], request["classes"], target)
        content, status = kept.packed(compiled_here(recipe, target)), 0
    except UserError as e:
        content, status = str(e).encode(), EXIT_BAD_INPUT
    with os.fdopen(answer, "wb") as file:
        file.write(content)
    sys.stderr.flush()
    os._exit(status)  # no threads of a compiler can crash in its teardown


def _end_with_the_plan() -> None:
    """End this process when the other end of standard input is closed."""
    while os.read(0, 64):
        pass
    os._exit(1)


def _end(status: int) -> str:
    """Return how a process with this status ended."""
    if status >= 0:
        return f"ended with status {status}"
    why = ", often for a lack of memory" if -status == signal.SIGKILL else ""
    return f"died by signal {-status} ({signal.strsignal(-status)}{why})"
