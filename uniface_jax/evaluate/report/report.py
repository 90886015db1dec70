"""report.html: tables, figures, the hardest pairs, and the paper's numbers beside one's own."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.report import differences, paper, plots, uncertainty
from uniface_jax.evaluate.report.html_page import (
    Block,
    FacePairs,
    Figures,
    Footer,
    Heading,
    Links,
    Paragraph,
    Table,
    page,
)
from uniface_jax.evaluate.report.results import REPORT, Run
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.printable import printable

MAX_LINES = 8  # of one figure
_NAME_BYTES = 80  # of a set's name in the name of a file
Lines = Mapping[str, Any]

# Drawings whose lines share a figure: by kind, (file name, title, how they are drawn).
_SHARED: dict[str, list[tuple[str, str, Callable[[Lines, str], Figure]]]] = {
    "roc": [("roc", "ROC", plots.roc_figure), ("det", "errors (DET)", plots.det_figure)],
    "cmc": [("cmc", "identification (CMC)", plots.cmc_figure)],
    "open_set": [("open_set", "open-set identification", plots.open_set_figure)],
    "open_set_det": [("open_set_det", "open-set errors (DET)", plots.open_set_det_figure)],
    "reject": [("reject", "errors versus rejected pairs", plots.reject_figure)],
    "distractors": [("distractors", "identification among distractors", plots.distractors_figure)],
}


def tables(*runs: Run) -> str:
    """Return the tables of runs as text, a protocol after another; names in it are printable.

    Several runs of the same protocols share tables, with a column of models.
    """
    parts = []
    several = len(runs) > 1
    for protocol in runs[0].metrics["protocols"]:
        parts.append(PROTOCOLS[protocol].title)
        sets = {
            run.name if several else "": run.metrics["protocols"][protocol]["sets"] for run in runs
        }
        shown = _tables(protocol, sets)
        for heads, rows in shown:
            parts += _aligned(heads, rows)
        if _bracketed(shown):
            parts.append("  (…): that rate is below one of the set's different pairs")
        if intervals := uncertainty.intervals_table(_columns(sets)):
            parts += _aligned(*intervals)
        parts += [f"  {printable(note)}" for note in _notes(sets)]
    return "\n".join(parts)


def difference_lines(runs: Sequence[Run]) -> list[str]:
    """Return the table of differences of runs on the same data as lines; [] without any."""
    found = differences.differences(runs)
    if not found:
        return []
    return ["Differences", *_aligned(*differences.table(found)), f"  {differences.EXPLAINED}"]


def _aligned(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table as indented lines."""
    lines = [[printable(cell) for cell in line] for line in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def write(folder: Path, runs: Sequence[Run]) -> None:
    """Write report.html of one or several runs, and its figures as figures/*.png."""
    title = " · ".join(run.name for run in runs)
    protocols = [
        name for name in PROTOCOLS if any(name in run.metrics["protocols"] for run in runs)
    ]
    body: list[Block] = [
        Heading(1, f"Evaluation of {title}"),
        Links({name: PROTOCOLS[name].title for name in protocols}),
        _models(runs),
    ]
    body += [Paragraph(f"Left out: {note}", note=True) for run in runs for note in run.notes]
    if found := differences.differences(runs):
        body += [
            Heading(2, "Differences", "differences"),
            Paragraph(differences.EXPLAINED, note=True),
            Table(*differences.table(found), text=(0, 1, 2)),
        ]
    for protocol in protocols:
        body.append(Heading(2, PROTOCOLS[protocol].title, protocol))
        body += _protocol(folder / "figures", protocol, runs)
    body += [Heading(2, "Data", "data"), _data(runs)]
    versions = runs[0].metrics["versions"]
    made = ", ".join(f"{name} {number}" for name, number in versions.items())
    body.append(Footer(f"Made by python -m uniface_jax.evaluate; {made}"))
    write_bytes(folder / REPORT, page(f"Evaluation of {title}", body).encode())


def _protocol(figures: Path, protocol: str, all_runs: Sequence[Run]) -> list[Block]:
    several = len(all_runs) > 1
    runs = [run for run in all_runs if protocol in run.metrics["protocols"]]
    sets = {run.name: run.metrics["protocols"][protocol]["sets"] for run in runs}
    shown = _tables(protocol, sets if several else {"": sets[runs[0].name]})
    parts: list[Block] = [
        Table(heads, rows, text=(0, 1) if several else ()) for heads, rows in shown
    ]
    if _bracketed(shown):
        parts.append(
            Paragraph(
                "In brackets: a rate below one of the set's different pairs, which the set cannot "
                "tell from none.",
                note=True,
            )
        )
    parts += _uncertainty(sets, several)
    parts += _beside_the_paper(protocol, runs)
    drawn = {
        name: _saved(figures / f"{protocol}_{name}.png", figure)
        for name, figure in _figures(protocol, runs, several).items()
    }
    parts.append(Figures.of(drawn))
    for run in runs:
        for name, drawings in run.drawings[protocol].items():
            pairs = drawings.get("pairs")
            if not pairs:
                continue
            of = f"{name}, {run.name}" if several else name
            for kind, what in (
                ("same", "hardest same pairs (lowest scores)"),
                ("different", "hardest different pairs (highest scores)"),
            ):
                if pairs[kind]:
                    parts += [Heading(3, f"{of}: {what}"), FacePairs.of(pairs[kind])]
    return parts


def _uncertainty(sets: Mapping[str, Mapping[str, Mapping[str, Any]]], several: bool) -> list[Block]:
    """Return the table of intervals, and notes, of sets by the model's name."""
    parts: list[Block] = []
    (alone, *_) = sets.values()
    columns = _columns(sets if several else {"": alone})
    if intervals := uncertainty.intervals_table(columns):
        parts.append(Table(*intervals))
    return [*parts, *(Paragraph(note, note=True) for note in _notes(sets))]


def _columns(sets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Mapping[str, Any]]:
    """Return the metrics by what heads their column: set and model, or the set where that is ""."""
    return {
        f"{name}, {model}" if model else name: metrics
        for model, of_model in sets.items()
        for name, metrics in of_model.items()
    }


def _notes(sets: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Return what is said of each set's rates, once for all models."""
    said = dict.fromkeys(
        f"{name}: {note}"
        for of_model in sets.values()
        for name, metrics in of_model.items()
        for note in uncertainty.notes(metrics)
    )
    return list(said)


def _bracketed(shown: Sequence[tuple[list[str], list[list[str]]]]) -> bool:
    """Return True where a cell of the tables is in brackets, the sets' names apart."""
    return any(cell.startswith("(") for _, rows in shown for row in rows for cell in row[1:])


def _tables(
    protocol: str, sets: Mapping[str, Mapping[str, Any]]
) -> list[tuple[list[str], list[list[str]]]]:
    """Return heads and rows of each table: sets whose rows have the same cells share one.

    sets: metrics by set, by the model's name; "" where no column of models is wanted.
    """
    found: dict[tuple[str, ...], list[list[str]]] = {}
    names = list(dict.fromkeys(name for of_model in sets.values() for name in of_model))
    for name in names:
        for model, of_model in sets.items():
            if name not in of_model:
                continue
            cells = PROTOCOLS[protocol].row(of_model[name])
            heads = ("set", *(["model"] if model else []), *cells)
            first = [name, model] if model else [name]
            found.setdefault(heads, []).append([*first, *cells.values()])
    return [(list(heads), rows) for heads, rows in found.items()]


def _figures(protocol: str, runs: Sequence[Run], several: bool) -> dict[str, Figure]:
    """Draw, by file name, one figure of all sets for one model, one a set for several."""
    figures: dict[str, Figure] = {}
    for kind, ways in _SHARED.items():
        groups: dict[str, dict[str, Any]] = {}
        for run in runs:
            for name, drawings in run.drawings[protocol].items():
                if kind in drawings:
                    group, line = (name, run.name) if several else ("", name)
                    groups.setdefault(group, {})[line] = drawings[kind]
        for group, lines in groups.items():
            names = list(lines)
            for start in range(0, len(names), MAX_LINES):
                few = {name: lines[name] for name in names[start : start + MAX_LINES]}
                for file, title, draw in ways:
                    key = "_".join(
                        filter(None, [_plain(group), file, str(start // MAX_LINES or "")])
                    )
                    of = plots.short(group or runs[0].name)
                    figures[_free(key, figures)] = draw(few, f"{of}: {title}")
    for number, run in enumerate(runs):
        for name, drawings in run.drawings[protocol].items():
            if "scores" in drawings:
                key = f"{_plain(name)}_scores" + (f"_{number + 1}" if several else "")
                title = f"{plots.short(run.name)} on {plots.short(name)}: scores of pairs"
                figures[_free(key, figures)] = plots.scores_figure(drawings["scores"], title)
    return figures


def _beside_the_paper(protocol: str, runs: Sequence[Run]) -> list[Block]:
    own: list[tuple[str, dict[str, float]]] = []
    for run in runs:
        values: dict[str, float] = {}
        for name, metrics in run.metrics["protocols"][protocol]["sets"].items():
            values |= paper.comparable(protocol, name, metrics)
        if values:
            own.append((run.name, values))
    keys = {key for _, values in own for key in values}
    published = paper.rows_for(keys)
    columns = [
        key for key in dict.fromkeys(k for row in published for k in row.values) if key in keys
    ]
    if not columns:
        return []

    def cells(values: Mapping[str, float]) -> list[str]:
        return [f"{values[key]:.2f}" if key in values else "" for key in columns]

    rows = [[name, "this evaluation", *cells(values)] for name, values in own]
    rows += [[row.method, row.training, *cells(row.values)] for row in published]
    return [
        Heading(3, "Beside the paper's numbers, in percent"),
        Table(["network", "trained on", *columns], rows, own=range(len(own)), text=(0, 1)),
    ]


def _models(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        model = run.metrics["model"]
        rows.append([run.name, str(model["description"]), str(model["sha256"])[:16]])
    return Table(["model", "what it is", "SHA-256"], rows, wrap=(1,))


def _data(runs: Sequence[Run]) -> Table:
    rows = {}
    for run in runs:
        for protocol, found in run.metrics["protocols"].items():
            for name, metrics in found["sets"].items():
                if digest := metrics.get("sha256"):
                    count = metrics.get("images")
                    rows[protocol, name, str(digest)] = [
                        name, protocol, f"{count:,}" if count else "", str(digest)[:16]
                    ]  # fmt: skip
    return Table(["set", "protocol", "images", "SHA-256"], list(rows.values()), text=(1,))


def _saved(path: Path, figure: Figure) -> str:
    plots.save_png(figure, path)
    figure.set_layout_engine("none")  # which stays as it is: finding it takes half of the time
    return plots.to_svg(figure)


def _plain(name: str) -> str:
    """Return a set's name, or its beginning, as part of a file name."""
    plain = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
    return plain.encode()[:_NAME_BYTES].decode(errors="ignore")


def _free(key: str, taken: Collection[str]) -> str:
    """Return `key`, with a number behind it where another set has it already."""
    numbered = (f"{key}~{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([key], numbered) if free not in taken)
