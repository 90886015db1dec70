"""Figures of an evaluation, of what drawings.py gives; as PNG or SVG, without pyplot's state.

Colors are Okabe and Ito's, which color-blind readers can tell apart; lines differ in dashes too.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from uniface_jax.evaluate.drawings import Drawing
from uniface_jax.files.atomic import replacing
from uniface_jax.files.printable import printable

BLUE, ORANGE, INK, GRID = "#0072B2", "#E69F00", "#222222", "#DDDDDD"
_COLORS = (BLUE, "#D55E00", "#009E73", "#CC79A7", ORANGE, "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_LEGEND_LETTERS = 42  # that half of a figure has room for in its legend
_PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}")


def roc_figure(lines: Mapping[str, Drawing], title: str) -> Figure:
    """Draw TAR over FAR (logarithmic) of named drawings.roc_line, with bars of its intervals."""
    figure, axes = _figure(title)
    for number, (name, line) in enumerate(lines.items()):
        style = line_style(number)
        axes.plot(
            line["far"], line["tar"], drawstyle="steps-post", label=_label(name, line), **style
        )
        if bars := line.get("intervals"):
            _interval_bars(axes, bars, style["color"], number)
    _far_axis(axes, lines)
    axes.set_ylabel("TAR: same pairs accepted")
    bottoms = [line.get("intervals", {}).get("lower", []) for line in lines.values()]
    lowest = min(line["tar"][0] for line in lines.values())
    lowest = min([lowest, *(min(bottom) for bottom in bottoms if bottom)])
    axes.set_ylim(max(0.0, min(lowest, 0.9) - 0.05), 1.005)
    return _finished(figure)


def _interval_bars(axes: Axes, bars: Drawing, color: str, line: int) -> None:
    """Draw the 95 % interval of TAR at each target FAR; those of later lines a little aside."""
    far = np.asarray(bars["far"]) * 1.06**line
    axes.vlines(far, bars["lower"], bars["upper"], color=color, linewidth=1.2, alpha=0.9)
    for ends in (bars["lower"], bars["upper"]):
        axes.plot(far, ends, linestyle="none", marker="_", markersize=7, color=color)


def det_figure(lines: Mapping[str, Drawing], title: str) -> Figure:
    """Draw 1 - TAR over FAR, both logarithmic, of named drawings.roc_line."""
    figure, axes = _figure(title)
    bottom = 10 ** np.floor(np.log10(min(1 / line["same"] for line in lines.values())))
    for number, (name, line) in enumerate(lines.items()):
        missed = np.maximum(1 - np.asarray(line["tar"]), bottom)
        style = line_style(number)
        axes.plot(line["far"], missed, drawstyle="steps-post", label=_label(name, line), **style)
    _far_axis(axes, lines)
    axes.set_yscale("log")  # which brings its own labels
    axes.set_ylim(bottom * 0.8, 1)
    axes.set_ylabel(f"1 - TAR: same pairs rejected (0 is drawn at {bottom:.0e})")
    return _finished(figure)


def scores_figure(drawing: Drawing, title: str) -> Figure:
    """Draw the scores of same and of different pairs, of drawings.histogram."""
    figure, axes = _figure(title)
    edges = np.asarray(drawing["edges"])
    for kind, color in (("different", ORANGE), ("same", BLUE)):
        counts = np.asarray(drawing[kind])
        axes.stairs(
            counts / max(1, counts.sum()),
            edges,
            fill=True,
            facecolor=(color, 0.45),
            edgecolor=color,
            linewidth=1.5,
            label=f"{kind} ({counts.sum():,} pairs)",
        )
    for number, (name, threshold) in enumerate(drawing["thresholds"].items()):
        axes.axvline(
            threshold,
            color=INK,
            linestyle=_DASHES[number % len(_DASHES)],
            linewidth=1.2,
            label=f"{_entry(name)}: {threshold:.3f}",
        )
    axes.set_xlabel("cosine of the two features")
    axes.set_ylabel("share of the pairs of a kind")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    return _finished(figure)


def cmc_figure(lines: Mapping[str, Drawing], title: str) -> Figure:
    """Draw the share of probes with the mate among the first k, of named drawings.cmc_line."""
    figure, axes = _figure(title)
    for number, (name, line) in enumerate(lines.items()):
        axes.plot(line["ranks"], line["rates"], label=_entry(name), **line_style(number))
    axes.set_xscale("log")
    last = max(line["ranks"][-1] for line in lines.values())
    axes.set_xlim(1, max(last, 2))
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.set_xlabel("rank k")
    axes.set_ylabel("mate among the first k")
    _rate_axis(axes, [line["rates"] for line in lines.values()])
    return _finished(figure)


def open_set_figure(lines: Mapping[str, Drawing], title: str) -> Figure:
    """Draw TPIR over FPIR (logarithmic) of named drawings.open_set_line."""
    figure, axes = _figure(title)
    for number, (name, line) in enumerate(lines.items()):
        style = line_style(number)
        axes.plot(line["fpir"], line["tpir"], drawstyle="steps-post", label=_entry(name), **style)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *(line["fpir"][0] for line in lines.values())), 1)
    axes.set_xlabel("FPIR: unknown probes that are given an identity")
    axes.set_ylabel("TPIR: known probes that are given theirs")
    _rate_axis(axes, [line["tpir"] for line in lines.values()])
    return _finished(figure)


def open_set_det_figure(lines: Mapping[str, Drawing], title: str) -> Figure:
    """Draw FNIR over FPIR, both logarithmic, of named drawings.open_set_det_line."""
    figure, axes = _figure(title)
    missed = {name: np.asarray(line["fnir"]) for name, line in lines.items()}
    least = min(float(of[of > 0].min(initial=1)) for of in missed.values())
    bottom = 10 ** np.floor(np.log10(min(least, 0.1)))
    for number, (name, line) in enumerate(lines.items()):
        drawn = np.maximum(missed[name], bottom)
        style = line_style(number)
        axes.plot(line["fpir"], drawn, drawstyle="steps-post", label=_entry(name), **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(0.5, *(line["fpir"][0] for line in lines.values())), 1)
    axes.set_ylim(bottom * 0.8, 1)
    axes.set_xlabel("FPIR: unknown probes that are given an identity")
    axes.set_ylabel(f"FNIR: known probes that are not given theirs (0 is drawn at {bottom:.0e})")
    return _finished(figure)


def reject_figure(lines: Mapping[str, Drawing], title: str) -> Figure:
    """Draw FNMR over the share of rejected pairs, of the `lines` by FMR of named drawings."""
    figure, axes = _figure(title)
    drawn = [
        (f"{name}, {of}", line) for name, d in lines.items() for of, line in d["lines"].items()
    ]
    for number, (name, line) in enumerate(drawn):
        axes.plot(line["rejected"], line["fnmr"], label=_entry(name), **line_style(number))
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("pairs rejected, those of lowest quality first")
    axes.set_ylabel("FNMR: same pairs rejected by their cosine")
    return _finished(figure)


def distractors_figure(lines: Mapping[str, Drawing], title: str) -> Figure:
    """Draw rank-1 rates over the number of distractors, of named `distractors` and `rates`."""
    figure, axes = _figure(title)
    for number, (name, line) in enumerate(lines.items()):
        style = line_style(number)
        axes.plot(line["distractors"], line["rates"], marker="o", label=_entry(name), **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.set_xlabel("distractors")
    axes.set_ylabel("rank-1 identification")
    _rate_axis(axes, [line["rates"] for line in lines.values()])
    return _finished(figure)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure to `path` as PNG, atomically."""
    with replacing(path) as temporary, _letters_of_any_script():
        figure.savefig(temporary, format="png")


def to_svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same for the same figure."""
    buffer = io.StringIO()
    # Text stays text: smaller, and drawn in the reader's font. The salt makes identifiers fixed.
    with (
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "uniface_jax"}),
        _letters_of_any_script(),
    ):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@contextmanager
def _letters_of_any_script() -> Iterator[None]:
    """Draw a box for a letter that the font lacks, without the warning that names may cause."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def letters(name: str) -> str:
    r"""Return a name as text that Matplotlib draws letter for letter.

    Example:
        >>> print(letters("$x_{$"), letters("_hidden\n"))
        \$x_{\$  _hidden\n
    """
    # Between two dollars it would read a formula, and fail where that is none; a label that begins
    # with an underscore is left out of legends.
    text = printable(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, title)
    return figure, axes


def style_axes(axes: Axes, title: str) -> None:
    """Give axes a title, a faint grid, and no frame at the top and on the right."""
    axes.set_title(letters(title), fontsize=11, loc="left")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def line_style(line: int) -> dict[str, Any]:
    """Return color, dashes and width of the line-th curve of a figure."""
    return {
        "color": _COLORS[line % len(_COLORS)],
        "linestyle": _DASHES[line % len(_DASHES)],
        "linewidth": 1.8,
    }


def _label(name: str, line: Drawing) -> str:
    kinds = f"({line['same']:,} same, {line['different']:,} different)"
    return f"{_entry(name)} {kinds}"


def _entry(name: str) -> str:
    """Return a name as an entry of a legend."""
    return letters(short(name))


def short(name: str) -> str:
    """Return a name with its middle left out where a legend has no room for all of it."""
    fits = len(name) <= _LEGEND_LETTERS
    return name if fits else f"{name[: _LEGEND_LETTERS - 10]}…{name[-9:]}"


def _far_axis(axes: Axes, lines: Mapping[str, Drawing]) -> None:
    """Begin the axis at the power of ten below the smallest FAR that a line tells from 0."""
    finest = min(1 / line["different"] for line in lines.values())
    axes.set_xscale("log")
    axes.set_xlim(float(10 ** min(-1, np.floor(np.log10(finest)))), 1)
    axes.set_xlabel("FAR: different pairs accepted")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def _rate_axis(axes: Axes, rates: Sequence[Sequence[float]]) -> None:
    lowest = min(min(line) for line in rates)
    axes.set_ylim(max(0.0, min(lowest, 0.9) - 0.05), 1.005)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def _finished(figure: Figure) -> Figure:
    labels = [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]
    columns = 2 if max(map(len, labels)) <= _LEGEND_LETTERS else 1
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return figure
