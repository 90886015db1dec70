"""Command line: shows what the loss of a training run does; writes figures and inspection.json.

python -m uniface_jax.inspection --workdir=runs/demo [--data=DATASET] [--output=FOLDER]
"""

from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.errors import UserError
from uniface_jax.files.writing import expect_writable

_WORKDIR = flags.DEFINE_string("workdir", None, "A workdir of training, or its checkpoints/STEP.")
_DATA = flags.DEFINE_string(
    "data", None, "Its training set, of any kind; default: as it was trained."
)
_OUTPUT = flags.DEFINE_string("output", None, "Where to write; default: WORKDIR/inspection.")
_IMAGES = flags.DEFINE_integer("images", 3000, "Training images to draw.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "By which they are drawn.", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images embedded at a time.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Embed, compare, draw; print the summary and where the files are."""
    cli.positional(argv)
    if not _WORKDIR.value:
        raise UserError(f"--workdir is missing; {cli.usage('--workdir=WORKDIR [FLAGS]')}")
    # After the flags: what is wrong with them must not wait for JAX to load.
    from uniface_jax.checkpoints.reading import locate
    from uniface_jax.inspection.report import summary, write
    from uniface_jax.inspection.workdir import inspect

    workdir, _ = locate(_WORKDIR.value)
    output = Path(_OUTPUT.value) if _OUTPUT.value else workdir / "inspection"
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"--output: {output} cannot be made a folder ({e.strerror})") from e
    expect_writable(output / "inspection.json")
    run = inspect(_WORKDIR.value, _DATA.value, _IMAGES.value, _SEED.value, _BATCH_SIZE.value)
    cli.say(*summary(write(run, output, _WORKDIR.value)).split("\n"))
    cli.say(f"inspection.json and figures: {output}")


if __name__ == "__main__":
    cli.run(main)
