"""report.html of a data set's faults: what was found, a contact sheet of each kind, and reasons."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.clean.findings import ACTIONS, ONE_PERSON, SEVERAL, STRANGER, TITLES, Finding
from uniface_jax.clean.table import person_name
from uniface_jax.data.formats.images import encode_jpeg
from uniface_jax.data.input.contact_sheet import face_rows
from uniface_jax.data.sources.base import Source
from uniface_jax.evaluate.report.html_page import (
    Block,
    Figures,
    Footer,
    Heading,
    Links,
    Paragraph,
    Picture,
    Table,
    page,
)
from uniface_jax.files.atomic import write_bytes

REPORT_FILE, SHEETS = "report.html", "sheets"
COLUMNS, MAX_ROWS = 8, 24  # faces a row, rows of a sheet
_MAX_LISTED = 100  # rows of a kind's table
_TITLE_LETTERS = 90  # that a sheet's width has room for


def write_report(
    folder: Path,
    source: Source,
    found: tuple[Sequence[Finding], Sequence[Mapping[str, Any]]],
    examples: Mapping[int, Sequence[int]],
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write report.html and sheets/KIND.jpg.

    found: the findings, and of each its row of table.rows_of. examples: for each class that a
    finding on people names, some records of its largest group. facts: names and values for the
    head of the page.
    """
    findings, rows = found
    kinds = [kind for kind in ACTIONS if any(f.kind == kind for f in findings)]
    body: list[Block] = [
        Heading(1, f"Faults of {source.name}"),
        Links({kind: TITLES[kind] for kind in kinds}),
        Table(["", ""], [list(fact) for fact in facts], wrap=(1,)),
    ]
    for kind in kinds:
        chosen = [(f, row) for f, row in zip(findings, rows, strict=True) if f.kind == kind]
        sheet = face_rows(source, sheet_rows([f for f, _ in chosen], source, examples), COLUMNS)
        jpeg = encode_jpeg(sheet, 85)
        write_bytes(folder / SHEETS / f"{kind}.jpg", jpeg)
        drawn = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        body += [
            Heading(2, f"{TITLES[kind]}: {len(chosen):,}", kind),
            Figures([Picture(f"Contact sheet: {TITLES[kind]}", drawn)]),
            _table([row for _, row in chosen]),
        ]
        if len(chosen) > _MAX_LISTED:
            body.append(
                Paragraph(f"The first {_MAX_LISTED} of {len(chosen):,}; all: the table.", note=True)
            )
    body.append(Footer("Made by python -m uniface_jax.clean"))
    write_bytes(folder / REPORT_FILE, page(f"Faults of {source.name}", body).encode())


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    heads = ["image", "person", "score", "other image", "other person", "reason"]
    keys = ("name", "person", "score", "other_name", "other_person", "reason")
    cells = [["" if row[key] is None else str(row[key]) for key in keys] for row in rows]
    return Table(heads, cells[:_MAX_LISTED], text=(1, 3, 4), wrap=(0, 3, 5))


def sheet_rows(
    findings: Sequence[Finding], source: Source, examples: Mapping[int, Sequence[int]]
) -> list[tuple[str, list[int]]]:
    """Return titles and records of the rows of a kind's contact sheet, MAX_ROWS at most.

    A finding on people has a row of its own, with examples of the people; pairs too; of other kinds
    a row holds COLUMNS images.
    """
    kind = findings[0].kind if findings else ""
    rows: list[tuple[str, list[int]]] = []
    if kind == SEVERAL:
        groups: dict[tuple[int, int | None], list[Finding]] = {}
        for finding in findings:
            groups.setdefault((finding.label, finding.group), []).append(finding)
        for (label, _), members in list(groups.items())[:MAX_ROWS]:
            shown = [f.image for f in members if f.image is not None][: COLUMNS // 2]
            beside = list(examples.get(label, ()))[: COLUMNS // 2]
            rows.append((_title(members[0], source), beside + shown))
    elif kind in (ONE_PERSON, STRANGER):
        for finding in findings[:MAX_ROWS]:
            first = [] if finding.image is None else [finding.image]
            first += [*examples.get(finding.label, ())][: COLUMNS // 2 - len(first)]
            other = () if finding.other_label is None else examples.get(finding.other_label, ())
            rows.append((_title(finding, source), first + [*other][: COLUMNS // 2]))
    elif findings and findings[0].other_image is not None:
        for finding in findings[:MAX_ROWS]:
            pair = (finding.image, finding.other_image)
            rows.append((_title(finding, source), [i for i in pair if i is not None]))
    else:
        for start in range(0, min(len(findings), COLUMNS * MAX_ROWS), COLUMNS):
            some = findings[start : start + COLUMNS]
            scores = "   ".join(f"{finding.score:.2f}" for finding in some)
            rows.append((scores, [f.image for f in some if f.image is not None]))
    return rows


def _title(finding: Finding, source: Source) -> str:
    names = [person_name(source, finding.label)]
    if finding.other_label is not None and finding.other_label != finding.label:
        names.append(person_name(source, finding.other_label))
    title = f"{finding.score:.2f}  {' / '.join(name[:36] for name in names)}"
    return title[:_TITLE_LETTERS]


def examples_of(
    findings: Sequence[Finding], labels: np.ndarray, group: np.ndarray
) -> dict[int, list[int]]:
    """Return up to COLUMNS records of the largest group of each class that is drawn beside others.

    labels, group: int [N].
    """
    wanted = [f for kind in (ONE_PERSON, SEVERAL, STRANGER) for f in findings if f.kind == kind]
    people = {label for f in wanted for label in (f.label, f.other_label) if label is not None}
    order = np.argsort(labels, kind="stable")
    found = {}
    for label in people:
        begin, end = np.searchsorted(labels[order], [label, label + 1])
        rows = order[begin:end]
        found[label] = rows[group[rows] == 0][:COLUMNS].tolist()
    return found
