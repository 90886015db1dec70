"""Figures of an evaluation: ROC, DET, and histograms of scores; PNG, without pyplot's state.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; lines differ in dashes too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from uniface_jax.data.files import replacing
from uniface_jax.evaluation.roc import Roc

BLUE, ORANGE, INK, GRID = "#0072B2", "#E69F00", "#222222", "#DDDDDD"
_COLOURS = (BLUE, "#D55E00", "#009E73", "#CC79A7", ORANGE, "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_MAX_POINTS = 4000  # of one drawn line; a PNG has no room for more


def plot_roc(path: Path, curves: Mapping[str, Roc], title: str) -> None:
    """Writes TAR over FAR (logarithmic) of named curves to `path`.

    A curve begins at the FAR of one different pair; its TAR at FAR 0 is the foot of that step.
    """
    figure, axes = _figure(title)
    left = _left_edge(curves)
    for line, (name, curve) in enumerate(curves.items()):
        far, tar = _steps(curve)
        axes.plot(far, tar, drawstyle="steps-post", label=_label(name, curve), **line_style(line))
    _far_axis(axes, left)
    axes.set_ylabel("TAR: same pairs accepted")
    lowest = min(float(_steps(curve)[1][0]) for curve in curves.values())
    axes.set_ylim(max(0.0, min(lowest, 0.9) - 0.05), 1.005)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    _save(figure, path)


def plot_det(path: Path, curves: Mapping[str, Roc], title: str) -> None:
    """Writes 1 - TAR over FAR, both logarithmic, of named curves to `path`."""
    figure, axes = _figure(title)
    left = _left_edge(curves)
    bottom = 10 ** np.floor(np.log10(min(1 / curve.positives for curve in curves.values())))
    for line, (name, curve) in enumerate(curves.items()):
        far, tar = _steps(curve)
        missed = np.maximum(1 - tar, bottom)
        axes.plot(
            far, missed, drawstyle="steps-post", label=_label(name, curve), **line_style(line)
        )
    _far_axis(axes, left)
    axes.set_yscale("log")
    axes.set_ylim(bottom * 0.8, 1)
    axes.set_ylabel(f"1 - TAR: same pairs rejected (0 is drawn at {bottom:.0e})")
    _save(figure, path)


def plot_scores(
    path: Path, scores: np.ndarray, same: np.ndarray, thresholds: Mapping[str, float], title: str
) -> None:
    """Writes the histograms of the cosines of same and of different pairs to `path`.

    scores: [P], -1..1; same: bool [P]. thresholds: named cosines, marked by vertical lines.
    """
    figure, axes = _figure(title)
    bins = np.linspace(float(scores.min()), float(scores.max()) + 1e-9, 61)
    for chosen, colour, kind in ((~same, ORANGE, "different"), (same, BLUE, "same")):
        count = int(chosen.sum())
        axes.hist(
            scores[chosen],
            bins=bins.tolist(),
            weights=np.full(count, 1 / max(1, count)),
            histtype="stepfilled",
            facecolor=(colour, 0.45),
            edgecolor=colour,
            linewidth=1.5,
            label=f"{kind} ({count:,} pairs)",
        )
    for line, (name, threshold) in enumerate(thresholds.items()):
        axes.axvline(
            threshold,
            color=INK,
            linestyle=_DASHES[line % len(_DASHES)],
            linewidth=1.2,
            label=f"{name}: {threshold:.3f}",
        )
    axes.set_xlabel("cosine of the two features")
    axes.set_ylabel("share of the pairs of a kind")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    _save(figure, path)


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, title)
    return figure, axes


def style_axes(axes: Axes, title: str) -> None:
    """Gives axes a title, a faint grid, and no frame at the top and on the right."""
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def line_style(line: int) -> dict[str, Any]:
    """Colour, dashes and width of the line-th curve of a figure."""
    return {
        "color": _COLOURS[line % len(_COLOURS)],
        "linestyle": _DASHES[line % len(_DASHES)],
        "linewidth": 1.8,
    }


def _label(name: str, curve: Roc) -> str:
    return f"{name} ({curve.positives:,} same, {curve.negatives:,} different)"


def _left_edge(curves: Mapping[str, Roc]) -> float:
    """The power of ten at or below the smallest FAR that any of the curves can tell from 0."""
    finest = min(1 / curve.negatives for curve in curves.values())
    return float(10 ** np.floor(np.log10(finest)))


def _far_axis(axes: Axes, left: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(left, 1)
    axes.set_xlabel("FAR: different pairs accepted")


def _steps(curve: Roc) -> tuple[np.ndarray, np.ndarray]:
    """(far, tar) to draw: the best TAR of each FAR, from the first FAR above 0 that it can have."""
    best = np.append(np.flatnonzero(np.diff(curve.false_accepts)), len(curve.thresholds) - 1)
    if len(best) > _MAX_POINTS:
        spread = np.geomspace(1, len(best), _MAX_POINTS).astype(int) - 1
        best = best[np.unique(spread)]
    return np.maximum(curve.far[best], 1 / curve.negatives), curve.tar[best]
