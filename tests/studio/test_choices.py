"""Thresholds in words: how many false accepts are expected, and how well that is known."""

from pathlib import Path

import pytest

from uniface_jax.inference.calibration import Calibration, Threshold
from uniface_jax.studio.choices import choices_of, meaning, searches


def calibration(*thresholds):
    sets = {}
    for each in thresholds:
        sets.setdefault(each.measured_on, {})[each.far] = each
    return Calibration(Path("metrics.json"), "net", "0" * 64, "net", sets)


def test_a_choice_says_what_its_threshold_means(run):
    known = Threshold(0.01, 0.41, 0.38, 0.44, "pairs/faces")
    (choice,) = choices_of(calibration(known), run)
    assert (choice.cosine, choice.far, choice.first) == (0.41, 0.01, True)
    assert choice.label == "FAR 0.01, cosine 0.410: pairs/faces"
    assert "Of 100 pairs of different people about 1 is accepted" in choice.meaning
    assert "(95 % interval: 0.2 to 3), measured on 300 such pairs of pairs/faces." in choice.meaning
    assert "known from 0.380 to 0.440" in choice.meaning


def test_the_page_begins_with_the_lowest_rate_of_the_first_set(run):
    run.metrics["protocols"]["pairs"]["sets"].setdefault("other", {})
    rates = [Threshold(far, far, far, far, "pairs/faces") for far in (0.1, 0.01)]
    other = Threshold(1e-6, 0.9, 0.9, 0.9, "pairs/other")
    choices = choices_of(calibration(*rates, other), run)
    assert [choice.first for choice in choices] == [False, True, False]
    assert choices_of(calibration(), run) == []


@pytest.mark.parametrize(
    ("far", "words"),
    [
        (1e-6, "Of 1,000,000 pairs of different people about 1 is accepted"),
        (0.003, "Of 1,000 pairs of different people about 3 are accepted"),
        (1.0, "Of 1 pairs of different people about 1 is accepted"),
    ],
)
def test_few_of_many_are_expected(far, words):
    said = meaning(Threshold(far, 0.3, 0.3, 0.3, "pairs/faces"), None, None)
    assert words in said
    assert "interval" not in said  # of which nothing is known
    assert "known from" not in said


def test_a_larger_gallery_takes_more_strangers_for_someone():
    assert "Of 100 people" in searches(1e-4, 1000)
    assert "about 9.5 are" in searches(1e-4, 1000)
    assert "about 63 are" in searches(1e-4, 10_000)
    assert "Of 100,000 people who are not among the 10 faces" in searches(1e-6, 10)
    assert searches(1e-4, 0) == "The gallery is empty."
