"""A network in float32 and quantized, evaluated by the same protocols and on the same resamples."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.features import ComputedFeatures
from uniface_jax.evaluate.protocols import run_protocol
from uniface_jax.evaluate.protocols.base import Options, Results
from uniface_jax.evaluate.report import report, results
from uniface_jax.evaluate.report.differences import differences
from uniface_jax.evaluate.sets.image_sets import FileDigests
from uniface_jax.inference.model import Model

_BATCH_SIZE = 64
READINGS = {"strict": "≤", "nearest": "≈"}


@dataclass(frozen=True)
class Comparison:
    """Results of both: a record for a report's JSON, and tables as lines of text."""

    record: Mapping[str, Any]
    lines: list[str]


def compare(
    models: Mapping[str, Model], parts: Mapping[str, Parts], options: Options
) -> Comparison:
    """Evaluate models, the reference first, by the protocols that `parts` are of.

    The record has, by protocol and set, each model's metrics by its name, the paired `differences`
    from the first model, and `within`: by number, whether the later models' lies in the 95 %
    interval of the first. Raises UserError as the protocols do.
    """
    files = FileDigests()
    runs = []
    with tempfile.TemporaryDirectory(prefix="uniface_jax-features-") as folder:
        for name, model in models.items():
            named = replace(model, name=name)
            source = ComputedFeatures(named, Path(folder) / name, _BATCH_SIZE, files)
            found: dict[str, Results] = {
                protocol: run_protocol(protocol, given, source, options)
                for protocol, given in parts.items()
            }
            runs.append(results.collect(source, name, found))
    lines = [*report.tables(*runs).split("\n"), *report.difference_lines(runs)]
    return Comparison(_record(runs), lines)


def _record(runs: list[results.Run]) -> dict[str, Any]:
    tested = differences(runs)
    found: dict[str, Any] = {}
    for protocol, of_protocol in runs[0].metrics["protocols"].items():
        for name in of_protocol["sets"]:
            metrics = {run.name: run.metrics["protocols"][protocol]["sets"][name] for run in runs}
            reference, *others = (_tars(of) for of in metrics.values())
            bounds = _bounds(metrics[runs[0].name])
            found.setdefault(protocol, {})[name] = {
                **{model: _kept(of) for model, of in metrics.items()},
                "differences": [
                    {"model": of.second, **of.tested._asdict()}
                    for of in tested
                    if (of.protocol, of.set) == (protocol, name)
                ],
                "within": {
                    number: all(
                        bounds[number][0] <= of[number] <= bounds[number][1] for of in others
                    )
                    for number in reference
                    if number in bounds
                },
            }
    return found


def _kept(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics without the file of features, which was a temporary one."""
    return {key: value for key, value in metrics.items() if key != "features"}


def _tars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return TAR at each FAR by the heads of tables."""
    return {name: entry["tar"] for name, entry in _entries(metrics)}


def _bounds(metrics: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals of TAR at each FAR, by the same heads."""
    return {
        name: (entry["tar"]["lower"], entry["tar"]["upper"])
        for name, entry in _entries(metrics.get("intervals", {}))
    }


def _entries(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in metrics.get("tar_at_far", ()):
        for reading, mark in READINGS.items():
            if reading in entry:
                yield f"TAR@FAR{mark}{entry['far']:g}", entry[reading]
