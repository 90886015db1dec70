"""Figures are written whole, as pictures that show what they were given."""

import numpy as np
import pytest
from PIL import Image

from uniface_jax.evaluate.drawings import histogram, roc_line
from uniface_jax.evaluate.metrics.roc import roc
from uniface_jax.evaluate.report import plots

BLUE, ORANGE, VERMILLION = (0, 114, 178), (230, 159, 0), (213, 94, 0)


def pairs(count, gap, seed=0):
    rng = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    return np.clip(rng.normal(0, 0.2, count) + gap * same, -1, 1), same


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def draw(path, figure):
    """The pixels of a figure above its legend."""
    plots.save_png(figure, path)
    image = pixels(path)
    return image[: int(0.7 * len(image))]


def drawn(image, colour):
    """Rows and columns whose colour is close to `colour`."""
    return np.argwhere(np.abs(image - colour).max(axis=2) < 12)


@pytest.mark.parametrize(
    ("figure", "better_is"), [(plots.roc_figure, "above"), (plots.det_figure, "below")]
)
def test_the_better_curve_lies_on_its_side(tmp_path, figure, better_is):
    lines = {"good": roc_line(roc(*pairs(2000, 0.8))), "poor": roc_line(roc(*pairs(2000, 0.3)))}
    image = draw(tmp_path / "sub" / "curve.png", figure(lines, "two curves"))
    good, poor = (np.mean(drawn(image, colour)[:, 0]) for colour in (BLUE, VERMILLION))
    assert (good < poor) == (better_is == "above")


def test_a_curve_of_many_points_is_thinned_to_the_same_picture(tmp_path):
    line = roc_line(roc(*pairs(60_000, 0.4)))
    assert len(line["far"]) <= 801
    draw(tmp_path / "curve.png", plots.roc_figure({"set": line}, "many"))
    image = pixels(tmp_path / "curve.png")
    assert np.ptp(drawn(image, BLUE)[:, 1]) > 0.7 * image.shape[1]


def test_same_pairs_lie_right_of_different_ones(tmp_path):
    scores, same = pairs(2000, 0.9)
    drawing = histogram(scores[same], scores[~same], {"FAR ≤ 0.1": 0.3, "FAR ≤ 0.01": None})
    assert (sum(drawing["same"]), sum(drawing["different"])) == (1000, 1000)
    image = draw(tmp_path / "scores.png", plots.scores_figure(drawing, "histograms"))
    assert np.median(drawn(image, BLUE)[:, 1]) > np.median(drawn(image, ORANGE)[:, 1]) + 100


def test_equal_scores_can_be_drawn_and_no_temporary_file_stays(tmp_path):
    scores, same = np.full(20, 0.5), np.arange(20) < 8
    lines = {"equal": roc_line(roc(scores, same))}
    draw(
        tmp_path / "scores.png",
        plots.scores_figure(histogram(scores[same], scores[~same], {}), "equal"),
    )
    draw(tmp_path / "det.png", plots.det_figure(lines, "equal"))
    image = draw(tmp_path / "roc.png", plots.roc_figure(lines, "equal"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["det.png", "roc.png", "scores.png"]
    assert len(drawn(image, BLUE)) > 100


@pytest.mark.parametrize(
    ("figure", "line"),
    [
        (plots.cmc_figure, {"ranks": [1, 5, 10, 100], "rates": [0.2, 0.5, 0.9, 1.0]}),
        (plots.open_set_figure, {"fpir": [0.001, 0.01, 0.1, 1], "tpir": [0.9, 0.95, 0.99, 1.0]}),
        (plots.open_set_det_figure, {"fpir": [0.001, 0.01, 0.1, 1], "fnir": [0.9, 0.7, 0.5, 0.4]}),
        (plots.reject_figure, {"lines": {"FMR 0.1": {"rejected": [0, 0.95], "fnmr": [0.5, 0.3]}}}),
        (plots.distractors_figure, {"distractors": [10, 100, 1000], "rates": [1.0, 0.8, 0.3]}),
    ],
)
def test_rates_are_drawn_over_the_whole_width(tmp_path, figure, line):
    image = draw(tmp_path / "rates.png", figure({"set": line}, "rates"))
    assert np.ptp(drawn(image, BLUE)[:, 1]) > 0.7 * image.shape[1]
    text = plots.to_svg(figure({"set": line}, "rates & <b>"))
    assert text == plots.to_svg(figure({"set": line}, "rates & <b>"))
    assert "rates &amp; &lt;b&gt;" in text
