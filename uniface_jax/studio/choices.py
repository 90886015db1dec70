"""Thresholds that the page offers, each with what it means in a sentence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uniface_jax.evaluate.report.results import Run
from uniface_jax.files.printable import printable
from uniface_jax.gallery.thresholds import fpir_of
from uniface_jax.inference.calibration import Calibration, Threshold


@dataclass(frozen=True)
class Choice:
    """A threshold at a FAR.

    label: in a list of them. meaning: how many false accepts are expected, and how well that is
    known. first: the page begins with it.
    """

    label: str
    cosine: float
    far: float
    meaning: str
    first: bool = False


def choices_of(calibration: Calibration, run: Run) -> list[Choice]:
    """Return the thresholds of an evaluation, by set, of falling FAR.

    calibration and run: of the same metrics.json. The first choice is the set's lowest FAR, or that
    of the first set which has one.
    """
    known = [
        threshold
        for by_far in calibration.sets.values()
        for threshold in by_far.values()
        if threshold is not None
    ]
    if not known:
        return []
    first = min(
        (each for each in known if each.measured_on == known[0].measured_on),
        key=lambda each: each.far,
    )
    return [
        Choice(
            f"FAR {each.far:g}, cosine {each.cosine:.3f}: {printable(each.measured_on)}",
            each.cosine,
            each.far,
            meaning(each, *_measured(run, each)),
            each is first,
        )
        for each in known
    ]


def meaning(
    threshold: Threshold, interval: tuple[float, float] | None, different: int | None
) -> str:
    """Return what a threshold means: expected false accepts, their interval, and the pairs.

    interval: of its FAR, at 95 %. different: the pairs of different people that it was measured on.

    Example:
        >>> import textwrap
        >>> threshold = Threshold(0.001, 0.342, 0.317, 0.401, "pairs/faces")
        >>> said = meaning(threshold, (0.0002, 0.0023), 4500)
        >>> for sentence in said.split(". "):
        ...     print(textwrap.fill(sentence, 88))
        From the cosine 0.342 on, two faces count as one person's
        Of 1,000 pairs of different people about 1 is accepted nevertheless (95 % interval: 0.2
        to 2.3), measured on 4,500 such pairs of pairs/faces
        The threshold itself is known from 0.317 to 0.401.
    """
    among = 10 ** max(0, math.ceil(-math.log10(threshold.far) - 1e-9))
    expected = threshold.far * among
    verb = "is" if round(expected, 6) == 1 else "are"
    parts = [
        f"From the cosine {threshold.cosine:.3f} on, two faces count as one person's. Of {among:,} "
        f"pairs of different people about {expected:.2g} {verb} accepted nevertheless"
    ]
    if interval is not None:
        low, high = (f"{bound * among:.2g}" for bound in interval)
        parts.append(f" (95 % interval: {low} to {high})")
    pairs = "" if different is None else f"{different:,} such pairs of "
    parts.append(f", measured on {pairs}{printable(threshold.measured_on)}.")
    if threshold.lower < threshold.upper:
        parts.append(
            f" The threshold itself is known from {threshold.lower:.3f} to {threshold.upper:.3f}."
        )
    return "".join(parts)


def searches(far: float, faces: int) -> str:
    """Return what a FAR of comparisons means for searches of a gallery of `faces` faces.

    Example:
        >>> searches(1e-4, 1000).split(", ")[-1]
        'about 9.5 are taken for someone in it.'
    """
    if faces == 0:
        return "The gallery is empty."
    rate = fpir_of(far, faces)
    among = 10 ** max(2, math.ceil(-math.log10(rate) - 0.01))
    return (
        f"Of {among:,} people who are not among the {faces:,} faces of the gallery, about "
        f"{rate * among:.2g} are taken for someone in it."
    )


def _measured(run: Run, threshold: Threshold) -> tuple[tuple[float, float] | None, int | None]:
    """Return the interval of a threshold's FAR, and the number of different pairs, where known."""
    protocol, _, name = threshold.measured_on.partition("/")
    metrics: Mapping[str, Any] = run.metrics["protocols"][protocol]["sets"][name]
    drawn = run.drawings[protocol].get(name, {}).get("roc", {})
    entries: Sequence[Any] = metrics.get("thresholds") or ()
    interval = next(
        (
            _bounds(entry.get("far_interval"))
            for entry in entries
            if math.isclose(entry["far"], threshold.far, rel_tol=1e-9)
        ),
        None,
    )
    return interval, drawn.get("different")


def _bounds(interval: Any) -> tuple[float, float] | None:
    """Return the bounds of an interval in a file, None where they are none."""
    try:
        low, high = float(interval["lower"]), float(interval["upper"])
    except (KeyError, TypeError, ValueError):
        return None
    return (low, high) if 0 <= low <= high <= 1 else None
