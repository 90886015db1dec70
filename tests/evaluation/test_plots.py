"""Figures are written whole, as pictures that show what they were given."""

import numpy as np
import pytest
from PIL import Image

from uniface_jax.evaluation.plots import plot_det, plot_roc, plot_scores
from uniface_jax.evaluation.roc import roc

BLUE, ORANGE, VERMILLION = (0, 114, 178), (230, 159, 0), (213, 94, 0)


def pairs(count, gap, seed=0):
    rng = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    return np.clip(rng.normal(0, 0.2, count) + gap * same, -1, 1), same


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def drawn(image, colour):
    """Rows and columns whose colour is close to `colour`."""
    return np.argwhere(np.abs(image - colour).max(axis=2) < 12)


@pytest.mark.parametrize(("plot", "better_is"), [(plot_roc, "above"), (plot_det, "below")])
def test_the_better_curve_lies_on_its_side(tmp_path, plot, better_is):
    curves = {"good": roc(*pairs(2000, 0.8)), "poor": roc(*pairs(2000, 0.3))}
    plot(tmp_path / "sub" / "curve.png", curves, "two curves")
    image = pixels(tmp_path / "sub" / "curve.png")
    image = image[: int(0.7 * len(image))]  # above the legend
    good, poor = (np.mean(drawn(image, colour)[:, 0]) for colour in (BLUE, VERMILLION))
    assert (good < poor) == (better_is == "above")


def test_a_curve_of_many_points_is_thinned_to_the_same_picture(tmp_path):
    plot_roc(tmp_path / "curve.png", {"set": roc(*pairs(60_000, 0.4))}, "many")
    columns = drawn(pixels(tmp_path / "curve.png"), BLUE)[:, 1]
    assert np.ptp(columns) > 0.7 * pixels(tmp_path / "curve.png").shape[1]


def test_same_pairs_lie_right_of_different_ones(tmp_path):
    scores, same = pairs(2000, 0.9)
    plot_scores(tmp_path / "scores.png", scores, same, {"FAR ≤ 0.1": 0.3}, "histograms")
    image = pixels(tmp_path / "scores.png")
    image = image[: int(0.75 * len(image))]
    assert np.median(drawn(image, BLUE)[:, 1]) > np.median(drawn(image, ORANGE)[:, 1]) + 100


def test_equal_scores_can_be_drawn_and_no_temporary_file_stays(tmp_path):
    scores, same = np.full(20, 0.5), np.arange(20) < 8
    plot_scores(tmp_path / "scores.png", scores, same, {}, "equal")
    plot_roc(tmp_path / "roc.png", {"equal": roc(scores, same)}, "equal")
    plot_det(tmp_path / "det.png", {"equal": roc(scores, same)}, "equal")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["det.png", "roc.png", "scores.png"]
    assert len(drawn(pixels(tmp_path / "roc.png"), BLUE)) > 100
