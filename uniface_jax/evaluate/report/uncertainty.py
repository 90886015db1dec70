"""Tables of intervals, and notes on what a set is too small for, from the metrics of sets."""

from collections.abc import Iterator, Mapping
from typing import Any

HEAD = "95 % interval"
_DRAWN = "drawn"
Table = tuple[list[str], list[list[str]]]


def intervals_table(sets: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Return heads and rows of a table: a row a number, a column a set; None without intervals.

    sets: metrics by what heads its column. The rows' heads are those of the protocols' own tables;
    `drawn` says what was drawn again.
    """
    columns = {name: interval_cells(metrics) for name, metrics in sets.items()}
    columns = {name: cells for name, cells in columns.items() if cells}
    if not columns:
        return None
    names = dict.fromkeys(name for cells in columns.values() for name in cells)
    rows = [[name, *(cells.get(name, "") for cells in columns.values())] for name in names]
    return [HEAD, *columns], rows


def interval_cells(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the intervals of a set by the heads of its numbers; {} where it has none.

    >>> rate = {"lower": 0.9, "upper": 0.95, "method": "bootstrap"}
    >>> ranks = [{"rank": 1, "rate": rate}]
    >>> interval_cells({"intervals": {"units": "people", "count": 40, "ranks": ranks}})
    {'rank 1': '90.00 … 95.00%', 'drawn': '40 people'}
    """
    intervals = metrics.get("intervals")
    if not intervals:
        return {}
    cells = dict(_cells(intervals))
    if "without_mirror" in intervals:
        cells["without mirror"] = _shown(intervals["without_mirror"]["accuracy"])
    return {**cells, _DRAWN: f"{intervals['count']:,} {intervals['units']}"}


def notes(metrics: Mapping[str, Any]) -> list[str]:
    """Return what is said of the rates that a set is too small for."""
    entries = [*metrics.get("thresholds", ()), *metrics.get("thresholds_1n", ())]
    return [str(entry["note"]) for entry in entries if "note" in entry]


def _cells(intervals: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield head and interval of each number."""
    if "accuracy" in intervals:
        yield "accuracy", _shown(intervals["accuracy"])
    for reading, mark in (("nearest", "≈"), ("strict", "≤")):
        for entry in intervals.get("tar_at_far", ()):
            if reading in entry:
                yield f"TAR@FAR{mark}{entry['far']:g}", _shown(entry[reading]["tar"])
    for entry in intervals.get("ranks", ()):
        yield f"rank {entry['rank']}", _shown(entry["rate"])
    for entry in intervals.get("open_set", {}).get("open_set", ()):
        yield f"TPIR@FPIR≤{entry['target']:g}", _shown(entry["tpir"])


def _shown(interval: Mapping[str, Any]) -> str:
    return f"{interval['lower'] * 100:.2f} … {interval['upper']:.2%}"
