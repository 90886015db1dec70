"""Table of findings: CSV, for people and spreadsheets, and JSON, with the names as they are."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uniface_jax.clean.findings import ACTIONS, Finding
from uniface_jax.data.sources.base import Source
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.printable import printable

CSV_FILE, JSON_FILE = "findings.csv", "findings.json"
COLUMNS = (
    "kind", "action", "score", "image", "name", "person",
    "other_image", "other_name", "other_person", "across", "group", "reason",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@")  # a cell that begins so is computed by a spreadsheet


def person_name(source: Source, label: int | None) -> str:
    """Return the name of a class, or its number where the source has none; "" for None."""
    if label is None:
        return ""
    return str(label) if source.class_names is None else source.class_names[label]


def rows_of(findings: Sequence[Finding], source: Source) -> list[dict[str, Any]]:
    """Return a row for each finding, by COLUMNS; None where it has no such thing."""
    rows = []
    for finding in findings:
        image, other = finding.image, finding.other_image
        rows.append(
            {
                "kind": finding.kind,
                "action": ACTIONS[finding.kind],
                "score": round(finding.score, 4),
                "image": image,
                "name": None if image is None else source.item_name(image),
                "person": person_name(source, finding.label),
                "other_image": other,
                "other_name": None if other is None else source.item_name(other),
                "other_person": person_name(source, finding.other_label) or None,
                "across": None if other is None else finding.other_label != finding.label,
                "group": finding.group,
                "reason": finding.reason,
            }
        )
    return rows


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a heading: one line each, and no cell that a spreadsheet computes.

    >>> row = dict.fromkeys(COLUMNS) | {"kind": "blurred", "name": "=1+1"}
    >>> print(csv_text([row]).splitlines()[1])
    blurred,,,,'=1+1,,,,,,,
    """
    text = io.StringIO()
    written = csv.writer(text, lineterminator="\n")
    written.writerow(COLUMNS)
    written.writerows([cell(row[column]) for column in COLUMNS] for row in rows)
    return text.getvalue()


def cell(value: Any) -> Any:
    """Return a value as a cell of CSV: printable, "" for None, and nothing that is computed."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> None:
    """Write findings.csv and findings.json; record: what the JSON says beside `findings`."""
    write_bytes(folder / CSV_FILE, csv_text(rows).encode())
    content = json.dumps({**record, "findings": list(rows)}, indent=1)  # ASCII, whatever names hold
    write_bytes(folder / JSON_FILE, (content + "\n").encode())
