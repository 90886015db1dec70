"""Table of compare_losses.py: means of the seeds with intervals, differences from a baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniface_jax.inspection.resampling import bounded, mean_over_runs

SEED = 0  # of the draws of seeds
COLUMNS = {  # heading, and whether more is better
    "accuracy": ("accuracy", True),
    "tar_at_0.01": ("TAR at FAR .01", True),
    "tar_at_0.001": ("TAR at FAR .001", True),
    "error": ("one threshold's error, unseen", False),
    "error_seen": ("seen", False),
}


def report(
    sets: Sequence[Any],
    entries: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    baseline: str,
) -> dict[str, Any]:
    """Return all numbers for JSON: by set, by loss; of those that have a run yet.

    entries: title and published() by name. found: results of `run` by set and loss, a seed each.
    """
    made = {}
    for compared in sets:
        runs = found[compared.name]
        rows = {
            name: row(runs[name], runs.get(baseline, ()) if name != baseline else ())
            | {"title": entries[name].title, "published": entries[name].published()}
            for name in entries
            if runs[name]
        }
        made[compared.name] = {"about": compared.about, "baseline": baseline, "losses": rows}
    return made


def row(runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the numbers of a loss: means and intervals, and differences from others by draw."""
    numbers, differences = {}, {}
    for key in COLUMNS:
        people = runs[0]["people"]["seen" if key == "error_seen" else "unseen"]
        values = np.array([run["draws"][key] for run in runs], np.float64)
        numbers[key] = bounded(mean_over_runs(values, SEED), people)
        paired = min(len(runs), len(others))
        if paired:
            theirs = np.array([run["draws"][key] for run in others[:paired]], np.float64)
            differences[key] = bounded(mean_over_runs(values[:paired] - theirs, SEED), people)
    of_prototypes = [run["prototypes"] for run in runs]
    return {
        "seeds": len(runs),
        "numbers": numbers,
        "differences": differences,
        "prototypes": {key: [values[key] for values in of_prototypes] for key in of_prototypes[0]},
        "training_loss": [run["loss"] for run in runs],
        "seconds": [run["seconds"] for run in runs],
    }


def text(made: Mapping[str, Any]) -> str:
    """Write the report as Markdown."""
    return "\n\n".join(_of_set(name, facts) for name, facts in made.items())


def _of_set(name: str, facts: Mapping[str, Any]) -> str:
    losses = facts["losses"]
    baseline = losses[facts["baseline"]]["title"]
    heads = [
        "Loss", "MR-All of the paper, %",
        *(f"{head}, %" for head, _ in COLUMNS.values()),
        "to prototypes, best / at b/s, %",
    ]  # fmt: skip
    lines = [
        f"**{name}**: {facts['about']}; {next(iter(losses.values()))['seeds']} seeds.",
        "",
        _line(heads),
        _line(["---"] * len(heads)),
    ]
    for row_ in losses.values():
        numbers = [_number(row_["numbers"][key]) for key in COLUMNS]
        lines.append(_line([row_["title"], row_["published"], *numbers, _prototypes(row_)]))
    lines += ["", f"Difference from {baseline}, of the same draws of people and seeds; ",
              "**bold** where the interval has no 0:", ""]  # fmt: skip
    shown = [key for key in COLUMNS if key != "error_seen"]
    lines += [_line(["Loss", *(f"{COLUMNS[key][0]}" for key in shown)]), _line(["---"] * 5)]
    for row_ in losses.values():
        if row_["differences"]:
            cells = [_difference(row_["differences"][key]) for key in shown]
            lines.append(_line([row_["title"], *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: Sequence[float]) -> str:
    mean, lower, upper = (100 * x for x in value)
    return f"{mean:.1f} ({lower:.1f} to {upper:.1f})"


def _difference(value: Sequence[float]) -> str:
    mean, lower, upper = (100 * x for x in value)
    written = f"{mean:+.1f} ({lower:+.1f} to {upper:+.1f})"
    return f"**{written}**" if lower > 0 or upper < 0 else written


def _prototypes(row_: Mapping[str, Any]) -> str:
    found = row_["prototypes"]
    best = f"{100 * np.mean(found['equal_error']):.2f}"
    return f"{best} / {100 * np.mean(found['error']):.2f}" if "error" in found else best
