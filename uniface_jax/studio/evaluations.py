"""Sets of an evaluation as the page shows them: counts at thresholds, histogram, hardest pairs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from uniface_jax.evaluate.report.results import Run
from uniface_jax.files.printable import printable

_PICTURE = "data:image/jpeg;base64,"  # by which each picture of a Run begins
Shown = dict[str, Any]


class SetName(NamedTuple):
    """Place of a set in a Run."""

    protocol: str
    name: str

    def __str__(self) -> str:
        return printable(f"{self.protocol}/{self.name}")


def sets_of(run: Run) -> list[SetName]:
    """Return the sets that have a curve or pairs to show, in their order."""
    return [
        SetName(protocol, name)
        for protocol, sets in run.drawings.items()
        for name, drawings in sets.items()
        if {"counts", "scores", "pairs"} & drawings.keys()
    ]


def shown_set(run: Run, at: SetName) -> Shown:
    """Return what the page shows of a set, for JSON.

    `same` and `different`: how many pairs there are. `points`: cosines, falling, and how many of
    each kind reach them. `histogram`, `bars` (the 95 % intervals of TAR at `far`) and `pairs`: null
    where there are none. `start`: the cosine to begin with. `notes`: what the set is too small for.
    """
    drawings: Mapping[str, Any] = run.drawings[at.protocol][at.name]
    metrics = run.metrics["protocols"][at.protocol]["sets"][at.name]
    totals, points = points_of(drawings)
    thresholds = list(drawings.get("scores", {}).get("thresholds", {}).values())
    middle = points["cosine"][len(points["cosine"]) // 2] if points["cosine"] else 0.0
    return {
        "name": str(at),
        "same": totals[0],
        "different": totals[1],
        "points": points,
        "histogram": _histogram(drawings),
        "bars": drawings.get("roc", {}).get("intervals"),
        "pairs": _pairs(drawings),
        "start": thresholds[-1] if thresholds else middle,
        "notes": [
            printable(str(entry["note"]))
            for entry in metrics.get("thresholds") or ()
            if "note" in entry
        ],
    }


def points_of(drawings: Mapping[str, Any]) -> tuple[tuple[int, int], dict[str, list[float]]]:
    """Return how many same and different pairs there are, and how many reach each cosine.

    The cosines are those of `counts`, and the edges of the histogram where it has all pairs; with
    neither, or of one kind alone, there are no points.
    """
    found: dict[float, tuple[int, int]] = {}
    totals = (0, 0)
    if counts := drawings.get("counts"):
        reached = zip(counts["same"], counts["different"], strict=True)
        found = {
            float(cosine): (int(same), int(different))
            for cosine, (same, different) in zip(counts["thresholds"], reached, strict=True)
        }
        totals = int(counts["same"][-1]), int(counts["different"][-1])
    if scores := drawings.get("scores"):
        of_edges = [_reaching(scores[kind]) for kind in ("same", "different")]
        binned = of_edges[0][0], of_edges[1][0]
        if binned == totals or not found:
            totals = binned
            at_edges = zip(scores["edges"], *of_edges, strict=True)
            found |= {float(edge): (same, different) for edge, same, different in at_edges}
    if not all(totals):
        return totals, {"cosine": [], "same": [], "different": []}
    ordered = _monotonic(sorted(found.items(), reverse=True))
    return totals, {
        "cosine": [cosine for cosine, _ in ordered],
        "same": [same for _, (same, _) in ordered],
        "different": [different for _, (_, different) in ordered],
    }


def _reaching(counts: Sequence[float]) -> list[int]:
    """Return how many scores of a histogram reach each of its edges."""
    rising = np.asarray(counts, np.int64)[::-1].cumsum()[::-1]
    return [*rising.tolist(), 0]


def _monotonic(
    points: Sequence[tuple[float, tuple[int, int]]],
) -> list[tuple[float, tuple[int, int]]]:
    """Return the points, of falling cosines, without those whose counts fall as well.

    Edges are rounded, so that one of them may stand on the other side of a score; and files may
    come from anywhere.
    """
    kept: list[tuple[float, tuple[int, int]]] = []
    for cosine, (same, different) in points:
        if not kept or (same >= kept[-1][1][0] and different >= kept[-1][1][1]):
            kept.append((cosine, (same, different)))
    return kept


def _histogram(drawings: Mapping[str, Any]) -> Shown | None:
    scores = drawings.get("scores")
    if not scores or not all(a < b for a, b in itertools.pairwise(scores["edges"])):
        return None
    return {key: scores[key] for key in ("edges", "same", "different")}


def _pairs(drawings: Mapping[str, Any]) -> Shown | None:
    """Return the hardest pairs with pictures in base64 alone, and names as text."""
    pairs = drawings.get("pairs")
    if not pairs:
        return None
    return {
        kind: [
            {
                "score": pair["score"],
                "sides": [
                    {
                        "label": printable(side["label"]),
                        "picture": (side.get("picture") or "").removeprefix(_PICTURE) or None,
                    }
                    for side in pair["sides"]
                ],
            }
            for pair in pairs[kind]
        ]
        for kind in ("same", "different")
    }
