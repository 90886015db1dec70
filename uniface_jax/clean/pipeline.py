"""The way from a data set to its findings, one step after another."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from uniface_jax import cli
from uniface_jax.clean.cost import forecast, measure_rate
from uniface_jax.clean.duplicates import exact_originals, nearest_pairs, same_photographs
from uniface_jax.clean.find import Limits, duplicate_findings, measure_findings, people_findings
from uniface_jax.clean.findings import ACTIONS, NEAR, NO_FACE, Finding
from uniface_jax.clean.measures import measuring_model
from uniface_jax.clean.people import People, group_people
from uniface_jax.clean.scale import Scale, estimate_scale
from uniface_jax.clean.set_images import Contents, ImagesToClean
from uniface_jax.evaluate.all_pairs.above import pairs_above
from uniface_jax.evaluate.features import (
    ComputedFeatures,
    FeatureSource,
    GivenFeatures,
    computed_features,
)
from uniface_jax.evaluate.kept_features import FeatureCache
from uniface_jax.evaluate.sets.image_sets import Digest, FileDigests

DUPLICATES, PEOPLE, IMAGES, SUBCENTERS = "duplicates", "people", "images", "subcenters"
CHECKS = (DUPLICATES, PEOPLE, IMAGES)
ALL_CHECKS = (*CHECKS, SUBCENTERS)  # the last of a workdir that was trained on the set alone
_MEASURED_IMAGES = 64  # at a time
_EQUAL_LENGTHS = 1e-3  # spread of features' lengths, from which on they say something


@dataclass(frozen=True, eq=False)
class Set:
    """A data set to be looked at: its images, their content and their features, [N, D]."""

    images: ImagesToClean
    contents: Contents
    features: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Return the classes of the images, int32 [N]."""
        return self.contents.labels


def measuring(detector: Path | None, cache: FeatureCache) -> ComputedFeatures:
    """Return the source of images' measures, which are kept beside features."""
    return ComputedFeatures(measuring_model(detector), cache, _MEASURED_IMAGES, FileDigests(None))


def read_set(
    images: ImagesToClean, features: FeatureSource, measures: ComputedFeatures | None
) -> tuple[Set, np.ndarray | None]:
    """Return the set, and the measures of its images where they are asked for.

    What is not kept of earlier runs takes two readings of the images: one for their content, by
    which features are known again, and one for all that is computed of their pixels.
    """
    contents = images.contents
    if measures is None:
        return Set(images, contents, features.features(images).values), None
    if isinstance(features, ComputedFeatures):
        found, measured = computed_features([features, measures], images)
    else:
        found, measured = features.features(images), measures.features(images)
    return Set(images, contents, found.values), measured.values


def read_people(data: Set) -> tuple[Scale, People]:
    """Return the scale of the set's cosines, and its people; a terminal shows a bar."""
    scale = estimate_scale(data.features, data.labels)
    classes = data.images.source.num_classes
    with _bar(len(data.labels), "people", " images") as bar:
        return scale, group_people(data.features, data.labels, classes, scale.threshold, bar.update)


def find_duplicates(data: Set, scale: Scale, own: np.ndarray) -> list[Finding]:
    """Return exact and near duplicates; says first what the search among all pairs will take."""
    count, width = data.features.shape
    cost = forecast(count, width, measure_rate(width))
    cli.say(f"near duplicates: {cost.describe()}")
    shown = "near duplicates" if sys.stderr.isatty() else None
    found = pairs_above(data.features, bound=scale.near_copy, progress=shown)
    candidates = nearest_pairs(found, count)
    with _bar(len(candidates.scores), "compare", " pairs") as bar:
        copies = same_photographs(candidates, data.images.pixels, tick=bar.update)
    originals = exact_originals(data.contents.hashes)
    return duplicate_findings(data.labels, originals, copies, own)


def find_people(data: Set, scale: Scale, people: People, limits: Limits) -> list[Finding]:
    """Return labels of one person, labels of several, and images far from their person."""
    return people_findings(data.features, data.labels, people, scale, limits)


def find_images(data: Set, measures: np.ndarray, limits: Limits) -> list[Finding]:
    """Return images without a face, of a low quality, blurred and turned; measures: [N, WIDTH]."""
    lengths = feature_lengths(data.features)
    return measure_findings(data.labels, measures, lengths, limits)


def feature_lengths(features: np.ndarray) -> np.ndarray | None:
    """Return the lengths of features [N, D], float64 [N]; None where they are all about equal."""
    lengths = np.empty(len(features))
    for start in range(0, len(features), 4096):
        block = np.asarray(features[start : start + 4096], np.float64)
        lengths[start : start + len(block)] = np.linalg.norm(block, axis=1)
    return lengths if lengths.std() > _EQUAL_LENGTHS * lengths.mean() else None


def plan(features: FeatureSource, images: ImagesToClean) -> list[str]:
    """Return what the searches among pairs would take, a line each; embeds one image."""
    given = isinstance(features, GivenFeatures)
    width = features.features(images if given else First(images)).values.shape[1]
    count, classes = len(images), images.source.num_classes
    rate = measure_rate(width)
    return [
        f"near duplicates among {count:,} images: {forecast(count, width, rate).describe()}",
        f"people among {classes:,}: {forecast(classes, width, rate).describe()}",
        f"measured here: {rate:.2g} products a second; memory beside: "
        f"{(4 * width * classes + 60 * count) / 2**30:.1f} GiB; features on disk: "
        f"{4 * width * count / 2**30:.1f} GiB",
    ]


class First(ImagesToClean):
    """The first image of a set alone."""

    def __init__(self, whole: ImagesToClean) -> None:
        super().__init__(f"{whole.name}-first", whole.source)

    def __len__(self) -> int:
        return 1

    def digest(self, files: Digest) -> str:
        """Return a digest for which not all images are read."""
        return hashlib.sha256(self.source.fingerprint().encode()).hexdigest()


def settled(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings in the order of their kinds; images without a face are no near duplicates.

    Two grounds of one color, or two ramps, are alike and no photographs of anybody.
    """
    empty = {finding.image for finding in findings if finding.kind == NO_FACE}
    return [
        finding
        for kind in ACTIONS
        for finding in findings
        if finding.kind == kind
        and not (kind == NEAR and {finding.image, finding.other_image} & empty)
    ]


def _bar(total: int, title: str, unit: str) -> "tqdm[NoReturn]":
    return tqdm(total=total, desc=title, unit=unit, disable=not sys.stderr.isatty())
