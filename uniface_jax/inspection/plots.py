"""Figures of an inspection. Each function makes a figure; `save` writes it as a PNG.

Notebooks show the figures as they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from uniface_jax.evaluate.report.plots import (
    BLUE,
    INK,
    ORANGE,
    letters,
    line_style,
    style_axes,
)
from uniface_jax.files.atomic import replacing
from uniface_jax.inspection.curves import Curves
from uniface_jax.inspection.hyperparameters import CURVE_VALUES, DEFAULTS, curves_at, threshold
from uniface_jax.inspection.similarity import EDGES, Similarities
from uniface_jax.inspection.workdir import History

_PERCENT = PercentFormatter(1.0, decimals=None)
_SYMBOLS = {
    "margin": "margin m",
    "negative_weight": "weight of negatives λ",
    "sampling_rate": "sampling rate r",
    "scale": "scale s",
}
_MARK: dict[str, Any] = {"color": INK, "linewidth": 1.0}


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path` as a PNG, atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def curves_figure(curves: Mapping[str, Curves], title: str) -> Figure:
    """Draw losses over the cosine of one positive and one negative, and their slopes below."""
    figure, panels = _panels(title, 2, 2)
    for line, (name, curve) in enumerate(curves.items()):
        style = line_style(line)
        panels[0][0].plot(curve.cos, curve.positive, label=letters(name), **style)
        panels[0][1].plot(curve.cos, curve.negative - curve.negative.min(), **style)
        panels[1][0].plot(curve.cos, -curve.positive_slope, **style)
        panels[1][1].plot(curve.cos, curve.negative_slope, **style)
    style_axes(panels[0][0], "loss over the positive's cosine")
    style_axes(panels[0][1], "rise of the loss over one negative's cosine")
    style_axes(panels[1][0], "pull on the positive: −dloss/dcos")
    style_axes(panels[1][1], "push on the negative: dloss/dcos")
    for panel in (*panels[0], *panels[1]):
        panel.set_xticks(np.linspace(-1, 1, 5))
    for panel in panels[1]:
        panel.set_xlabel("cosine of sample and prototype")
    _legend(figure, columns=min(4, len(curves)))
    return figure


def similarities_figure(
    runs: Mapping[str, Similarities], title: str, readings: Mapping[str, float] | None = None
) -> Figure:
    """Draw histograms of positive and negative similarities, one row a run, linear and log.

    readings: named thresholds to be marked, of all rows; None marks each run's own threshold.
    """
    figure, panels = _panels(title, len(runs), 2)
    edges = EDGES[::25]
    lows: list[float] = []
    for row, (name, found) in zip(panels, runs.items(), strict=True):
        counts = found.counts.reshape(-1, 25).sum(1) / found.negatives
        positives = np.histogram(found.positive, edges)[0] / len(found.positive)
        marks = readings or ({"b/s": found.threshold} if found.threshold is not None else {})
        for axes, words in zip(row, ("", ", logarithmic"), strict=True):
            for heights, color, kind in (
                (counts, ORANGE, "negative"),
                (positives, BLUE, "positive"),
            ):
                axes.stairs(
                    heights,
                    edges,
                    fill=True,
                    facecolor=(color, 0.45),
                    edgecolor=color,
                    label=kind,
                )
            for line, (reading, value) in enumerate(marks.items()):
                dashes = line_style(line)["linestyle"]
                axes.axvline(value, linestyle=dashes, label=f"threshold {reading}", **_MARK)
            style_axes(axes, f"{name}: share of each kind{words}")
        lows += [float(found.positive.min()), float(edges[np.flatnonzero(counts)[0]])]
        row[0].yaxis.set_major_formatter(_PERCENT)
        row[1].set_yscale("log")
    for axes in figure.axes:  # the same cosines below each other
        axes.set_xlim(min(lows) - 0.05, 1)
    for axes in panels[-1]:
        axes.set_xlabel("cosine of sample and prototype")
    _legend(figure, columns=4)
    return figure


def dominance_figure(runs: Mapping[str, Similarities], title: str) -> Figure:
    """Draw each sample's and class's positives against its largest negative, one row a run.

    Above the diagonal the positive dominates its own row or column. One threshold for all exists
    where the horizontal line, the smallest positive, is above the vertical one's crossing with the
    diagonal, the largest negative.
    """
    figure, panels = _panels(title, len(runs), 2)
    for row, (name, found) in zip(panels, runs.items(), strict=True):
        kinds = (
            ("rows: each sample", found.row_negative, found.positive, "its positive"),
            ("columns: each class", found.column_negative, found.column_positive,
             "its smallest positive"),
        )  # fmt: skip
        highest, lowest = found.row_negative.max(), found.positive.min()
        low = min(float(found.row_negative.min()), float(lowest)) - 0.05
        for axes, (kind, negative, positive, word) in zip(row, kinds, strict=True):
            shown = np.isfinite(positive) & np.isfinite(negative)
            dominated = positive[shown] > negative[shown]
            for chosen, color, size, label in (
                (dominated, BLUE, 9, "positive above the largest negative"),
                (~dominated, ORANGE, 24, "negative at or above the positive"),
            ):
                axes.scatter(
                    negative[shown][chosen], positive[shown][chosen], s=size, color=color,
                    alpha=0.7, linewidths=0, label=label, zorder=3,
                )  # fmt: skip
            axes.plot([low, 1], [low, 1], linestyle="-", label="equal", color=INK, linewidth=0.8)
            axes.axhline(lowest, linestyle="--", label="smallest positive of all", **_MARK)
            axes.axvline(highest, linestyle=":", label="largest negative of all", **_MARK)
            axes.set_xlim(low, max(1.0 if highest > 0.8 else 0.0, highest + 0.08))
            axes.set_ylim(low, 1.02)
            axes.set_ylabel(word)
            share = f"{np.mean(dominated):.1%}" if len(dominated) else "none"
            style_axes(axes, f"{name}, {kind}: {share} dominate")
    for axes in panels[-1]:
        axes.set_xlabel("its largest negative")
    _legend(figure, columns=3)
    return figure


def history_figure(runs: Mapping[str, History], title: str) -> Figure:
    """Draw thresholds and the extremes of the similarities over training, one row a run.

    On the right the shares on the wrong side of the threshold, which are of single batches.
    """
    figure, panels = _panels(title, len(runs), 2)
    names = (
        ("threshold", "b/s"),
        ("threshold_without_log", "(b − log(C−1))/s"),
        ("min_positive", "smallest positive of the batch"),
        ("max_negative", "largest negative of the batch"),
    )
    shares = (
        ("positives_below", "positives below b/s"),
        ("negatives_above", "negatives above b/s"),
    )
    for row, (name, history) in zip(panels, runs.items(), strict=True):
        for line, (key, label) in enumerate(names):
            if key in history:
                row[0].plot(history["step"], history[key], label=label, **line_style(line))
        for line, (key, label) in enumerate(shares, len(names)):
            if key in history and "threshold" in history:
                row[1].plot(history["step"], history[key], label=label, **line_style(line))
        style_axes(row[0], f"{name}: cosines")
        style_axes(row[1], f"{name}: share on the wrong side")
        row[1].yaxis.set_major_formatter(_PERCENT)
    for axes in panels[-1]:
        axes.set_xlabel("step")
    _legend(figure, columns=3)
    return figure


def hyperparameters_figure(
    found: Similarities,
    sweeps: Mapping[str, Mapping[str, Any]],
    title: str,
    defaults: Mapping[str, float] = DEFAULTS,
) -> Figure:
    """Draw UCE's slopes at a few values of m, λ, r and s, and the threshold over each of them."""
    figure, panels = _panels(title, 2, 4)
    for column, (key, sweep) in enumerate(sweeps.items()):
        top, bottom = panels[0][column], panels[1][column]
        for line, value in enumerate(CURVE_VALUES[key]):
            curve = curves_at(found, {**defaults, key: value})
            label, style = f"{_SYMBOLS[key][-1]} = {value:g}", line_style(line)
            top.plot(curve.cos, -curve.positive_slope, label=label, **style)
            top.plot(curve.cos, curve.negative_slope, **{**style, "linewidth": 0.9})
        top.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
        top.set_xlim(-0.3, 1)
        top.set_ylim(-3, 1.15 * top.dataLim.ymax)
        top.set_xlabel("cosine")
        style_axes(top, f"slopes by {_SYMBOLS[key]}")
        bottom.plot(sweep["values"], sweep["thresholds"], **line_style(0))
        bottom.plot([defaults[key]], [threshold(found, defaults)], "o", color=INK)
        if key != "margin":
            bottom.set_xscale("log")
        bottom.set_xlabel(_SYMBOLS[key])
        style_axes(bottom, "unified threshold b/s")
    panels[0][0].set_ylabel("pull on positive (bold), push on negative (thin)", fontsize=9)
    lowest = min(min(sweep["thresholds"]) for sweep in sweeps.values())
    highest = max(max(sweep["thresholds"]) for sweep in sweeps.values())
    for axes in panels[1]:
        axes.set_ylim(lowest - 0.02, highest + 0.02)
    return figure


def _panels(title: str, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(4.7 * columns, 1.0 + 3.4 * rows), dpi=110, layout="constrained")
    figure.suptitle(letters(title), fontsize=12, x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _legend(figure: Figure, columns: int) -> None:
    """Draw one legend for all panels, each name once."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=columns,
        frameon=False,
    )  # fmt: skip
