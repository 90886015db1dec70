"""Protocol `tinyface`: TinyFace's probes among matches and distractors, by rank."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.metrics.identification import Entries, Searches, search_people
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results
from uniface_jax.evaluate.protocols.searches import search_cells, search_result
from uniface_jax.evaluate.sets.tinyface_tree import read_tinyface

RANKS = (1, 5, 20)
_DISTRACTOR = -100  # in place of a person, as in AdaFace's evaluation


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate the set `tinyface`; files are checked before anything is embedded."""
    if len(parts.paths) != 1:
        raise UserError(f"--data: {len(parts.paths)} folders for tinyface; expected one")
    found = read_tinyface(parts.paths[0], parts.named.get("aligned"))
    sides = [source.features(images) for images in (found.probe, found.match, found.distractor)]
    probe, match, distractor = sides
    people = found.probe_people, found.match_people
    try:
        searches = tinyface_searches(probe.values, match.values, distractor.values, *people)
    except UserError as e:
        raise UserError(f"{parts.paths[0]} with {source.name}: {e}") from e
    record = {
        "folder": str(parts.paths[0]),
        "images": sum(map(len, (found.probe, found.match, found.distractor))),
        **probe.record,
        "match": match.record,
        "distractor": distractor.record,
        "probes": len(found.probe),
        "without_mate": len(found.probe) - len(searches.ranks),
        "distractors": len(found.distractor),
    }
    mated = people[0][np.isin(*people)]
    return {"tinyface": search_result(record, searches, (mated, mated[:0]), ranks=RANKS)}


def tinyface_searches(
    probe: np.ndarray,
    match: np.ndarray,
    distractor: np.ndarray,
    probe_people: np.ndarray,
    match_people: np.ndarray,
) -> Searches:
    """Search probes among matches and distractors.

    A probe's rank is that of its best mate, cosines that are equal to the mate's before it. Probes
    without a mate are left out.

    Args:
        probe: features [Q, D], f(x) + f(mirror x), of any length.
        match: features [M, D].
        distractor: features [N, D].
        probe_people: int [Q].
        match_people: int [M].

    Raises:
        UserError: no probe has a mate, or what search_people raises.
    """
    people = np.concatenate([match_people, np.full(len(distractor), _DISTRACTOR)])
    gallery = Entries(np.concatenate([match, distractor]), np.ones(len(people), np.int64), people)
    found = search_people(gallery, probe, probe_people)
    if not len(found.ranks):
        raise UserError(f"none of {len(probe)} probes has a mate in Gallery_Match")
    return replace(found, best_scores=found.best_scores[:0])


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table."""
    return {"without mate": f"{metrics['without_mate']:,}", **search_cells(metrics)}


TINYFACE = Protocol(
    "TinyFace",
    PartNames("FOLDER of TinyFace", {"aligned": "FOLDER of the copies of 112x112"}),
    run,
    row,
)
