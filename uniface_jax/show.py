"""Command line: a contact sheet of a data set, plain and augmented, and its statistics.

python -m uniface_jax.show DATASET --output=sheet.png [--config=demo]

Below every identity's images stand the same ones as training would see them. DATASET is whatever
uniface_jax.convert reads or writes; statistics are those that convert has written.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from absl import flags

from uniface_jax import cli
from uniface_jax.cli import recipes
from uniface_jax.data.conversion.statistics import STATISTICS_FILE, read_statistics
from uniface_jax.data.formats import images
from uniface_jax.data.input.augment import Augment
from uniface_jax.data.input.contact_sheet import contact_sheet
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.writing import expect_writable
from uniface_jax.registry import import_parts

_CONFIG = recipes.define(
    "NAME[:VARIANT] of the recipe whose augmentations are shown, or PATH.py[:VARIANT]; "
    "insightface's set without one."
)
_IMPORTS = cli.define_imports()
_ON_ERROR = cli.define_on_error("an empty folder, or one inside a person's,")
_OUTPUT = flags.DEFINE_string("output", None, "The picture, a PNG.")
_IDENTITIES = flags.DEFINE_integer("identities", 8, "Rows.", lower_bound=1, upper_bound=100)
_COLUMNS = flags.DEFINE_integer("columns", 8, "Images a row.", lower_bound=1, upper_bound=50)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of what is chosen and how it is augmented.", lower_bound=0, upper_bound=2**31 - 1
)

INSIGHTFACE = Augment(flip=True, downscale=0.1, blur=0.2, colour=0.2, grey=0.1)


def main(argv: list[str]) -> None:
    """Write the picture and print the counts."""
    (given,) = cli.positional(argv, "DATASET")
    import_parts(_IMPORTS.value, "--imports")
    output = Path(_OUTPUT.value or "")
    if output.suffix.lower() != ".png":
        given_output = f"--output={_OUTPUT.value}" if _OUTPUT.value else "--output is missing"
        raise UserError(f"{given_output}: expected a name that ends in .png")
    expect_writable(output)
    source = open_source(given, SourceOptions(skip_faults=_ON_ERROR.value == "skip"))
    config = _CONFIG.value
    chosen = Augment.from_mapping(config.data.augment.to_dict()) if config else INSIGHTFACE
    sheet = contact_sheet(source, chosen, _IDENTITIES.value, _COLUMNS.value, _SEED.value)
    write_bytes(output, images.encode_png(sheet))
    for note in source.notes:
        print(note)
    print(f"{source.name}: {len(source):,} images of {source.num_classes:,} classes")
    if (Path(given) / STATISTICS_FILE).is_file():
        _print_statistics(read_statistics(Path(given)))
    print(f"{output}: each identity's images, and below them as training sees them")


def _print_statistics(statistics: Mapping[str, Any]) -> None:
    for key, words in (("images_per_class", "images of a class"), ("image_bytes", "bytes")):
        quantiles = statistics[key]["quantiles"]
        print(
            f"{words}: median {quantiles['50']:,.0f}, from {quantiles['0']:,.0f} to "
            f"{quantiles['100']:,.0f}"
        )
    sizes = ", ".join(
        f"{size['width']}x{size['height']} ({size['images']:,})" for size in statistics["sizes"][:3]
    )
    duplicates = statistics["duplicates"]
    print(f"sizes: {sizes}")
    print(
        f"same bytes more than once: {duplicates['groups_of_one_class']:,} groups of one class, "
        f"{duplicates['groups_of_several_classes']:,} of several"
    )


if __name__ == "__main__":
    cli.run(main, partial(recipes.prepare, default=None))
