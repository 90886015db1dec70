"""Findings of an inspection as files: five figures and inspection.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from uniface_jax.files.atomic import write_bytes
from uniface_jax.inspection import plots
from uniface_jax.inspection.curves import loss_curves
from uniface_jax.inspection.hyperparameters import DEFAULTS, threshold_sweeps
from uniface_jax.inspection.similarity import dominance
from uniface_jax.inspection.workdir import Inspection


def write(run: Inspection, output: Path, workdir: str) -> dict[str, Any]:
    """Write five figures and inspection.json into the folder `output`; return the JSON.

    workdir: where the run is, for the record.
    """
    recipe = run.recipe
    given = recipe.config.loss.to_dict()
    name = given["name"]
    statistics = run.state.loss_statistics
    curves = loss_curves(recipe.loss, recipe.num_classes, run.bias, statistics=statistics)
    defaults = _uce_of(run)
    sweeps = threshold_sweeps(run.found, defaults)
    title = f"{name} at step {int(run.state.step)}"
    matrix = f"{title}: {len(run.found.positive)} images x {recipe.num_classes} classes"
    figures = {
        "curves": plots.curves_figure({name: curves}, f"{title}: the loss of one sample"),
        "similarities": plots.similarities_figure(
            {name: run.found}, matrix, run.thresholds
        ),
        "dominance": plots.dominance_figure({name: run.found}, matrix),
        "history": plots.history_figure({name: run.history}, f"{name}: over training"),
        "hyperparameters": plots.hyperparameters_figure(
            run.found, sweeps, f"{title}: what UCE's hyperparameters do to these similarities",
            defaults,
        ),
    }  # fmt: skip
    for kind, figure in figures.items():
        plots.save(figure, output / f"{kind}.png")
    report = {
        "workdir": workdir,
        "step": int(run.state.step),
        "loss": {
            k: value for k, value in given.items() if value is not None and value is not False
        },
        "thresholds": run.thresholds,
        "similarities": dominance(run.found),
        "history": {key: _finite(values) for key, values in run.history.items()},
        "hyperparameters": {"defaults": defaults, **sweeps},
    }
    write_bytes(output / "inspection.json", (json.dumps(report, indent=1) + "\n").encode())
    return report


def _uce_of(run: Inspection) -> dict[str, float]:
    """Return the run's own hyperparameters where it is of UCE, else UCE's defaults."""
    config = run.recipe.config
    if config.loss.name != "uce":
        return dict(DEFAULTS)
    given = {**config.loss.to_dict(), "sampling_rate": config.head.sampling_rate}
    return {key: value if given[key] is None else given[key] for key, value in DEFAULTS.items()}


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def summary(report: dict[str, Any]) -> str:
    """Return the findings in a few lines."""
    found = report["similarities"]
    verdict = "separates" if found["one_threshold"] else "does not separate"
    lines = [
        f"{found['samples']} images x {found['classes']} classes at step {report['step']}",
        f"rows: {found['rows']:.2%} of the samples, columns: {found['columns']:.2%} of the classes "
        "have their positives above their negatives",
        f"smallest positive {found['min_positive']:.4f}, largest negative "
        f"{found['max_negative']:.4f}: one threshold {verdict} them",
        f"equal error {found['equal_error']['rate']:.3%} "
        f"at the cosine {found['equal_error']['threshold']:.3f}",
    ]
    lines += [f"threshold {name} = {value:.4f}" for name, value in report["thresholds"].items()]
    if at := found.get("at_threshold"):
        lines.append(
            f"beyond b/s: {at['positives_below']:.3%} of positives below, "
            f"{at['negatives_above']:.3%} of negatives above"
        )
    return "\n".join(lines)
