"""Protocol `tinyface`: TinyFace's probes among matches and distractors, by rank."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import cmc_line
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.metrics.identification import Entries, closed_set, search_people
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results, SetResult
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
    try:
        metrics, line = tinyface_metrics(
            probe.values, match.values, distractor.values, found.probe_people, found.match_people
        )
    except UserError as e:
        raise UserError(f"{parts.paths[0]} with {source.name}: {e}") from e
    record = {
        "folder": str(parts.paths[0]),
        "images": sum(map(len, (found.probe, found.match, found.distractor))),
        **probe.record,
        "match": match.record,
        "distractor": distractor.record,
    }
    return {"tinyface": SetResult({**record, **metrics}, {"cmc": line})}


def tinyface_metrics(
    probe: np.ndarray,
    match: np.ndarray,
    distractor: np.ndarray,
    probe_people: np.ndarray,
    match_people: np.ndarray,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the numbers for JSON, and the line of rates by rank.

    A probe's rank is that of its best mate among all matches and distractors, cosines that are
    equal to the mate's before it; probes without a mate are left out, and counted.

    Args:
        probe: features [Q, D], f(x) + f(mirror x), of any length.
        match: features [M, D].
        distractor: features [N, D].
        probe_people: int [Q].
        match_people: int [M].

    Returns:
        `probes`, `without_mate`, `distractors` (counts), and `closed_set` with ranks 1, 5, 20.

    Raises:
        UserError: no probe has a mate, or what search_people raises.
    """
    people = np.concatenate([match_people, np.full(len(distractor), _DISTRACTOR)])
    features = np.concatenate([match, distractor])
    gallery = Entries(features, np.ones(len(people), np.int64), people)
    searches = search_people(gallery, probe, probe_people)
    if not len(searches.ranks):
        raise UserError(f"none of {len(probe)} probes has a mate in Gallery_Match")
    metrics = {
        "probes": len(probe),
        "without_mate": len(probe) - len(searches.ranks),
        "distractors": len(distractor),
        "closed_set": closed_set(searches, RANKS),
    }
    return metrics, cmc_line(searches)


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table."""
    closed = metrics["closed_set"]
    return {
        "gallery": f"{closed['gallery']:,}",
        "mated probes": f"{closed['mated']:,}",
        "without mate": f"{metrics['without_mate']:,}",
        **{f"rank {entry['rank']}": f"{entry['rate']:.2%}" for entry in closed["ranks"]},
    }


TINYFACE = Protocol(
    "TinyFace",
    PartNames("FOLDER of TinyFace", {"aligned": "FOLDER of the copies of 112x112"}),
    run,
    row,
)
