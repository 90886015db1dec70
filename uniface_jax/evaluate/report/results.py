"""A finished evaluation in its folder: metrics.json, drawings.json, report.html, figures/."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from uniface_jax import __version__
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.base import Results
from uniface_jax.files.atomic import write_bytes

METRICS, DRAWINGS, REPORT = "metrics.json", "drawings.json", "report.html"
_PACKAGES = ("jax", "numpy", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """One model's results. metrics, drawings: as the two JSON files hold them.

    metrics["protocols"][protocol]["sets"][name] are a set's metrics, drawings[protocol][name] its
    drawings by kind. notes: what was left out of results that were read, since it was damaged.
    """

    name: str
    metrics: Mapping[str, Any]
    drawings: Mapping[str, Any]
    notes: Sequence[str] = ()


def collect(source: FeatureSource, path: str, results: Mapping[str, Results]) -> Run:
    """Collect the results of protocols by name, with their model. path: as the user gave it."""
    metrics = {
        "model": {
            "path": path,
            "name": source.name,
            "sha256": source.hash,
            "description": source.description,
        },
        "versions": {"uniface_jax": __version__, **_versions()},
        "protocols": {
            protocol: {"sets": {name: found.record for name, found in sets.items()}}
            for protocol, sets in results.items()
        },
    }
    drawings = {
        protocol: {name: found.drawings for name, found in sets.items()}
        for protocol, sets in results.items()
    }
    return Run(source.name, metrics, drawings)


def _versions() -> dict[str, str]:
    """Return those of _PACKAGES; "not installed" for onnxruntime where its extra is not."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = packages.version(name)
        except packages.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(folder: Path, run: Run) -> None:
    """Write both JSON files, the metrics last: a folder that has them is complete."""
    write_bytes(folder / DRAWINGS, (json.dumps(run.drawings) + "\n").encode())
    write_bytes(folder / METRICS, (json.dumps(run.metrics, indent=1) + "\n").encode())


def is_results(folder: Path) -> bool:
    """Return True where an evaluation of one model has finished in this folder."""
    return (folder / METRICS).is_file() and (folder / DRAWINGS).is_file()


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, with a number behind a name that one before has."""
    named: list[Run] = []
    for run in runs:
        taken = {before.name for before in named}
        numbered = (f"{run.name} ({number})" for number in itertools.count(2))
        name = next(free for free in itertools.chain([run.name], numbered) if free not in taken)
        named.append(replace(run, name=name))
    return named
