"""Galleries and probes of IJB-B and IJB-C, for 1:N search.

meta/NAME_1N_gallery_*.csv, meta/NAME_1N_probe_mixed.csv: a heading TEMPLATE_ID,SUBJECT_ID,…, then a
line for each image, so that a template stands in several lines.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uniface_jax.errors import UserError
from uniface_jax.files.text_lines import blocks, parsed, text_lines

_EXPECTED = "TEMPLATE_ID,SUBJECT_ID,… with two whole numbers"
_HEADING = ("TEMPLATE_ID", "SUBJECT_ID")


@dataclass(frozen=True, eq=False)
class SearchTemplates:
    """T templates: their ids, rising, and those of their subjects, int32 [T].

    lines: int [T], the line of the file that names a template first.
    """

    file: Path
    templates: np.ndarray
    subjects: np.ndarray
    lines: np.ndarray


def read_search_templates(file: Path, *, one_each: bool) -> SearchTemplates:
    """Read a gallery or the probes.

    one_each: a subject has one template, as in a gallery. Raises UserError naming file and line for
    another heading or line, a template of two subjects, and, with one_each, a second template.
    """
    rows = []
    for start, block in blocks(file):
        if start == 1:
            heading, _, block = block.partition(b"\n")
            fields = heading.decode("utf-8-sig", "replace").split(",")
            if tuple(field.strip().strip('"') for field in fields[:2]) != _HEADING:
                raise UserError(
                    f"{file}: line 1: {heading[:80].decode('utf-8', 'replace')!r}; "
                    f"expected {','.join(_HEADING)},…"
                )
            start = 2
        if block:
            rows.append(parsed(file, start, block, _ids, _EXPECTED))
    if not rows:
        raise UserError(f"{file}: no templates; expected lines of {_EXPECTED}")
    ids = np.concatenate(rows)
    templates, first, which = np.unique(ids[:, 0], return_index=True, return_inverse=True)
    subjects = ids[first, 1]
    other = subjects[which] != ids[:, 1]
    if other.any():
        row = int(np.argmax(other))
        template, subject = ids[row]
        raise UserError(
            f"{file}: line {row + 2}: template {template} is of subject {subject}, but of "
            f"{subjects[which[row]]} in line {first[which[row]] + 2}"
        )
    found = SearchTemplates(file, templates, subjects, first + 2)
    if one_each:
        _check_one_each(found)
    return found


def _check_one_each(found: SearchTemplates) -> None:
    order = np.lexsort((found.lines, found.subjects))
    again = np.flatnonzero(np.diff(found.subjects[order]) == 0) + 1
    if len(again):
        second = order[again[np.argmin(found.lines[order[again]])]]
        raise UserError(
            f"{found.file}: line {found.lines[second]}: template {found.templates[second]} is a "
            f"second one of subject {found.subjects[second]}; expected one each in a gallery"
        )


def _ids(block: bytes) -> np.ndarray:
    """Parse template and subject, int32 [n, 2]."""
    rows = [line.split(",", 2)[:2] for line in text_lines(block)]
    ids = np.array([(int(template), int(subject)) for template, subject in rows], np.int32)
    if np.min(ids) < 0:
        raise ValueError
    return ids
