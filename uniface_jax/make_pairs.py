"""Command line: a verification set of one's own, of labeled images or of a list of pairs.

python -m uniface_jax.make_pairs SOURCE DEST.bin [--pairs=6000] [--seed=0]    # or DEST.csv
python -m uniface_jax.make_pairs pairs.txt DEST.bin [--root=FOLDER]

SOURCE is what convert takes, as identity folders or a data set: pairs are drawn, half of them of
one person. Or it is a list of pairs as LFW's, a CSV, …, of which each pair is taken. DEST.bin is
read by evaluate, by config.eval.data and by insightface's programs; DEST.csv names image files.
"""

from pathlib import Path

from absl import flags

from uniface_jax import cli
from uniface_jax.data.conversion import verification_sets as sets
from uniface_jax.data.formats.pair_lists import read_pair_lines
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.data.sources.lists import ListSource
from uniface_jax.data.sources.opening import SourceOptions, open_source
from uniface_jax.errors import UserError
from uniface_jax.files.writing import expect_writable
from uniface_jax.registry import import_parts

_PAIRS = flags.DEFINE_integer(
    "pairs", 6000, "How many are drawn at most, half of them of one person.", lower_bound=10
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draw.", lower_bound=0, upper_bound=2**32 - 1)
_ROOT = flags.DEFINE_string("root", None, "Folder of the images of a list of pairs.")
_ON_ERROR = cli.define_on_error("an empty folder, or one inside a person's,")
_IMPORTS = cli.define_imports()


def main(argv: list[str]) -> None:
    """Write the pairs and print how many."""
    given_source, given_destination = cli.positional(argv, "SOURCE", "DEST")
    import_parts(_IMPORTS.value, "--imports")
    destination = Path(given_destination)
    if destination.suffix not in (".bin", ".csv"):
        raise UserError(f"{destination}: expected a name that ends in .bin or .csv")
    expect_writable(destination)
    source = _labeled(given_source)
    if source is None:
        folder, pairs = sets.of_list(Path(given_source), Path(_ROOT.value) if _ROOT.value else None)
        images = sets.read_images(folder, pairs)
    else:
        if _ROOT.value:
            raise UserError(f"--root: for a list of pairs; {given_source} has images and labels")
        for note in source.notes:
            print(note)
        pairs = sets.of_source(source, _PAIRS.value, _SEED.value)
        images = [source[i].image for i in range(len(source))]
    if destination.suffix == ".bin":
        sets.write_bin(pairs, images, destination)
    elif source is None or isinstance(source, FolderSource | ListSource):
        sets.write_csv(pairs, destination)
    else:
        raise UserError(f"{destination}: the images of {given_source} are no files; write a .bin")
    same = int(pairs.same.sum())
    print(f"{len(pairs.same)} pairs, {same} of one person, of {len(pairs.names)} images")
    print(destination)


def _labeled(path: str) -> Source | None:
    """Open a source of labeled images; None where the path is a list of pairs."""
    file, options = Path(path), SourceOptions(skip_faults=_ON_ERROR.value == "skip")
    if not file.is_file() or file.suffix in (".tar", ".rec", ".lst"):
        return open_source(path, options)
    try:
        read_pair_lines(file)
    except UserError as no_pairs:
        try:
            return open_source(path, options)
        except UserError as e:
            raise UserError(f"{e}; as a list of pairs: {no_pairs}") from e
    return None


if __name__ == "__main__":
    cli.run(main)
