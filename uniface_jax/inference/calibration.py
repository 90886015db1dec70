"""Thresholds at false accept rates, from an evaluation's metrics.json, which may be anyone's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniface_jax.errors import UserError
from uniface_jax.files.bounded_json import read_json
from uniface_jax.files.printable import printable

_HINT = "python -m uniface_jax.evaluate --output writes it"
_MAX_SETS, _MAX_THRESHOLDS = 1000, 1000
_COSINE_ROUNDING = 1e-6  # by which a cosine in float32 may be above 1
_Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Threshold:
    """Cosine from which on two faces count as one person's, at a false accept rate.

    far: the rate. cosine: the threshold. lower, upper: its 95 % interval; both the cosine itself
    where the file, of an earlier version, has none. measured_on: PROTOCOL/SET.
    """

    far: float
    cosine: float
    lower: float
    upper: float
    measured_on: str


@dataclass(frozen=True)
class Calibration:
    """Thresholds that one evaluation of one model has measured.

    file: its metrics.json. model: the model's name. sha256: of the model. description: how its
    input was prepared. sets: by PROTOCOL/SET the thresholds by FAR, falling; None where a set has
    too few pairs for that FAR.
    """

    file: Path
    model: str
    sha256: str
    description: str
    sets: Mapping[str, Mapping[float, Threshold | None]]

    def threshold(self, far: float, measured_on: str | None = None) -> Threshold:
        """Return the threshold at a FAR that was measured.

        Args:
            far: one of those in the file.
            measured_on: SET or PROTOCOL/SET, needed where several sets have this FAR.

        Raises:
            UserError: the FAR was not measured, or on too few pairs, or on several sets; the
                message names those that were.
        """
        chosen = self._sets(measured_on)
        found = {
            name: threshold
            for name, by_far in chosen.items()
            for known, threshold in by_far.items()
            if math.isclose(known, far, rel_tol=1e-9)
        }
        if not found:
            fars = sorted({known for by_far in chosen.values() for known in by_far}, reverse=True)
            raise UserError(
                f"{self.file}: FAR {far:g} was not measured, only "
                f"{', '.join(f'{known:g}' for known in fars)}; evaluate --fars={far:g} does"
            )
        usable = [threshold for threshold in found.values() if threshold is not None]
        if not usable:
            raise UserError(
                f"{self.file}: too few pairs for FAR {far:g} in {_named(list(found))}; "
                "expected at least as many different pairs as one false accept stands for"
            )
        if len(usable) > 1:
            raise UserError(
                f"{self.file}: FAR {far:g} was measured on "
                f"{_named([threshold.measured_on for threshold in usable])}; "
                f"name one, as in measured_on={usable[0].measured_on!r}"
            )
        return usable[0]

    def expect_model(self, sha256: str, description: str) -> None:
        """Raise UserError unless thresholds are of this model, its input prepared in this way."""
        if sha256 != self.sha256:
            raise UserError(
                f"{self.file}: measured with another model, {_shown(self.model)} (SHA-256 "
                f"{_shown(self.sha256[:16])}…, here {sha256[:16]}…), whose cosines are others"
            )
        if description != self.description:
            raise UserError(
                f"{self.file}: measured with {_shown(self.description, 400)}; "
                f"here it is {description}"
            )

    def _sets(self, measured_on: str | None) -> Mapping[str, Mapping[float, Threshold | None]]:
        if measured_on is None:
            return self.sets
        chosen = {
            name: by_far
            for name, by_far in self.sets.items()
            if measured_on in (name, name.partition("/")[2])
        }
        if not chosen:
            raise UserError(
                f"{self.file}: nothing was measured on {_shown(measured_on)}, only on "
                f"{_named(list(self.sets))}"
            )
        return chosen


def read_calibration(file: str | Path) -> Calibration:
    """Read the thresholds in an evaluation's metrics.json.

    Files of earlier versions, which have no `thresholds`, give those of `tar_at_far`. Raises
    UserError, which names the file and what is wrong with it.

    Example:
        >>> import json, tempfile
        >>> found = {
        ...     "model": {"name": "demo", "sha256": "0" * 64, "description": "workdir"},
        ...     "protocols": {"folders": {"sets": {"faces": {"thresholds": [
        ...         {"far": 0.001, "resolvable": True, "threshold_cosine": 0.31}]}}}},
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "metrics.json").write_text(json.dumps(found))
        ...     read_calibration(Path(folder) / "metrics.json").threshold(1e-3).cosine
        0.31
    """
    file = Path(file)
    content = _object(file, read_json(file, _HINT), "the file")
    model = _object(file, content.get("model"), "model")
    name, sha256, description = (
        _text(file, model.get(key), f"model.{key}") for key in ("name", "sha256", "description")
    )
    sets: dict[str, dict[float, Threshold | None]] = {}
    for protocol, found in _object(file, content.get("protocols"), "protocols").items():
        of_sets = _object(file, _object(file, found, protocol).get("sets"), f"{protocol}.sets")
        for key, metrics in of_sets.items():
            where = f"{protocol}/{key}"
            by_far = _thresholds(file, _object(file, metrics, where), where)
            if by_far:
                sets[where] = by_far
            if len(sets) > _MAX_SETS:
                raise UserError(f"{file}: more than {_MAX_SETS} sets")
    if not sets:
        raise UserError(f"{file}: no threshold at any FAR; {_HINT}")
    return Calibration(file, name, sha256, description, sets)


def _thresholds(
    file: Path, metrics: Mapping[str, Any], where: str
) -> dict[float, Threshold | None]:
    entries = metrics.get("thresholds")
    old = entries is None
    if old:
        pairs = metrics.get("verification", metrics)  # of MegaFace they are one level below
        entries = pairs.get("tar_at_far", []) if isinstance(pairs, dict) else []
    if not isinstance(entries, list) or len(entries) > _MAX_THRESHOLDS:
        raise UserError(
            f"{file}: {_shown(where)}: thresholds are no list of at most {_MAX_THRESHOLDS}"
        )
    found: dict[float, Threshold | None] = {}
    for entry in entries:
        entry = _object(file, entry, f"{where}.thresholds")
        far = _number(file, entry.get("far"), f"{where}.far", 0, 1)
        if old:
            strict = _object(file, entry.get("strict"), f"{where}.strict")
            cosine, limits = strict.get("threshold"), {}
        else:
            cosine = entry.get("threshold_cosine")
            limits = _object(
                file,
                entry.get("threshold_cosine_interval", {}),
                f"{where}.threshold_cosine_interval",
            )
        if far == 0:
            raise UserError(f"{file}: {_shown(where)}: a threshold at FAR 0; expected above 0")
        found[far] = None
        if entry.get("resolvable") is True and cosine is not None:
            value, lower, upper = (
                _number(file, number, f"{where}.threshold_cosine", -1, 1)
                for number in (cosine, limits.get("lower", cosine), limits.get("upper", cosine))
            )
            if not lower <= value <= upper:
                raise UserError(
                    f"{file}: {_shown(where)}: threshold {value:g} at FAR {far:g} outside of its "
                    f"interval, {lower:g} to {upper:g}"
                )
            found[far] = Threshold(far, value, lower, upper, where)
    return dict(sorted(found.items(), reverse=True))


def _object(file: Path, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{file}: {_shown(where)} is no object; {_HINT}")
    return value


def _text(file: Path, value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{file}: {_shown(where)} is no text; {_HINT}")
    return value


def _number(file: Path, value: Any, where: str, low: float, high: float) -> float:
    """Return a number in low..high, but for the rounding of float32."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not low - _COSINE_ROUNDING <= value <= high + _COSINE_ROUNDING:
        raise UserError(
            f"{file}: {_shown(where)} is {_shown(repr(value))}; "
            f"expected a number in {low:g}..{high:g}"
        )
    return min(max(float(value), low), high)


def _shown(text: str, letters: int = 80) -> str:
    return printable(text[:letters])


def _named(names: Sequence[str], most: int = 8) -> str:
    listed = ", ".join(_shown(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
