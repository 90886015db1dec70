"""Command line: turns a source of face images into TFRecord shards that TFDS opens as they are.

python -m uniface_jax.convert SOURCE DEST [--shard_size=20000] [--seed=0] [--name=faces]
"""

import re
from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.data.sources import open_source
from uniface_jax.data.tfrecord import check_destination, write_dataset

_SHARD_SIZE = flags.DEFINE_integer("shard_size", 20_000, "images in a shard", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the shuffle", lower_bound=0, upper_bound=2**32 - 1)
_NAME = flags.DEFINE_string("name", None, "the data set's name; default: made from SOURCE's")


def main(argv: list[str]) -> None:
    """Converts, and prints what was written."""
    given_source, given_destination = cli.positional(argv, "SOURCE", "DEST")
    destination = Path(given_destination)
    check_destination(destination)
    source = open_source(given_source)
    for note in source.notes[:10]:
        print(note)
    if len(source.notes) > 10:
        print(f"… and {len(source.notes) - 10} more of this kind")
    info = write_dataset(
        source,
        destination,
        name=_NAME.value or _name_of(Path(given_source)),
        seed=_SEED.value,
        shard_size=_SHARD_SIZE.value,
        description=f"Converted from {Path(given_source).name} by uniface_jax.",
    )
    print(
        f"{info.num_examples} images of {info.num_classes} classes in {len(info.shards)} shards "
        f"in {destination}"
    )


def _name_of(source: Path) -> str:
    """A TFDS name from the source's: letters, digits, underscores, beginning with a letter."""
    name = re.sub(r"[^a-z0-9]+", "_", source.resolve().name.lower()).strip("_")
    return name if name[:1].isalpha() and name.isascii() else f"faces_{name}".rstrip("_")


if __name__ == "__main__":
    cli.run(main)
