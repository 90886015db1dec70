"""Hooks: what is told of a run while it trains. Trackers of experiments are hooks; others register.

train/hooks.py calls them. A run names its hooks in config.hooks.names.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from uniface_jax.registry import Range, Registry
from uniface_jax.runtime import trackers


class RunFacts(NamedTuple):
    """A run, as its hooks are told of it.

    Args:
        workdir: The run's folder; in it a hook may keep a file or folder by its own name.
        id: 16 hexadecimal digits: the same whenever the run is resumed, and of no other run.
        config: Every key's value by its dotted path, {"optim.lr": 0.1, …}.
        first_step: The step that is resumed; 0 where the run begins.
    """

    workdir: Path
    id: str
    config: Mapping[str, Any]
    first_step: int


class Hook:
    """Base of hooks: each method is called in the hook's own thread, in the order of the steps.

    What a method raises is said once and stops neither the run nor the calls that follow. Steps are
    counted from 1. All numbers are floats of Python, and a mapping is the hook's own.
    """

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """Take what one step returned: loss, learning_rate, …; called for every step."""

    def on_log(self, step: int, values: Mapping[str, float]) -> None:
        """Take what metrics.jsonl gets every config.log.every_steps: speed and epoch as well."""

    def on_evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Take the results of an evaluation, by "SET/METRIC" ("ema/SET/METRIC" of the mean)."""

    def on_end(self, done: bool) -> None:
        """Take leave: the run is done, or (False) it stopped and may be resumed."""


HookMaker = Callable[..., Any]
Part = TypeVar("Part", bound=HookMaker)

HOOKS: Registry[HookMaker] = Registry("hook", "hooks", given=("run",), reserved=("names",))
HOOKS.add("wandb", trackers.WandbTracker, builtin=True)
HOOKS.add("mlflow", trackers.MlflowTracker, builtin=True)


def register_hook(name: str, **ranges: Range) -> Callable[[Part], Part]:
    """Return a decorator that registers a class of Hook, or a function that makes one, as `name`.

    It is called once at the start of a run, in process 0 alone, with `run`, a RunFacts, and with
    its hyperparameters: config.hooks.NAME.KEY. config.hooks.names switches it on.

    Args:
        name: Lower-case letters, digits and underscores.
        **ranges: The Range of each hyperparameter, by its name in the signature.

    Raises UserError for a name that is taken, and for a hyperparameter without default or range.

    >>> from uniface_jax import Hook, register_hook
    >>> @register_hook("best_loss")
    ... class BestLoss(Hook):
    ...     def __init__(self, run):
    ...         self.best = float("inf")
    ...     def on_step(self, step, values):
    ...         self.best = min(self.best, values["loss"])
    >>> from uniface_jax.runtime.hooks import HOOKS
    >>> HOOKS["best_loss"] is BestLoss
    True
    """
    return HOOKS.decorator(name, ranges)
