"""Results of searches in a gallery, which several protocols have: metrics, drawings, cells."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniface_jax.evaluate.drawings import Drawing, cmc_line, open_set_line, resamples
from uniface_jax.evaluate.metrics.identification import (
    FPIRS,
    RANKS,
    Searches,
    closed_set,
    open_set,
)
from uniface_jax.evaluate.metrics.identification_intervals import (
    open_set_intervals,
    rank_intervals,
)
from uniface_jax.evaluate.protocols.base import SetResult


def search_result(
    record: Mapping[str, Any],
    found: Searches,
    people: tuple[np.ndarray, np.ndarray],
    more: Mapping[str, Any] | None = None,
    *,
    ranks: Sequence[int] = RANKS,
    targets: Sequence[float] = FPIRS,
) -> SetResult:
    """Return `closed_set`, `open_set` where there are unknown probes, drawings and intervals.

    Args:
        record: what metrics.json says of the data, before these.
        found: the searches.
        people: [mated] and [unknown], whose probe each is, by which resamples are drawn.
        more: metrics to stand behind these.
        ranks: of the closed set.
        targets: FPIRs of the open set.
    """
    mated, unknown = people
    closed = closed_set(found, ranks)
    resampled = rank_intervals(closed, found.ranks, mated)
    drawings: dict[str, Drawing] = {
        "cmc": cmc_line(found),
        "resamples": resamples(resampled.intervals, resampled.estimates, resampled.replicates),
    }
    metrics = {**record, "closed_set": closed}
    if not len(unknown):
        return SetResult({**metrics, **(more or {})}, drawings, {"intervals": resampled.intervals})
    entries = open_set(found, targets)
    opened = open_set_intervals(entries, found, mated, unknown)
    drawings["open_set"] = open_set_line(found)
    drawings["resamples_open_set"] = resamples(
        opened.intervals, opened.estimates, opened.replicates
    )
    intervals = {**resampled.intervals, "open_set": opened.intervals}
    return SetResult(
        {**metrics, "open_set": entries, **(more or {})},
        drawings,
        {"intervals": intervals, "thresholds_1n": opened.thresholds},
    )


def search_cells(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of search_result; in brackets a rate that the unknown probes cannot tell.

    >>> closed = {"gallery": 9, "mated": 4, "ranks": [{"rank": 1, "rate": 0.75}]}
    >>> search_cells({"closed_set": closed})
    {'gallery': '9', 'mated': '4', 'rank 1': '75.00%'}
    """
    closed = metrics["closed_set"]
    cells = {
        "gallery": f"{closed['gallery']:,}",
        "mated": f"{closed['mated']:,}",
        **{f"rank {entry['rank']}": f"{entry['rate']:.2%}" for entry in closed["ranks"]},
    }
    for entry in metrics.get("open_set", ()):
        shown = f"{entry['tpir']:.2%}"
        cells[f"TPIR@FPIR≤{entry['target']:g}"] = shown if entry["resolvable"] else f"({shown})"
    return cells
