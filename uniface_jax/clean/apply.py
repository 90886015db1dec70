"""Data set without what was found: images dropped, people merged, groups apart made people."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from uniface_jax.clean.findings import ACTIONS, DROP, MERGE, SPLIT, Finding
from uniface_jax.data.sources.base import Source
from uniface_jax.data.sources.derived import SelectedSource
from uniface_jax.errors import UserError
from uniface_jax.files.atomic import write_bytes

MANIFEST_FILE = "clean.json"
_FORMAT = "uniface_jax.clean/1"


@dataclass(frozen=True, eq=False)
class Changes:
    """Images that stay, and as whom.

    Attributes:
        positions: int64 [M], rising, the records that stay.
        labels: int64 [M], their new classes, 0..C-1.
        class_names: of the C new classes.
        merged: for each new class that several were joined to, the former names.
    """

    positions: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    merged: Mapping[str, Sequence[str]]


def changes_of(
    labels: np.ndarray,
    names: Sequence[str],
    findings: Sequence[Finding],
    kinds: Collection[str],
) -> Changes:
    """Return what stays of a set when findings of `kinds` are acted on.

    A group apart from its label becomes a person of its own, or joins the person whom its finding
    names. Classes without images are left out, and the others keep their order.

    Args:
        labels: int [N], the classes.
        names: of the C classes.
        findings: all of them.
        kinds: those to act on.

    Raises:
        UserError: nothing stays.

    Example:
        >>> from uniface_jax.clean.findings import ONE_PERSON, STRANGER
        >>> found = [Finding(ONE_PERSON, 0.9, "", 0, None, None, 2)]
        >>> found += [Finding(STRANGER, 0.1, "", 1, 2)]
        >>> made = changes_of(np.array([0, 1, 1, 2]), "abc", found, [ONE_PERSON, STRANGER])
        >>> made.positions.tolist(), made.labels.tolist(), made.class_names, made.merged
        ([0, 1, 3], [0, 1, 0], ['a', 'b'], {'a': ['a', 'c']})
    """
    acted = [finding for finding in findings if finding.kind in kinds]
    new, all_names = labels.astype(np.int64), list(names)
    apart: dict[tuple[int, int], int] = {}
    for finding in acted:
        if ACTIONS[finding.kind] == SPLIT and finding.image is not None:
            key = finding.label, finding.group or 0
            if key not in apart:
                apart[key] = len(all_names)
                all_names.append(f"{names[finding.label]}~{key[1]}")
            new[finding.image] = apart[key]
    joined = [
        (finding.label, finding.other_label)
        for finding in acted
        if ACTIONS[finding.kind] == MERGE and finding.other_label is not None
    ]
    joined += [
        (apart[finding.label, finding.group or 0], finding.other_label)
        for finding in acted
        if ACTIONS[finding.kind] == SPLIT and finding.other_label is not None
    ]
    roots = _roots(len(all_names), joined)
    dropped = [f.image for f in acted if ACTIONS[f.kind] == DROP and f.image is not None]
    stays = np.ones(len(labels), bool)
    stays[dropped] = False
    if not stays.any():
        raise UserError("--apply: no image would stay")
    return _numbered_anew(np.flatnonzero(stays), new, roots, all_names)


def _numbered_anew(
    positions: np.ndarray, labels: np.ndarray, roots: np.ndarray, names: Sequence[str]
) -> Changes:
    """Return the changes that keep `positions` [M] and join labels [N] to their roots [L]."""
    classes, numbers = np.unique(roots[labels[positions]], return_inverse=True)
    members: dict[int, list[str]] = {}
    for label, root in enumerate(roots.tolist()):
        members.setdefault(root, []).append(names[label])
    kept = classes.tolist()
    return Changes(
        positions,
        numbers.astype(np.int64),
        [names[root] for root in kept],
        {names[root]: members[root] for root in kept if len(members[root]) > 1},
    )


def _roots(count: int, joined: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return for each of `count` labels the least one that it is joined to, int64."""
    rows, columns = np.array(joined or np.empty((0, 2)), np.int64).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), (count, count))
    _, parts = connected_components(graph, directed=False)
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    roots: np.ndarray = first[inverse]
    return roots


def cleaned(source: Source, changes: Changes) -> SelectedSource:
    """Return a source with changes made to it."""
    return SelectedSource(source, changes.positions, changes.labels, changes.class_names)


def write_changes(
    folder: Path,
    changes: Changes,
    rows: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
) -> None:
    """Write clean.json beside a cleaned data set: what went or moved, and why.

    rows: of table.rows_of, of the kinds that were acted on. record: data and network, for whoever
    reads it.
    """
    acted = Counter(row["kind"] for row in rows)
    content = {
        "format": _FORMAT,
        **record,
        "images": len(changes.positions),
        "classes": len(changes.class_names),
        "acted_on": dict(acted),
        "merged": changes.merged,
        "changes": list(rows),
    }
    write_bytes(folder / MANIFEST_FILE, (json.dumps(content, indent=1) + "\n").encode())
