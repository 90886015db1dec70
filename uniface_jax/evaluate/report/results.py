"""A finished evaluation in its folder: metrics.json, drawings.json, report.html, figures/."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from uniface_jax import __version__
from uniface_jax.errors import UserError
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.base import Results
from uniface_jax.files.atomic import write_bytes
from uniface_jax.files.bounded_json import read_json

METRICS, DRAWINGS, REPORT = "metrics.json", "drawings.json", "report.html"
_HINT = "python -m uniface_jax.evaluate --output writes it"
_PACKAGES = ("jax", "numpy", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """One model's results. metrics, drawings: as the two JSON files hold them.

    metrics["protocols"][protocol]["sets"][name] are a set's metrics, drawings[protocol][name] its
    drawings by kind.
    """

    name: str
    metrics: Mapping[str, Any]
    drawings: Mapping[str, Any]


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
            protocol: {"sets": {name: found.metrics for name, found in sets.items()}}
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


def read(folder: Path) -> Run:
    """Read what `write` wrote; UserError naming the file that is something else."""
    metrics, drawings = (read_json(folder / name, _HINT) for name in (METRICS, DRAWINGS))
    try:
        name = str(metrics["model"]["name"])
        for protocol, found in metrics["protocols"].items():
            if not set(found["sets"]) <= set(drawings[protocol]):
                raise KeyError(protocol)
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(
            f"{folder}: {METRICS} and {DRAWINGS} are not of one evaluation of one model"
        ) from e
    return Run(name, metrics, drawings)


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, with a number behind a name that one before has."""
    seen: dict[str, int] = {}
    named = []
    for run in runs:
        seen[run.name] = seen.get(run.name, 0) + 1
        name = run.name if seen[run.name] == 1 else f"{run.name} ({seen[run.name]})"
        named.append(Run(name, run.metrics, run.drawings))
    return named
