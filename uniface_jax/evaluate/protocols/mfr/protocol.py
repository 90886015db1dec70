"""Protocol `mfr`: the metrics of MFR-ongoing (ICCV 2021) on folders of one's own.

All-to-all TAR at FAR of a folder and of its populations, masked against plain images, and the
track's combined score.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

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
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results, SetResult
from uniface_jax.evaluate.sets.identity_folders import Identities, read_identities, read_populations

ALL_FARS, MASK_FARS = (1e-6,), (1e-4,)
ALL, MASK, COMBINED = "ALL", "mask", "combined"


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate ALL and each population (of `all`), mask (of `masked`, `plain`), and combined."""
    folders, table = parts.named, parts.named.get("populations")
    if ("masked" in folders) != ("plain" in folders):
        raise UserError("--data: mfr: masked= and plain= belong together; one of them is missing")
    if table is not None and "all" not in folders:
        raise UserError("--data: mfr: populations= is a table for all=, which is missing")
    skip = options.skip_faults
    everyone = (
        read_populations("mfr_all", folders["all"], table, skip_faults=skip)
        if "all" in folders
        else None
    )
    sides = [
        read_identities(f"mfr_{side}", folders[side], skip_faults=skip)
        for side in ("masked", "plain")
        if side in folders
    ]
    results: Results = {}
    populations = mask = None
    if everyone is not None:
        populations, found = _all_to_all(everyone, source, options)
        results |= found
    if sides:
        mask, results[MASK] = _mask(sides[0], sides[1], source, options)
    if everyone is not None and sides:
        from uniface_jax.evaluate.protocols.mfr.metrics import mfr_metrics

        results[COMBINED] = SetResult({"combined": mfr_metrics(populations, mask)["combined"]})
    return results


def _all_to_all(
    everyone: Identities, source: FeatureSource, options: Options
) -> tuple[Any, Results]:
    from uniface_jax.evaluate.all_pairs.engine import AllPairs, Targets
    from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures
    from uniface_jax.evaluate.protocols.mfr.metrics import population_pairs

    features, record = features_and_record(source, everyone)
    populations = everyone.populations
    try:
        found = population_pairs(
            LabeledFeatures(features, everyone.labels),
            populations,
            targets=Targets(options.fars_or(ALL_FARS)),
            progress=sys.stderr.isatty(),
        )
    except UserError as e:
        raise named(e, everyone.images.root, source) from e
    results: Results = {}
    for name, result in found.items():
        chosen = slice(None) if populations is None or name == ALL else populations == name
        labels = everyone.labels[chosen]
        own = {**record, "images": len(labels), "identities": len(np.unique(labels))}
        if isinstance(result, AllPairs):
            labeled = LabeledFeatures(features[chosen], labels)
            results[name] = set_result(result, own, [labeled], everyone.images)
        else:
            results[name] = SetResult({**own, "undefined": result.reason})
    return found, results


def _mask(
    masked: Identities, plain: Identities, source: FeatureSource, options: Options
) -> tuple[Any, SetResult]:
    from uniface_jax.evaluate.all_pairs.engine import Targets, all_pairs
    from uniface_jax.evaluate.all_pairs.tiles import LabeledFeatures

    first, record = features_and_record(source, masked)
    second, other = features_and_record(source, plain)
    sides = LabeledFeatures(first, masked.labels), LabeledFeatures(second, plain.labels)
    try:
        result = all_pairs(
            *sides,
            targets=Targets(options.fars_or(MASK_FARS)),
            progress=bar("masked against plain"),
        )
    except UserError as e:
        raise named(e, f"{masked.images.root} and {plain.images.root}", source) from e
    record = {**record, "plain": other}
    return result, set_result(result, record, sides, masked.images, plain.images)


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table; another for the combined score."""
    if "combined" in metrics:
        score = metrics["combined"]
        return {"0.25 mask + 0.75 ALL": "undefined" if score is None else f"{score:.2%}"}
    if "undefined" in metrics:
        return {"images": f"{metrics['images']:,}", "undefined": metrics["undefined"]}
    return cells(metrics)


MFR = Protocol(
    "MFR: all-to-all and masked faces",
    PartNames(
        "",
        {
            "all": "FOLDER/[POPULATION/]PERSON/IMAGE",
            "populations": "FILE.csv of lines person,population",
            "masked": "FOLDER/PERSON/IMAGE",
            "plain": "FOLDER/PERSON/IMAGE",
        },
    ),
    run,
    row,
)
