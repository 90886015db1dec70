"""From which cosine on a nearest row is an answer, and below it "unknown".

A comparison of two people's faces is accepted at a rate FAR, which an evaluation has measured. A
search is N comparisons: a face of nobody in the gallery is taken for someone at the rate
FPIR = 1 - (1 - FAR)^N, if those are independent, and at most at N FAR in any case.
"""

import math
from dataclasses import dataclass

from uniface_jax.errors import UserError
from uniface_jax.inference.calibration import Calibration, Threshold


@dataclass(frozen=True)
class Limit:
    """The cosine from which on there is an answer, and what is known of it.

    far: of a comparison; fpir: of a search of this gallery; measured_on: the evaluation's set. All
    None for a cosine that the user has named.
    """

    cosine: float
    far: float | None = None
    fpir: float | None = None
    measured_on: str | None = None


def fpir_of(far: float, rows: int) -> float:
    """Return the rate at which a search of `rows` rows finds someone for a face of nobody.

    >>> round(fpir_of(1e-4, 1000), 4), fpir_of(0.0, 5)
    (0.0952, 0.0)
    """
    return 1.0 if far >= 1 else -math.expm1(rows * math.log1p(-far))


def far_for(fpir: float, rows: int) -> float:
    """Return the FAR of a comparison at which a search of `rows` rows has this FPIR, below 1.

    >>> f"{far_for(0.01, 1_000_000):.2e}"
    '1.01e-08'
    """
    return -math.expm1(math.log1p(-fpir) / rows)


def limit_at_far(
    calibration: Calibration, far: float, rows: int, measured_on: str | None = None
) -> Limit:
    """Return the limit at a FAR of comparisons, which must have been measured."""
    return _limit(calibration.threshold(far, measured_on), rows)


def limit_at_fpir(
    calibration: Calibration, fpir: float, rows: int, measured_on: str | None = None
) -> Limit:
    """Return the limit at a FPIR of searches: that of the greatest FAR that is low enough for it.

    Raises UserError where no FAR that was measured is.
    """
    if not 0 < fpir < 1:
        raise UserError(f"--fpir={fpir:g}: expected a rate between 0 and 1")
    needed = far_for(fpir, max(rows, 1))
    usable = [
        far
        for name, by_far in calibration.sets.items()
        if measured_on is None or measured_on in (name, name.partition("/")[2])
        for far, threshold in by_far.items()
        if threshold is not None and far <= needed * (1 + 1e-9)
    ]
    if not usable:
        raise UserError(
            f"--fpir={fpir:g}: with {rows} rows a comparison may have a FAR of {needed:.2g}, and "
            f"{calibration.file} has none so low"
        )
    return limit_at_far(calibration, max(usable), rows, measured_on)


def _limit(threshold: Threshold, rows: int) -> Limit:
    fpir = fpir_of(threshold.far, rows)
    return Limit(threshold.cosine, threshold.far, fpir, threshold.measured_on)
