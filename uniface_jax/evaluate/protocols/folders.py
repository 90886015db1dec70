"""Protocol `folders`: all pairs of the images in identity folders of one's own."""

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.all_pairs_results import (
    bar,
    cells,
    features_and_record,
    named,
    set_result,
)
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results
from uniface_jax.evaluate.sets.identity_folders import read_identities

FARS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate each folder as a set, by its name."""
    from uniface_jax.evaluate.all_pairs.engine import Targets, all_pairs
    from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures

    folders = {}
    for root in parts.paths:
        name = root.resolve().name
        if name in folders:
            raise UserError(f"--data: {root}: a second folder called {name}")
        folders[name] = read_identities(name, root, skip_faults=options.skip_faults)
    results: Results = {}
    for name, found in folders.items():
        features, record = features_and_record(source, found)
        labeled = LabeledFeatures(features, found.labels)
        try:
            result = all_pairs(
                labeled,
                targets=Targets(options.fars_or(FARS)),
                progress=bar(f"{name}: all pairs"),
            )
        except UserError as e:
            raise named(e, found.images.root, source) from e
        results[name] = set_result(result, record, [labeled], found.images)
    return results


FOLDERS = Protocol("Identity folders of one's own", PartNames("FOLDER/PERSON/IMAGE"), run, cells)
