"""Command line: the way back from a data set to files that every other program reads.

python -m uniface_jax.unpack SOURCE DEST [--to=folders|recordio]

SOURCE is what convert takes, usually a TFRecord data set. Not a byte of an image changes.
"""

from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.data.conversion.unpacking import write_folders, write_recordio
from uniface_jax.data.sources.opening import SourceOptions, open_source

_TO = flags.DEFINE_enum(
    "to", "folders", ["folders", "recordio"], "one folder a class, or insightface's train.rec"
)
_ON_ERROR = cli.define_on_error("an empty folder, or one inside a person's,")


def main(argv: list[str]) -> None:
    """Write the files and print how many."""
    given_source, given_destination = cli.positional(argv, "SOURCE", "DEST")
    source = open_source(given_source, SourceOptions(skip_faults=_ON_ERROR.value == "skip"))
    destination = Path(given_destination)
    for note in source.notes:
        print(note)
    there = 0
    if _TO.value == "folders":
        there = len(source) - write_folders(source, destination)
    else:
        write_recordio(source, destination)
    print(
        f"{len(source)} images of {source.num_classes} classes in {destination}"
        + (f", {there} of them were there already" if there else "")
    )


if __name__ == "__main__":
    cli.run(main)
