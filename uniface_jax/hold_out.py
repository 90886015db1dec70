"""Command line: people held out of a training set, to be evaluated on.

python -m uniface_jax.hold_out SOURCE DEST --people=10 [--seed=0] [--on_error=skip]

SOURCE is what convert takes. DEST/train and DEST/held_out become identity folders that share
nobody; not a byte of an image changes. The same seed holds out the same people.
"""

from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.data.conversion.people import ChosenPeople, held_out, labels_of
from uniface_jax.data.conversion.unpacking import folder_names, write_folders
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.errors import UserError
from uniface_jax.registry import import_parts

_PEOPLE = flags.DEFINE_integer("people", 10, "How many are held out.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the choice.", lower_bound=0, upper_bound=2**32 - 1)
_ON_ERROR = cli.define_on_error("an empty folder, or one inside a person's,")
_IMPORTS = cli.define_imports()
TRAIN, HELD_OUT = "train", "held_out"


def main(argv: list[str]) -> None:
    """Write both folders and print who is where."""
    given_source, given_destination = cli.positional(argv, "SOURCE", "DEST")
    import_parts(_IMPORTS.value, "--imports")
    source = open_source(given_source, SourceOptions(skip_faults=_ON_ERROR.value == "skip"))
    destination = Path(given_destination)
    for note in source.notes:
        print(note)
    labels = labels_of(source)
    chosen = held_out(labels, source.num_classes, _PEOPLE.value, _SEED.value)
    kept = sorted(set(range(source.num_classes)) - set(chosen))
    parts = {TRAIN: kept, HELD_OUT: chosen}
    people = {name: ChosenPeople(source, labels, classes) for name, classes in parts.items()}
    for name, part in people.items():
        _refuse_others(destination / name, part)
    for name, part in people.items():
        write_folders(part, destination / name)
        print(f"{len(part)} images of {part.num_classes} people in {destination / name}")


def _refuse_others(folder: Path, part: ChosenPeople) -> None:
    """Raise UserError where a folder holds people of another split, who would be mixed in."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there - set(folder_names(part)):
        raise UserError(f"{folder}: holds other people already; give another DEST")


if __name__ == "__main__":
    cli.run(main)
