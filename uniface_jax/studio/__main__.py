"""Command line: serves a page on this machine that compares, searches, and shows an evaluation.

python -m uniface_jax.studio --model=MODEL [--gallery=GALLERY] [--evaluation=FOLDER]

Open the address that it prints in a browser. Photographs stay on the machine that serves, and none
is kept. FOLDER is the --output of an evaluation of the model: the thresholds are from it. All flags
of serve hold here as well, and its API answers beside the page.
"""

from dataclasses import replace
from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.errors import UserError, extra
from uniface_jax.evaluate.report import reading
from uniface_jax.evaluate.report.results import METRICS
from uniface_jax.inference.calibration import read_calibration
from uniface_jax.registry import import_parts
from uniface_jax.serve import options

_FLAGS = options.define()
_EVALUATION = flags.DEFINE_string(
    "evaluation", None, "The --output of an evaluation of the model: thresholds, ROC, hard pairs."
)
_IMPORTS = cli.define_imports()


def main(argv: list[str]) -> None:
    """Load the model, and serve the page until a signal."""
    cli.positional(argv)
    import_parts(_IMPORTS.value, "--imports")
    with extra("serve"):
        from uniface_jax.studio.choices import choices_of
        from uniface_jax.studio.pages import page_files
        from uniface_jax.studio.studio import Evaluated, Studio
    evaluated = None
    if _EVALUATION.value:
        if flags.FLAGS["calibration"].present:
            raise UserError("--calibration: --evaluation has the thresholds already")
        run = reading.read(Path(_EVALUATION.value))
        cli.say(*(f"left out: {note}" for note in run.notes))
        metrics = Path(_EVALUATION.value) / METRICS
        evaluated = Evaluated(run, choices_of(read_calibration(metrics), run))
        flags.FLAGS["calibration"].value = str(metrics)  # the service checks the model against it
    serving = _FLAGS.open()
    # What a browser fetches before the page can send a token.
    open_paths = serving.access.open_paths | page_files().keys()
    serving = replace(serving, access=replace(serving.access, open_paths=open_paths))
    serving.run([Studio(evaluated).router()])


if __name__ == "__main__":
    cli.run(main)
