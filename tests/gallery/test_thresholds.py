"""From rates of comparisons to rates of searches, and back."""

from pathlib import Path

import pytest

from uniface_jax.errors import UserError
from uniface_jax.gallery.thresholds import far_for, fpir_of, limit_at_far, limit_at_fpir
from uniface_jax.inference.calibration import Calibration, Threshold

FARS = {1e-2: 0.2, 1e-4: 0.3, 1e-6: 0.4}
BY_FAR = {far: Threshold(far, cosine, cosine, cosine, "p/s") for far, cosine in FARS.items()}
CALIBRATION = Calibration(Path("metrics.json"), "m", "ab", "d", {"p/s": {**BY_FAR, 1e-8: None}})


@pytest.mark.parametrize("rows", [1, 50, 10**7])
@pytest.mark.parametrize("fpir", [1e-6, 0.3, 0.99])
def test_one_is_the_other_turned_around(rows, fpir):
    far = far_for(fpir, rows)
    assert 1 - (1 - far) ** rows == pytest.approx(fpir, rel=1e-3)
    assert fpir_of(far, rows) == pytest.approx(fpir)


def test_the_threshold_grows_with_the_gallery():
    cosines = [limit_at_fpir(CALIBRATION, 0.05, rows).cosine for rows in (1, 100, 10_000)]
    assert cosines == [0.2, 0.3, 0.4]
    assert limit_at_far(CALIBRATION, 1e-4, 100).fpir == pytest.approx(0.00995, rel=1e-3)
    with pytest.raises(UserError, match="with 1000000 rows a comparison may have a FAR"):
        limit_at_fpir(CALIBRATION, 0.05, 1_000_000)


@pytest.mark.parametrize("fpir", [0, 1, -1])
def test_no_rates(fpir):
    with pytest.raises(UserError, match="expected a rate between 0 and 1"):
        limit_at_fpir(CALIBRATION, fpir, 10)
