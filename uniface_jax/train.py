"""Trains a network: python -m uniface_jax.train --config=configs/demo.py --workdir=runs/demo.

Any key of the config can be given as --config.KEY=VALUE. The same command resumes a run that was
interrupted.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from uniface_jax import cli

DEMO = Path(__file__).resolve().parent.parent / "configs" / "demo.py"

_CONFIG = config_flags.DEFINE_config_file("config", str(DEMO), "The recipe.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Where the run is kept.")


def main(argv: list[str]) -> int | None:
    """Runs the recipe; returns the exit status."""
    cli.positional(argv)
    # After the flags: what is wrong with them must not wait for JAX to load.
    from uniface_jax.training import NotFiniteError, train_and_evaluate

    try:
        train_and_evaluate(_CONFIG.value, Path(_WORKDIR.value))
    except NotFiniteError as e:
        print(f"stopped: {e}", file=sys.stderr)
        return 1
    return None


if __name__ == "__main__":
    cli.run(main)
