"""report.html: tables, figures, the hardest pairs, and the paper's numbers beside one's own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.report import html_page as html
from uniface_jax.evaluate.report import paper, plots
from uniface_jax.evaluate.report.results import REPORT, Run
from uniface_jax.files.atomic import write_bytes

MAX_LINES = 8  # of one figure
Lines = Mapping[str, Any]

# Drawings whose lines share a figure: by kind, (file name, title, how they are drawn).
_SHARED: dict[str, list[tuple[str, str, Callable[[Lines, str], Figure]]]] = {
    "roc": [("roc", "ROC", plots.roc_figure), ("det", "errors (DET)", plots.det_figure)],
    "cmc": [("cmc", "identification (CMC)", plots.cmc_figure)],
    "open_set": [("open_set", "open-set identification", plots.open_set_figure)],
    "distractors": [("distractors", "identification among distractors", plots.distractors_figure)],
}


def tables(run: Run) -> str:
    """Return the tables of a run as text, a protocol after another."""
    parts = []
    for protocol, found in run.metrics["protocols"].items():
        parts.append(PROTOCOLS[protocol].title)
        bracketed = False
        for heads, rows in _tables(protocol, {"": found["sets"]}):
            lines = [heads, *rows]
            widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
            text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
            parts += ["  " + line for line in text]
            bracketed |= any(cell.startswith("(") for row in rows for cell in row)
        if bracketed:
            parts.append("  (…): that rate is below one of the set's different pairs")
    return "\n".join(parts)


def write(folder: Path, runs: Sequence[Run]) -> None:
    """Write report.html of one or several runs, and its figures as figures/*.png."""
    title = " · ".join(run.name for run in runs)
    protocols = [
        name for name in PROTOCOLS if any(name in run.metrics["protocols"] for run in runs)
    ]
    body = [
        html.heading(1, f"Evaluation of {title}"),
        html.links({name: PROTOCOLS[name].title for name in protocols}),
        _models(runs),
    ]
    for protocol in protocols:
        body.append(html.heading(2, PROTOCOLS[protocol].title, protocol))
        body += _protocol(folder / "figures", protocol, runs)
    body += [html.heading(2, "Data", "data"), _data(runs)]
    versions = runs[0].metrics["versions"]
    made = ", ".join(f"{name} {number}" for name, number in versions.items())
    body.append(f"<footer>Made by python -m uniface_jax.evaluate; {made}</footer>")
    write_bytes(folder / REPORT, html.page(f"Evaluation of {title}", body).encode())


def _protocol(figures: Path, protocol: str, all_runs: Sequence[Run]) -> list[str]:
    several = len(all_runs) > 1
    runs = [run for run in all_runs if protocol in run.metrics["protocols"]]
    sets = {run.name: run.metrics["protocols"][protocol]["sets"] for run in runs}
    parts = [
        html.table(heads, rows, text=(0, 1) if several else ())
        for heads, rows in _tables(protocol, sets if several else {"": sets[runs[0].name]})
    ]
    if any("<td>(" in part for part in parts):
        parts.append(
            html.paragraph(
                "In brackets: a rate below one of the set's different pairs, which the set cannot "
                "tell from none.",
                note=True,
            )
        )
    parts.append(_beside_the_paper(protocol, runs))
    drawn = {
        name: _saved(figures / f"{protocol}_{name}.png", figure)
        for name, figure in _figures(protocol, runs, several).items()
    }
    parts.append(html.figures(drawn))
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
                    parts += [html.heading(3, f"{of}: {what}"), html.face_pairs(pairs[kind])]
    return [part for part in parts if part]


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
                    figures[key] = draw(few, f"{group or runs[0].name}: {title}")
    for number, run in enumerate(runs):
        for name, drawings in run.drawings[protocol].items():
            if "scores" in drawings:
                key = f"{_plain(name)}_scores" + (f"_{number + 1}" if several else "")
                title = f"{run.name} on {name}: scores of pairs"
                figures[key] = plots.scores_figure(drawings["scores"], title)
    return figures


def _beside_the_paper(protocol: str, runs: Sequence[Run]) -> str:
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
        return ""

    def cells(values: Mapping[str, float]) -> list[str]:
        return [f"{values[key]:.2f}" if key in values else "" for key in columns]

    rows = [[name, "this evaluation", *cells(values)] for name, values in own]
    rows += [[row.method, row.training, *cells(row.values)] for row in published]
    return html.heading(3, "Beside the paper's numbers, in percent") + html.table(
        ["network", "trained on", *columns], rows, own=range(len(own)), text=(0, 1)
    )


def _models(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        model = run.metrics["model"]
        rows.append([run.name, str(model["description"]), str(model["sha256"])[:16]])
    return html.table(["model", "what it is", "SHA-256"], rows, wrap=(1,))


def _data(runs: Sequence[Run]) -> str:
    rows = {}
    for run in runs:
        for protocol, found in run.metrics["protocols"].items():
            for name, metrics in found["sets"].items():
                if digest := metrics.get("sha256"):
                    count = metrics.get("images")
                    rows[protocol, name, digest] = [
                        name, protocol, f"{count:,}" if count else "", str(digest)[:16]
                    ]  # fmt: skip
    return html.table(["set", "protocol", "images", "SHA-256"], list(rows.values()), text=(1,))


def _saved(path: Path, figure: Figure) -> str:
    plots.save_png(figure, path)
    return plots.to_svg(figure)


def _plain(name: str) -> str:
    """Return a set's name as part of a file name."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)
