"""Calls to a run's hooks, each in a thread of its own, so that none can stop or slow the run."""

import queue
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ml_collections import ConfigDict

from uniface_jax import config as configs
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.reading import read_regular
from uniface_jax.runtime import trackers
from uniface_jax.runtime.hooks import HOOKS, RunFacts
from uniface_jax.train.run_log import warn

ID_FILE = "run_id"  # in the workdir of a run that has hooks
END_SECONDS = 30.0  # for a hook to take what waits and its leave
MAX_WAITING = 10_000  # calls; then the newest is left out
_ID = re.compile(rb"[0-9a-f]{16}\n")


def load(config: ConfigDict) -> None:
    """Import what the config's hooks need; UserError that names the extra where it is missing."""
    for name in config.hooks.names:
        if HOOKS.entry(name).builtin:
            trackers.loaded(name)


def create(config: ConfigDict, workdir: Path, first_step: int, main: bool) -> "Hooks":
    """Return the hooks that the config names; none where this is not the `main` process."""
    if not main or not config.hooks.names:
        return Hooks({})
    facts = RunFacts(workdir, _run_id(workdir, first_step), configs.flatten(config), first_step)
    return Hooks(
        {
            name: partial(HOOKS[name], facts, **config.hooks[name].to_dict())
            for name in config.hooks.names
        }
    )


def _run_id(workdir: Path, first_step: int) -> str:
    """Return the id of the run in the workdir; a new one, kept there, where it begins."""
    path = workdir / ID_FILE
    if first_step and path.exists():
        try:
            found = read_regular(path, 100)
        except OSError:
            found = b""
        if _ID.fullmatch(found):
            return found.decode().strip()
        warn(f"{path}: holds no run's id; the trackers begin a new run")
    made = secrets.token_hex(8)
    write_bytes(path, f"{made}\n".encode())
    return made


class Hooks:
    """Hooks of one run by name; entering begins them, leaving ends them.

    Example:
        >>> from uniface_jax.runtime.hooks import Hook
        >>> class Printer(Hook):
        ...     def on_step(self, step, values):
        ...         print(step, values["loss"])
        >>> with Hooks({"printer": Printer}) as hooks:
        ...     hooks.step(1, {"loss": 0.5})
        1 0.5
    """

    def __init__(
        self, makers: Mapping[str, Callable[[], Any]], end_seconds: float = END_SECONDS
    ) -> None:
        self._hooks = [_Called(name, make) for name, make in makers.items()]
        self._end_seconds = end_seconds

    def __enter__(self) -> Self:
        for hook in self._hooks:
            hook.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.tell("on_end", kind is None)
        for hook in self._hooks:
            hook.end(self._end_seconds)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Tell of one step."""
        self._tell("on_step", step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell what is logged of a step."""
        self._tell("on_log", step, values)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Tell the results of an evaluation."""
        self._tell("on_evaluation", step, results)

    def _tell(self, method: str, step: int, values: Mapping[str, float]) -> None:
        for hook in self._hooks:
            hook.tell(method, step, dict(values))


class _Called:
    """One hook, made and called in a thread that nobody has to wait for."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name, self._make = name, make
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._failed = self._left_out = 0
        self._thread = threading.Thread(target=self._work, name=f"hook {name}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def tell(self, method: str, *given: Any) -> None:
        """Let the thread call the method, if not too many calls wait; the last one always may."""
        if method == "on_end" or self._calls.qsize() < MAX_WAITING:
            self._calls.put((method, given))
            return
        self._left_out += 1
        if self._left_out == 1:
            self._say(f"{MAX_WAITING} calls wait; what follows is left out until it catches up")

    def end(self, seconds: float) -> None:
        """Wait for the thread so long, and say what it did not do."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._say(f"not done {seconds:g} s after the run's end; left behind")
        if self._failed > 1:
            self._say(f"{self._failed} calls failed")
        if self._left_out:
            self._say(f"{self._left_out} calls were left out")

    def _work(self) -> None:
        try:
            hook = self._make()
        except (Exception, SystemExit) as e:  # whatever code from elsewhere raises
            self._say(f"did not start ({_told(e)}); the run continues without it")
            return
        method = ""
        while method != "on_end":
            method, given = self._calls.get()
            try:
                getattr(hook, method)(*given)
            except (Exception, SystemExit) as e:
                self._failed += 1
                if self._failed == 1:
                    at = f" of step {given[0]}" if len(given) > 1 else ""
                    self._say(f"{method}{at} failed ({_told(e)}); the run continues")

    def _say(self, text: str) -> None:
        warn(f"hook {self._name}: {text}")


def _told(error: BaseException) -> str:
    """Return an error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
