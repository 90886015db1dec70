"""Evaluation protocols by name; register_protocol adds one from outside."""

from collections.abc import Callable, Mapping
from typing import Any

from uniface_jax.evaluate.arguments import PartNames, Parts
from uniface_jax.evaluate.features import FeatureSource
from uniface_jax.evaluate.protocols.base import (
    Options,
    Protocol,
    ProtocolFunction,
    Results,
    checked,
)
from uniface_jax.evaluate.protocols.folders import FOLDERS
from uniface_jax.evaluate.protocols.ijb.protocol import IJB
from uniface_jax.evaluate.protocols.lists import OWN_LISTS
from uniface_jax.evaluate.protocols.megaface.protocol import MEGAFACE
from uniface_jax.evaluate.protocols.mfr.protocol import MFR
from uniface_jax.evaluate.protocols.open_set import OPEN_SET
from uniface_jax.evaluate.protocols.pairs import PAIRS
from uniface_jax.evaluate.protocols.quality import QUALITY
from uniface_jax.evaluate.protocols.rfw import RFW
from uniface_jax.evaluate.protocols.tinyface import TINYFACE
from uniface_jax.evaluate.protocols.verification import VERIFICATION
from uniface_jax.registry import Registry

PROTOCOLS: Registry[Protocol] = Registry("protocol", given=("parts", "source", "options"))
for _name, _protocol in {
    "verification": VERIFICATION,
    "ijb": IJB,
    "mfr": MFR,
    "megaface": MEGAFACE,
    "pairs": PAIRS,
    "lists": OWN_LISTS,
    "rfw": RFW,
    "tinyface": TINYFACE,
    "open_set": OPEN_SET,
    "quality": QUALITY,
    "folders": FOLDERS,
}.items():
    PROTOCOLS.add(_name, _protocol, builtin=True)


def run_protocol(name: str, parts: Parts, source: FeatureSource, options: Options) -> Results:
    """Return the results of a protocol, of each set by its name; those from outside are checked."""
    entry = PROTOCOLS.entry(name)
    found = entry.part.run(parts, source, options)
    return found if entry.builtin else checked(name, found)


def register_protocol(
    name: str,
    *,
    title: str,
    takes: PartNames,
    row: Callable[[Mapping[str, Any]], Mapping[str, str]],
) -> Callable[[ProtocolFunction], ProtocolFunction]:
    """Return a decorator that registers a function as the protocol `name` of `evaluate`.

    The function takes parts, source and options, and returns results as base.ProtocolFunction says;
    they show in the printed tables, metrics.json and the report. `evaluate --imports=MODULE` finds
    it.

    Args:
        name: Lower-case letters, digits and underscores.
        title: What headings call it.
        takes: The files that --data names.
        row: The metrics of a set -> the cells of its row in the table.

    Raises:
        UserError: At the decorated function, for a name that is taken, or other arguments.

    >>> from uniface_jax import register_protocol
    >>> from uniface_jax.evaluate.arguments import PartNames
    >>> from uniface_jax.evaluate.protocols.base import SetResult
    >>> @register_protocol(
    ...     "doc_count",
    ...     title="How many files",
    ...     takes=PartNames(paths="FILE"),
    ...     row=lambda metrics: {"files": str(metrics["files"])},
    ... )
    ... def doc_count(parts, source, options):
    ...     return {"all": SetResult({"files": len(parts.paths)})}
    >>> from uniface_jax.evaluate.protocols import PROTOCOLS
    >>> PROTOCOLS["doc_count"].title
    'How many files'
    """

    def decorate(run: ProtocolFunction) -> ProtocolFunction:
        PROTOCOLS.add(name, Protocol(title, takes, run, row), code=run)
        return run

    return decorate
