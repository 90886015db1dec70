"""Statistics of a converted data set: images per class, sizes, and duplicates."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.data.conversion.shard import ShardReport
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import replacing, write_bytes
from uniface_jax.files.bounded_json import read_json

STATISTICS_FILE, PLOT_FILE = "statistics.json", "statistics.png"
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_HISTOGRAM_BINS = 50
_WIDE_RATIO = 20  # the largest over the smallest, from where bins and axes are logarithmic
_MAX_LISTED_GROUPS = 1000
_MAX_LISTED_SIZES = 20
_PART_DIGESTS = 1 << 22  # images whose digests are compared in memory at once


class Collector:
    """A collector of statistics from shards' reports."""

    def __init__(self, num_classes: int, images: int):
        """Expect `images` images of `num_classes` classes."""
        self._num_classes, self._images = num_classes, images

    def collect(self, reports: Callable[[], Iterable[ShardReport]]) -> dict[str, Any]:
        """Return the statistics, ready for JSON.

        images_per_class, image_bytes: quantiles and a histogram. sizes: the commonest heights and
        widths. duplicates: groups of records with the same bytes, of one class or of several; the
        first 1,000 groups are listed by record number and label.

        reports: gives all reports; it is called again for every part of the digests.
        """
        per_class = np.zeros(self._num_classes, np.int64)
        encoded, shapes = [], Counter[tuple[int, int]]()
        for report in reports():
            per_class += np.bincount(report.labels, minlength=self._num_classes)
            encoded.append(report.sizes[:, 0])
            found, counts = np.unique(report.sizes[:, 1:], axis=0, return_counts=True)
            for (height, width), count in zip(found.tolist(), counts.tolist(), strict=True):
                shapes[height, width] += count
        return {
            "images": self._images,
            "classes": self._num_classes,
            "classes_without_images": int((per_class == 0).sum()),
            "images_per_class": _summary(per_class),
            "image_bytes": _summary(np.concatenate(encoded)),
            "sizes": [
                {"height": height, "width": width, "images": count}
                for (height, width), count in shapes.most_common(_MAX_LISTED_SIZES)
            ],
            "different_sizes": len(shapes),
            "duplicates": self._duplicates(reports),
        }

    def _duplicates(self, reports: Callable[[], Iterable[ShardReport]]) -> dict[str, Any]:
        """Return groups of equal 128-bit digests, found in one part of the digests at a time."""
        parts = -(-self._images // _PART_DIGESTS)
        same_class = several_classes = surplus = 0
        groups: list[dict[str, Any]] = []
        for part in range(parts):
            records, labels = _records_of_part(reports(), part, parts)
            for group in _equal(records["digest"]):
                numbers = records["number"][group]
                classes = labels[group]
                several = len(np.unique(classes)) > 1
                several_classes += several
                same_class += not several
                surplus += len(group) - 1
                groups.append({"records": numbers.tolist(), "labels": classes.tolist()})
                if len(groups) > 2 * _MAX_LISTED_GROUPS:
                    groups = _first(groups)
        return {
            "groups_of_one_class": same_class,
            "groups_of_several_classes": several_classes,
            "surplus_images": surplus,
            "listed": _first(groups),
        }


def write_statistics(destination: Path, statistics: dict[str, Any]) -> None:
    """Write statistics.json, atomically."""
    content = json.dumps(statistics, indent=1).encode() + b"\n"
    write_bytes(destination / STATISTICS_FILE, content)


def read_statistics(destination: Path) -> dict[str, Any]:
    """Return statistics.json of the data set in `destination`; UserError when it is not usable."""
    file = destination / STATISTICS_FILE
    values = read_json(file, "python -m uniface_jax.convert writes it")
    keys = ("images_per_class", "image_bytes", "sizes", "duplicates")
    if not isinstance(values, dict) or not values.keys() >= set(keys):
        raise UserError(f"{file}: not a data set's statistics, which have {', '.join(keys)}")
    return values


def plot_statistics(statistics: dict[str, Any], file: Path) -> None:
    """Draw images per class, encoded sizes and duplicates as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    for axis, key, label in (
        (axes[0], "images_per_class", "images of a class"),
        (axes[1], "image_bytes", "bytes of an encoded image"),
    ):
        summary = statistics[key]
        edges = np.array(summary["histogram"]["edges"])
        axis.stairs(summary["histogram"]["counts"], edges, fill=True, color="tab:blue")
        median = summary["quantiles"]["50"]
        axis.axvline(median, color="black", linewidth=1, label=f"median {median:,.10g}")
        axis.set_xlabel(label)
        axis.legend(frameon=False)
        if edges[-1] > _WIDE_RATIO * max(edges[0], 1):
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlim(edges[0], edges[-1])
    axes[0].set_ylabel("classes")
    axes[1].set_ylabel("images")
    axes[0].set_title(f"{statistics['images']:,} images of {statistics['classes']:,} classes")
    duplicates = statistics["duplicates"]
    names = ("one class", "several\nclasses")
    values = (duplicates["groups_of_one_class"], duplicates["groups_of_several_classes"])
    bars = axes[2].bar(names, values, color=("tab:gray", "tab:red"))
    axes[2].bar_label(bars, labels=[f"{value:,}" for value in values])
    axes[2].set_ylim(0, max(*values, 1) * 1.15)
    axes[2].set_ylabel("groups")
    axes[2].set_xlabel("same bytes more than once")
    axes[2].set_title(f"{duplicates['surplus_images']:,} surplus images")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _summary(values: np.ndarray) -> dict[str, Any]:
    """Return mean, quantiles and a histogram of integers; wide ranges have growing bins."""
    low, high = int(values.min()), int(values.max())
    if high > _WIDE_RATIO * max(low, 1):
        edges = np.unique(np.geomspace(max(low, 1), high + 1, _HISTOGRAM_BINS + 1).round())
        edges = edges if low else np.append(0, edges)
    else:
        step = max(1, -(-(high + 1 - low) // _HISTOGRAM_BINS))
        edges = np.arange(low, high + 1 + step, step, dtype=float)
    edges -= 0.5  # so that an integer stands in the middle of its bin
    counts, _ = np.histogram(values, edges)
    return {
        "mean": float(values.mean()),
        "quantiles": {
            str(q): float(value)
            for q, value in zip(QUANTILES, np.percentile(values, QUANTILES), strict=True)
        },
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _records_of_part(
    reports: Iterable[ShardReport], part: int, parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return number and digest of the records whose digest falls into `part`, and their labels."""
    chosen, labels, start = [], [], 0
    for report in reports:
        mine = np.flatnonzero(report.digests[:, 0] % np.uint64(parts) == part)
        rows = np.empty(len(mine), [("digest", "<u8", 2), ("number", "<i8")])
        rows["digest"], rows["number"] = report.digests[mine], mine + start
        chosen.append(rows)
        labels.append(report.labels[mine])
        start += len(report.labels)
    return np.concatenate(chosen), np.concatenate(labels)


def _equal(digests: np.ndarray) -> Iterable[np.ndarray]:
    """Yield the groups of two and more equal rows of uint64 [K, 2]: their places, ascending."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    starts = np.flatnonzero(np.append(True, (ordered[1:] != ordered[:-1]).any(1)))
    lengths = np.diff(np.append(starts, len(ordered)))
    for begin, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        yield np.sort(order[begin : begin + length])


def _first(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups that are listed, by their first record."""
    return sorted(groups, key=lambda group: group["records"])[:_MAX_LISTED_GROUPS]
