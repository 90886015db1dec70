"""Protocol `pairs`: a CSV of pairs of one's own, by the same metrics as the .bin files."""

from collections.abc import Sequence
from functools import partial

from uniface_jax.data.formats.bin_pairs import PairSet
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import Side
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results
from uniface_jax.evaluate.protocols.verification import pair_result, row
from uniface_jax.evaluate.sets.csv_files import read_pair_list
from uniface_jax.evaluate.sets.image_sets import ImageFiles


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate every CSV as a set; images are relative to `root`, or to the CSV's own folder."""
    if not parts.paths:
        raise UserError("--data: pairs: no CSV, only root=")
    lists = {}
    for file in parts.paths:
        root = parts.named.get("root", file.parent)
        if file.stem in lists:
            raise UserError(f"--data: {file}: a second list called {file.stem}")
        lists[file.stem] = (file, root, *read_pair_list(file, root))
    results: Results = {}
    for name, (file, root, pairs, names) in lists.items():
        images = ImageFiles(name, root, names)
        sides = partial(_sides, pairs, names)
        results[name] = pair_result(source, images, pairs, sides, file, options)
    return results


def _sides(pairs: PairSet, names: Sequence[str], pair: int) -> tuple[Side, Side]:
    first, second = int(pairs.first[pair]), int(pairs.second[pair])
    return (first, names[first]), (second, names[second])


PAIRS = Protocol(
    "Pairs of one's own",
    PartNames("FILE.csv of lines first,second,same", {"root": "FOLDER of the images"}),
    run,
    row,
)
