"""Trains a network: python -m uniface_jax.train --config=configs/demo.py --workdir=runs/demo.

Any key of the config can be given as --config.KEY=VALUE. The same command resumes a run that was
interrupted. Exit status: 0 done, 1 stopped (not finite, not saved, a check failed), 2 bad input,
75 preempted and saved, 76 lost another process or hung; after 75 and 76 the same command goes on.
"""

import errno
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from uniface_jax import cli
from uniface_jax.errors import EXIT_PREEMPTED, EXIT_STOPPED, UserError
from uniface_jax.train.flags import DEMO, prepare

DEMO_FACES = Path("runs/faces")

NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

_CONFIG = config_flags.DEFINE_config_file("config", None, f"The recipe; else {DEMO}.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Where the run is kept.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many; with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is; with --coordinator.")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 20, "Of silence, until one of several processes is taken for dead.", 1
)


def _ensure_demo_faces() -> None:
    """Prepares the demo's faces where a newcomer starts the demo's recipe without them."""
    from uniface_jax.data.faces.orl import is_complete, make_demo_data

    if not is_complete(DEMO_FACES):
        print(f"{DEMO_FACES}: preparing the demo's faces", flush=True)
        make_demo_data(DEMO_FACES)


def main(argv: list[str]) -> int | None:
    """Runs the recipe; returns the exit status."""
    cli.positional(argv)
    config = _CONFIG.value
    # After the flags: what is wrong with them must not wait for JAX to load.
    from uniface_jax.checkpoints.saving import left_waiting
    from uniface_jax.runtime import processes
    from uniface_jax.runtime.debug import CheckError
    from uniface_jax.train.loop import NotSavedError, Preempted, train_and_evaluate
    from uniface_jax.train.nonfinite import NotFiniteError

    processes.initialize(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _HEARTBEAT.value
    )
    if Path(config.data.train) == DEMO_FACES / "train":
        processes.on_main(_ensure_demo_faces)
    status = None
    try:
        with processes.leaving_alone():
            train_and_evaluate(config, Path(_WORKDIR.value))
    except Preempted:
        status = EXIT_PREEMPTED
    except OSError as e:
        if e.errno not in NO_WRITING:
            raise
        raise UserError(f"{e.filename or _WORKDIR.value}: {e.strerror}") from e
    except (NotFiniteError, NotSavedError, CheckError, FloatingPointError) as e:
        print(f"stopped: {e}", file=sys.stderr)
        status = EXIT_STOPPED
    # All that can be saved is; a scheduler's grace period is shorter than these threads wait.
    if left_waiting():
        processes.leave_at_once(status or 0)
    return status


if __name__ == "__main__":
    cli.run(main, prepare)
