"""Trains a network: python -m uniface_jax.train --config=casia:uce_m --workdir=runs/mine.

--config is the name of a recipe, with a variant after a colon, or the path of a file in Python;
without it the demo trains. Any key of the config can be given as --config.KEY=VALUE;
--print_config prints all keys with their values and ends. The same command resumes a run that was
interrupted; with --extend one whose epochs, steps or optim keys are others now. Exit status: 0
done, 1 stopped (not finite, not saved, a check failed), 2 bad input, 75 told to stop (SIGTERM,
SIGHUP) and saved, 76 lost another process or its decoders, or hung; after 75 and 76 the same
command resumes.
"""

import errno
import sys
from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.cli import recipes
from uniface_jax.errors import EXIT_LOST, EXIT_PREEMPTED, EXIT_STOPPED, UserError

RUNS = Path("runs")  # where a run is kept that was given no workdir

NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

_CONFIG = recipes.define("NAME[:VARIANT] of a recipe, or PATH.py[:VARIANT]; default: demo.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept; default: runs/ and the name of the recipe."
)
_EXTEND = flags.DEFINE_bool(
    "extend",
    False,
    "Resume the workdir's run with other epochs, steps or optim keys; not optim.name, "
    "optim.ema, nor optim.multipliers that thaw what an adaptive optimizer froze.",
)
_PRINT_CONFIG = recipes.define_print_config()
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many; with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is; with --coordinator.")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 20, "Of silence, until one of several processes is taken for dead.", 1
)


def main(argv: list[str]) -> int | None:
    """Run the recipe; return the exit status."""
    cli.positional(argv)
    from uniface_jax.config.overrides import resolved

    config = resolved(_CONFIG.value, recipes.named_keys(sys.argv))
    if _PRINT_CONFIG.value:
        recipes.print_config(config)
        return None
    # After the flags: what is wrong with them must not wait for JAX to load.
    from uniface_jax.checkpoints.saving import left_waiting
    from uniface_jax.data.input.workers import WorkerLostError
    from uniface_jax.runtime import kept_memory, processes
    from uniface_jax.runtime.debug import CheckError
    from uniface_jax.train.loop import train_and_evaluate
    from uniface_jax.train.nonfinite import NotFiniteError
    from uniface_jax.train.run import NotSavedError, Preempted

    processes.initialize(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _HEARTBEAT.value
    )
    kept_memory.run_steps_alone()
    recipe = recipes.located()
    workdir = Path(_WORKDIR.value or RUNS / recipe.name.replace(":", "_"))
    if processes.is_main():
        print(_first_line(recipe, workdir), flush=True)
    status = None
    try:
        with processes.leaving_alone():
            train_and_evaluate(config, workdir, extend=_EXTEND.value)
    except Preempted:
        status = EXIT_PREEMPTED
    except WorkerLostError as e:
        print(f"stopped: {e}; the same command resumes", file=sys.stderr)
        status = EXIT_LOST
    except OSError as e:
        if e.errno not in NO_WRITING:
            raise
        raise UserError(f"{e.filename or workdir}: {e.strerror}") from e
    except (NotFiniteError, NotSavedError, CheckError, FloatingPointError) as e:
        print(f"stopped: {e}", file=sys.stderr)
        status = EXIT_STOPPED
    # All that can be saved is; a scheduler's grace period is shorter than these threads wait.
    if left_waiting():
        processes.leave_at_once(status or 0)
    return status


def _first_line(recipe: recipes.Located, workdir: Path) -> str:
    """Say which recipe runs and where it writes; of the default, how to name another."""
    line = f"recipe {recipe.name}; writes to {workdir}"
    if recipe.name == recipes.DEFAULT:
        others = ", ".join(name for name in recipes.names() if name != recipes.DEFAULT)
        line += f"; --config=NAME trains another: {others}"
    return line


if __name__ == "__main__":
    cli.run(main, recipes.prepare)
