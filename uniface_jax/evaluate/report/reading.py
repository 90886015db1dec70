"""Finished evaluations read from their folders, which may come from anywhere.

Metrics that cannot be shown are an error; a drawing that cannot be drawn is left out, and named.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.evaluate.protocols import PROTOCOLS
from uniface_jax.evaluate.report import paper, uncertainty
from uniface_jax.evaluate.report.html_page import is_picture
from uniface_jax.evaluate.report.results import DRAWINGS, METRICS, Run
from uniface_jax.files.bounded_json import depth_is_above, read_json

_HINT = "python -m uniface_jax.evaluate --output writes it"
_MAX_DEPTH = 24  # lists and objects inside one another
_MAX_LETTERS = 4096  # of one text; pictures have their own form
_MAX_POINTS = 10_000  # of one line, and bins of a histogram
_MAX_PAIRS = 100
_MAX_SETS = 1000
_MOST = 2.0**48  # of anything that is counted: sums of them fit 64 bits
_TINY = 1e-15
Check = Callable[[Any], None]


class _UnusableError(ValueError):
    """Value that cannot be shown; the message says which and why."""


def is_results(folder: Path) -> bool:
    """Return True where an evaluation of one model has finished in this folder."""
    return (folder / METRICS).is_file() and (folder / DRAWINGS).is_file()


def read(folder: Path) -> Run:
    """Read what results.write wrote.

    Raises:
        UserError: the file, which the message names, is something else, or lacks or garbles what
            the report shows. Damaged drawings alone are left out; `notes` of the result name them.
    """
    metrics, drawings = (read_json(folder / name, _HINT) for name in (METRICS, DRAWINGS))
    for name, value in ((METRICS, metrics), (DRAWINGS, drawings)):
        if depth_is_above(value, _MAX_DEPTH):
            raise UserError(f"{folder / name}: more than {_MAX_DEPTH} levels deep")
    try:
        sets = _checked_metrics(metrics)
    except _UnusableError as e:
        raise UserError(f"{folder / METRICS}: {e}") from e
    try:
        if any(not set(names) <= set(drawings[protocol]) for protocol, names in sets.items()):
            raise KeyError
    except (KeyError, TypeError) as e:
        raise UserError(
            f"{folder}: {METRICS} and {DRAWINGS} are not of one evaluation of one model"
        ) from e
    notes: list[str] = []
    usable = {
        protocol: {
            name: _usable(drawings[protocol][name], f"{protocol}, {name}", notes) for name in names
        }
        for protocol, names in sets.items()
    }
    return Run(
        metrics["model"]["name"],
        metrics,
        usable,
        [f"{folder / DRAWINGS}: {note}" for note in notes],
    )


def _checked_metrics(metrics: Any) -> dict[str, list[str]]:
    """Return the names of the sets by protocol; _UnusableError where a report cannot show all."""
    _object(metrics, "the file")
    for key in ("name", "sha256", "description"):
        _text(_object(metrics.get("model"), "model").get(key), f"model.{key}")
    if not metrics["model"]["name"]:
        raise _UnusableError("model.name is empty")
    for name, version in _object(metrics.get("versions"), "versions").items():
        _text(name, "a name in versions")
        _text(version, f"versions.{name[:80]}")
    protocols = _object(metrics.get("protocols"), "protocols")
    if not protocols:
        raise _UnusableError("protocols is empty")
    sets = {}
    for protocol, found in protocols.items():
        if protocol not in PROTOCOLS:
            raise _UnusableError(
                f"protocol {protocol[:80]!r} is none of {', '.join(PROTOCOLS)}, and of what a "
                "module of --imports registers"
            )
        where = f"protocols.{protocol}"
        of_sets = _object(_object(found, where).get("sets"), f"{where}.sets")
        if not 0 < len(of_sets) <= _MAX_SETS:
            raise _UnusableError(f"{where}: {len(of_sets)} sets; expected 1 to {_MAX_SETS}")
        for name, values in of_sets.items():
            _text(name, f"the name of a set of {protocol}")
            _check_set(protocol, name, values)
        sets[protocol] = list(of_sets)
    return sets


def _check_set(protocol: str, name: str, values: Any) -> None:
    """Check that the metrics of a set can be shown, by showing them."""
    where = f"protocols.{protocol}.sets.{name[:80]}"
    _object(values, where)
    _check_leaves(values, where)
    try:
        cells = {**PROTOCOLS[protocol].row(values), **uncertainty.interval_cells(values)}
        uncertainty.notes(values)
        paper.comparable(protocol, name, values)
        if (images := values.get("images")) is not None:
            f"{images:,}"
        if not all(isinstance(text, str) for pair in cells.items() for text in pair):
            raise TypeError("a cell is no text")
    # A protocol's row takes what its own metrics hold; what other values make it raise is open.
    except Exception as e:
        raise _UnusableError(f"{where}: not what {protocol} writes ({e!r:.80})") from e


def _check_leaves(values: Any, where: str) -> None:
    """Check that numbers are finite and texts of bounded length, however deep they lie."""
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            _check_leaves(value, where)
    elif isinstance(values, float) and not math.isfinite(values):
        raise _UnusableError(f"{where}: holds {values}, which is no number")
    elif isinstance(values, str):
        _text(values, where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _UnusableError(f"{where} is {_kind(value)}; expected an object")
    return value


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise _UnusableError(f"{where} is {_kind(value)}; expected text")
    if len(value) > _MAX_LETTERS:
        raise _UnusableError(f"{where} has {len(value)} letters; at most {_MAX_LETTERS}")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "missing" if value is None else kinds.get(type(value), "a number")


def _usable(of_set: Any, where: str, notes: list[str]) -> dict[str, Any]:
    """Return the drawings of a set that can be drawn; add to `notes` what is left out, and why."""
    if not isinstance(of_set, dict):
        notes.append(f"{where}: all drawings, {_kind(of_set)} where an object is expected")
        return {}
    usable = {}
    for kind, drawing in of_set.items():
        if kind not in _CHECKS:
            continue  # a report shows no other
        try:
            _CHECKS[kind](drawing)
        except _UnusableError as e:
            notes.append(f"{where}: {kind}: {e}")
            continue
        usable[kind] = drawing
    return usable


def _numbers(drawing: Any, key: str, low: float, high: float) -> list[float]:
    """Return the list `key` of a drawing, whose numbers are all in low..high."""
    values = _object(drawing, "it").get(key)
    if not isinstance(values, list):
        raise _UnusableError(f"{key} is {_kind(values)}; expected a list")
    if not 0 < len(values) <= _MAX_POINTS:
        raise _UnusableError(f"{key} has {len(values)} numbers; expected 1 to {_MAX_POINTS}")
    for value in values:
        _number(value, key, low, high)
    return values


def _number(value: Any, where: str, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _UnusableError(f"{where} holds {_kind(value)}; expected numbers")
    if not low <= value <= high:  # also where it is not a number
        raise _UnusableError(f"{where} holds {value}; expected {low:g} to {high:g}")


def _line(first: str, second: str, low: float, high: float) -> Check:
    """Return the check of a line: `first` in low..high, and as many rates `second`."""

    def check(drawing: Any) -> None:
        counts = [
            len(_numbers(drawing, first, low, high)), len(_numbers(drawing, second, 0, 1))
        ]  # fmt: skip
        if counts[0] != counts[1]:
            raise _UnusableError(f"{counts[0]} {first} for {counts[1]} {second}; expected as many")

    return check


def _roc(drawing: Any) -> None:
    _line("far", "tar", _TINY, 1)(drawing)
    for key in ("same", "different"):
        if not isinstance(drawing.get(key), int):
            raise _UnusableError(f"{key} is {_kind(drawing.get(key))}; expected a count")
        _number(drawing[key], key, 1, _MOST)
    if "intervals" in drawing:
        for bound in ("lower", "upper"):
            _line("far", bound, _TINY, 1)(drawing["intervals"])


def _counts(drawing: Any) -> None:
    """Check what drawings.accept_counts gives."""
    thresholds = _numbers(drawing, "thresholds", -1e6, 1e6)
    if any(after >= before for before, after in itertools.pairwise(thresholds)):
        raise _UnusableError("thresholds do not fall")
    for kind in ("same", "different"):
        counts = _numbers(drawing, kind, 0, _MOST)
        if len(counts) != len(thresholds):
            raise _UnusableError(f"{len(counts)} counts of {kind} for {len(thresholds)} thresholds")
        if any(after < before for before, after in itertools.pairwise(counts)):
            raise _UnusableError(f"counts of {kind} do not rise")


def _scores(drawing: Any) -> None:
    edges = _numbers(drawing, "edges", -1e6, 1e6)
    if any(after < before for before, after in itertools.pairwise(edges)):
        raise _UnusableError("edges do not rise")
    for kind in ("same", "different"):
        counts = _numbers(drawing, kind, 0, _MOST)
        if len(counts) != len(edges) - 1:
            raise _UnusableError(f"{len(counts)} bins of {kind} between {len(edges)} edges")
    thresholds = _object(drawing.get("thresholds"), "thresholds")
    for name, value in thresholds.items():
        _text(name, "a name in thresholds")
        _number(value, "thresholds", -1e6, 1e6)
    if len(thresholds) > _MAX_PAIRS:
        raise _UnusableError(f"{len(thresholds)} thresholds; at most {_MAX_PAIRS}")


def _pairs(drawing: Any) -> None:
    _object(drawing, "it")
    for kind in ("same", "different"):
        entries = _list(drawing.get(kind), kind)
        if len(entries) > _MAX_PAIRS:
            raise _UnusableError(f"{kind} has {len(entries)} pairs; at most {_MAX_PAIRS}")
        for entry in entries:
            _number(_object(entry, f"a pair of {kind}").get("score"), "score", -1e6, 1e6)
            sides = _list(entry.get("sides"), "sides")
            if len(sides) != 2:
                raise _UnusableError(f"a pair with {len(sides)} sides")
            for side in sides:
                _text(_object(side, "a side").get("label"), "label")
                picture = side.get("picture")
                if picture is not None and not is_picture(picture):
                    raise _UnusableError("a picture that is no JPEG in the file")


def _resamples(drawing: Any) -> None:
    """Check what drawings.resamples gives."""
    _text(_object(drawing, "it").get("units"), "units")
    for key in ("count", "resamples", "seed"):
        if not isinstance(drawing.get(key), int):
            raise _UnusableError(f"{key} is {_kind(drawing.get(key))}; expected a whole number")
        _number(drawing[key], key, 0, _MOST)
    values = _object(drawing.get("values"), "values")
    estimates = _object(drawing.get("estimates"), "estimates")
    if values.keys() != estimates.keys():
        raise _UnusableError("estimates are not of the numbers that were drawn")
    for estimate in estimates.values():
        _number(estimate, "estimates", -1e6, 1e6)
    if len(values) > _MAX_PAIRS:
        raise _UnusableError(f"{len(values)} numbers were drawn; at most {_MAX_PAIRS}")
    for name, of_name in values.items():
        _text(name, "a name in values")
        if not len(_list(of_name, "values")) == drawing["resamples"] <= _MAX_POINTS:
            raise _UnusableError(
                f"{len(of_name)} values of {drawing['resamples']} resamples; "
                f"expected as many, at most {_MAX_POINTS}"
            )
        for value in of_name:
            if value is not None:
                _number(value, "values", -1e6, 1e6)


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _UnusableError(f"{where} is {_kind(value)}; expected a list")
    return value


def _reject(drawing: Any) -> None:
    lines = _object(_object(drawing, "it").get("lines"), "lines")
    if not 0 < len(lines) <= _MAX_PAIRS:
        raise _UnusableError(f"{len(lines)} lines; expected 1 to {_MAX_PAIRS}")
    for name, line in lines.items():
        _text(name, "a name in lines")
        _line("rejected", "fnmr", 0, 1)(line)


_CHECKS: Mapping[str, Check] = {
    "roc": _roc,
    "counts": _counts,
    "cmc": _line("ranks", "rates", 1, _MOST),
    "open_set": _line("fpir", "tpir", _TINY, 1),
    "open_set_det": _line("fpir", "fnir", _TINY, 1),
    "distractors": _line("distractors", "rates", 1, _MOST),
    "reject": _reject,
    "scores": _scores,
    "pairs": _pairs,
    "resamples": _resamples,
    "resamples_open_set": _resamples,
}
