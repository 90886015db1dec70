"""Protocol `open_set`: search of probes in a gallery of one's own, known and unknown people."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import open_set_det_line
from uniface_jax.evaluate.features import Features, FeatureSource
from uniface_jax.evaluate.metrics.identification import Entries, Searches, search_people
from uniface_jax.evaluate.protocols.base import Options, Protocol, Results
from uniface_jax.evaluate.protocols.searches import search_cells, search_result
from uniface_jax.evaluate.sets.search_sets import (
    NOBODY,
    SearchSet,
    Side,
    read_search_folders,
    read_search_table,
)

RANKS = (1, 5, 10, 20)
FPIRS = (1e-3, 1e-2, 1e-1)


def run(parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Evaluate the set `open_set`; all files are read before anything is embedded."""
    found = _read(parts, options)
    gallery, probes = (_features(side, source) for side in (found.gallery, found.probes))
    try:
        searches = searched(gallery[0], found.gallery.people, probes[0], found.probes.people)
    except UserError as e:
        raise UserError(f"open_set with {source.name}: {e}") from e
    record = {
        "images": len(gallery[0]) + len(probes[0]),
        "people": searches.gallery,
        "probes": len(probes[0]),
        **gallery[1][0],
        "probe_sets": probes[1],
    }
    if found.left_out:
        record["left_out"] = list(found.left_out)
    result = search_result(
        record,
        searches,
        _people_of_probes(found),
        ranks=RANKS,
        targets=options.fars_or(FPIRS),
    )
    if len(searches.best_scores):
        det = {"open_set_det": open_set_det_line(searches)}
        result = replace(result, drawings={**result.drawings, **det})
    return {"open_set": result}


def _people_of_probes(found: SearchSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the people of mated and of unknown probes; each unknown image is one of its own."""
    people = found.probes.people
    mated = np.isin(people, found.gallery.people)
    unknown = [name or f"/{row}" for row, name in enumerate(people[~mated].tolist())]
    return people[mated], np.array(unknown)


def searched(
    gallery: np.ndarray, people: np.ndarray, probes: np.ndarray, wanted: np.ndarray
) -> Searches:
    """Search probes among the people of a gallery, whose score is that of their best image.

    Args:
        gallery: features [G, D].
        people: [G], the label of each feature's person.
        probes: features [Q, D].
        wanted: [Q], the label of each probe's person, who may be in no entry.
    """
    order = np.argsort(people, kind="stable")
    names, sizes = np.unique(people, return_counts=True)
    return search_people(Entries(gallery[order], sizes, names), probes, wanted)


def _read(parts: Parts, options: Options) -> SearchSet:
    given = dict(parts.named)
    table, root = given.pop("table", None), given.pop("root", None)
    if table is not None:
        if given:
            raise UserError(
                f"--data: open_set: table= and {min(given)}=; expected one or the other"
            )
        found = read_search_table(table, root)
    else:
        if not {"gallery", "probe"} <= set(given) or root is not None:
            wrong = "root= without table=" if root is not None else "no gallery= and probe="
            raise UserError(f"--data: open_set: {wrong}; it takes {OPEN_SET.takes.describe()}")
        found = read_search_folders(**given, skip_faults=options.skip_faults)
    enrolled = np.unique(found.gallery.people)
    if not np.isin(found.probes.people, enrolled).any():
        asked = len(found.probes.people) - int(np.count_nonzero(found.probes.people == NOBODY))
        raise UserError(f"open_set: none of {asked} probes shows a person of the gallery")
    return found


def _features(side: Side, source: FeatureSource) -> tuple[np.ndarray, list[Mapping[str, Any]]]:
    found: list[Features] = [source.features(images) for images in side.images]
    widths = {of.values.shape[1] for of in found}
    if len(widths) > 1:
        raise UserError(f"features of {sorted(widths)} numbers; expected as many of all images")
    return np.concatenate([of.values for of in found]), [of.record for of in found]


def row(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of the table."""
    return {"probes": f"{metrics['probes']:,}", **search_cells(metrics)}


OPEN_SET = Protocol(
    "Open-set identification",
    PartNames(
        "",
        {
            "gallery": "FOLDER/PERSON/IMAGE",
            "probe": "FOLDER/PERSON/IMAGE",
            "unknown": "FOLDER of images of people who are not in the gallery",
            "table": "FILE.csv of lines image,person,set instead of folders",
            "root": "FOLDER of the table's images",
        },
    ),
    run,
    row,
)
