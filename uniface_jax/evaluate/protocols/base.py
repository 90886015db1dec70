"""What every protocol is given and gives.

A protocol is a function (parts, source, options) -> {set name: SetResult}: `parts` are the files
that the user named, `source` gives features of image sets. It raises UserError naming the file that
is at fault, before anything is embedded where the files themselves show it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.drawings import Drawing
from uniface_jax.evaluate.features import FeatureSource


@dataclass(frozen=True)
class Options:
    """fars: targets of TAR at FAR, each in (0, 1]; None takes those of the protocol."""

    fars: Sequence[float] | None = None

    def fars_or(self, default: Sequence[float]) -> Sequence[float]:
        """The targets that were asked for, or the protocol's."""
        return default if self.fars is None else self.fars


@dataclass(frozen=True)
class SetResult:
    """metrics: for metrics.json. drawings: for the report, by kind: see report.FIGURES."""

    metrics: Mapping[str, Any]
    drawings: Mapping[str, Drawing] = field(default_factory=dict)


Results = dict[str, SetResult]


@dataclass(frozen=True)
class Protocol:
    """title: for headings. run: see above. row: metrics of a set -> cells of the printed table."""

    title: str
    takes: PartNames
    run: Callable[[Parts, FeatureSource, Options], Results]
    row: Callable[[Mapping[str, Any]], Mapping[str, str]]


def tar_cells(metrics: Mapping[str, Any], reading: str = "strict") -> dict[str, str]:
    """TAR at each FAR for a table, in brackets where the set is too small to tell it from FAR 0."""
    mark = "≤" if reading == "strict" else "≈"
    return {
        f"TAR@FAR{mark}{entry['far']:g}": ("{:.2%}" if entry["resolvable"] else "({:.2%})").format(
            entry[reading]["tar"]
        )
        for entry in metrics["tar_at_far"]
    }
