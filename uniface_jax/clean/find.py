"""Findings of a data set, from what its images' features, pixels and labels say."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from uniface_jax.clean.findings import (
    BLURRED,
    EXACT,
    LOW_QUALITY,
    NEAR,
    NO_FACE,
    ONE_PERSON,
    SEVERAL,
    STRANGER,
    TURNED,
    Finding,
)
from uniface_jax.clean.measures import BLANK_CONTRAST, CONTRAST, FACE, NO_DETECTOR, SHARPNESS, TURN
from uniface_jax.clean.people import People, best_others, rows_by_label
from uniface_jax.clean.scale import Scale
from uniface_jax.evaluate.all_pairs.above import PairsFound, pairs_above
from uniface_jax.evaluate.metrics.verification import normalize

MIN_APART = 3  # images that make a group apart a person of its own
_MAJORITY = 0.5  # of a label's images, by which its person is known


@dataclass(frozen=True)
class Limits:
    """Bounds of what is found, each a flag.

    sure: deviations of different people's cosines above their mean, from which two people are one,
    or an image is of another person. face: the least score of the detector. quality: deviations of
    the logarithm of features' lengths below its median. sharpness: see measures.sharpness; turn:
    see measures.turn.
    """

    sure: float = 6.0
    face: float = 0.5
    quality: float = 4.0
    sharpness: float = 20.0
    turn: float = 0.35


def duplicate_findings(
    labels: np.ndarray, originals: np.ndarray, copies: PairsFound, own: np.ndarray
) -> list[Finding]:
    """Return exact and near duplicates: what goes, and the image that stays.

    labels, originals (duplicates.exact_originals): int [N]. copies: pairs that are one photograph.
    own: float [N], how much an image is like its person: of two people's one photograph that one
    stays which is more so, else the first.
    """
    findings = []
    for image in np.flatnonzero(originals != np.arange(len(originals))).tolist():
        first = int(originals[image])
        pair = _by_person(first, image, labels, own)
        findings.append(_duplicate(EXACT, 1.0, pair, labels, "the same bytes as the other image"))
    exact = originals[copies.first] == originals[copies.second]
    for first, second, score, same in zip(*copies, exact, strict=True):
        if not same:
            pair = _by_person(int(first), int(second), labels, own)
            why = f"one photograph, cropped or brightened: correlation {score:.3f}"
            findings.append(_duplicate(NEAR, float(score), pair, labels, why))
    return sorted(findings, key=lambda f: (f.kind, -f.score, f.image or 0))


def _by_person(first: int, second: int, labels: np.ndarray, own: np.ndarray) -> tuple[int, int]:
    """Return (the image that goes, the one that stays)."""
    across = labels[first] != labels[second]
    likeness = np.nan_to_num(own[[first, second]], nan=0.0)
    return (first, second) if across and likeness[1] > likeness[0] else (second, first)


def _duplicate(
    kind: str, score: float, pair: tuple[int, int], labels: np.ndarray, why: str
) -> Finding:
    image, stays = pair
    across = labels[image] != labels[stays]
    reason = f"{why}, of another person" if across else why
    return Finding(kind, score, reason, int(labels[image]), image, stays, int(labels[stays]))


def people_findings(
    features: np.ndarray, labels: np.ndarray, people: People, scale: Scale, limits: Limits
) -> list[Finding]:
    """Return labels that are one person, that are several, and images far from their person."""
    lengths = np.linalg.norm(people.centers, axis=1)
    present = np.flatnonzero(people.sizes)
    units = people.centers[present] / np.maximum(lengths[present], 1e-12)[:, None]
    bound = scale.different_mean + limits.sure * scale.different_std
    numbers = {int(label): row for row, label in enumerate(present)}
    one = [
        _one_person(int(present[i]), int(present[j]), float(score), people, scale)
        for found in pairs_above(units, bound=bound)
        for i, j, score in zip(*found, strict=True)
        if _are_one(score * lengths[present[i]] * lengths[present[j]], scale)
    ]
    findings = one
    parts = _parts(features, labels, people)
    if parts:
        own = np.array([numbers[part.label] for part in parts])
        sums = np.stack([part.mean for part in parts])
        found = pairs_above(normalize(sums), units, bound=bound)
        person, score = best_others(found, own, len(parts))
        for part, row, likeness in zip(parts, person.tolist(), score.tolist(), strict=True):
            named = (int(present[row]), likeness) if row >= 0 else None
            if named or scale.is_strange(part.score):
                findings += _apart(part, named)
    return sorted(findings, key=lambda f: (f.kind, -f.score if f.kind == ONE_PERSON else f.score))


def _are_one(mean_cosine: float, scale: Scale) -> bool:
    """Return True where the mean cosine of two labels' images is one that one person's have."""
    return mean_cosine >= scale.same_mean - 2 * scale.same_std


def _one_person(a: int, b: int, score: float, people: People, scale: Scale) -> Finding:
    few, many = sorted((a, b), key=lambda label: (people.sizes[label], -label))
    mean = float(people.centers[a] @ people.centers[b])
    reason = (
        f"their images have a mean cosine of {mean:.2f}, their centers of {score:.2f}; images of "
        f"one person {scale.same_mean:.2f}, of two {scale.different_mean:.2f} on average"
    )
    return Finding(ONE_PERSON, score, reason, few, other_label=many)


@dataclass(frozen=True, eq=False)
class _Part:
    """A group of a label's images that is not its largest: rows int64 [K], number from 1 on.

    mean: float32 [D], of its unit features; score: its mean cosine with group 0's images, of which
    there are `main`. known: the label's images in group 0 and in groups that are people; of: all.
    """

    label: int
    rows: np.ndarray
    number: int
    mean: np.ndarray
    score: float
    main: int
    known: int
    of: int


def _parts(features: np.ndarray, labels: np.ndarray, people: People) -> list[_Part]:
    """Return the groups apart of all labels."""
    rows = np.flatnonzero(people.group)
    images = np.bincount(labels)
    found = []
    for label, places in rows_by_label(labels[rows]):
        mine = rows[places]
        sizes = np.bincount(people.group[mine])
        known = int(people.sizes[label] + sizes[sizes >= MIN_APART].sum())
        for number in np.flatnonzero(sizes).tolist():
            chosen = mine[people.group[mine] == number]
            mean = normalize(features[chosen]).mean(0)
            score = float(mean @ people.centers[label])
            main, of = int(people.sizes[label]), int(images[label])
            found.append(
                _Part(label, chosen, number, mean.astype(np.float32), score, main, known, of)
            )
    return found


def _apart(part: _Part, named: tuple[int, float] | None) -> Iterator[Finding]:
    """Yield the findings on a group apart; named: the other person most like it, and how much."""
    other, likeness = named or (None, 0.0)
    like = "" if other is None else f"; the person named has {likeness:.2f}"
    if len(part.rows) >= MIN_APART:
        reason = (
            f"{len(part.rows)} of {part.of} images are another person's: a mean cosine of "
            f"{part.score:.2f} with the {part.main} of the largest group{like}"
        )
        for row in part.rows.tolist():
            yield Finding(SEVERAL, part.score, reason, part.label, row, None, other, part.number)
    elif part.known > _MAJORITY * part.of or other is not None:
        reason = f"a mean cosine of {part.score:.2f} with {part.main} images of its person{like}"
        for row in part.rows.tolist():
            yield Finding(STRANGER, part.score, reason, part.label, row, None, other)


def measure_findings(
    labels: np.ndarray, measures: np.ndarray, lengths: np.ndarray | None, limits: Limits
) -> list[Finding]:
    """Return images without a face, of a low quality, blurred and turned, the worst first.

    Args:
        labels: int [N].
        measures: float [N, measures.WIDTH].
        lengths: float [N], of the features as the network gives them; None where those are equal.
        limits: from where on.
    """
    faces, contrast = measures[:, FACE], measures[:, CONTRAST]
    blank = contrast < BLANK_CONTRAST
    looked_for = faces != NO_DETECTOR
    empty = blank | (looked_for & (faces < limits.face))
    findings = [
        Finding(
            NO_FACE,
            float(max(faces[row], 0)),
            "of one color, or not to be decoded"
            if blank[row]
            else f"the detector's score is {faces[row]:.2f}",
            int(labels[row]),
            row,
        )
        for row in np.flatnonzero(empty).tolist()
    ]
    z = np.zeros(len(labels)) if lengths is None else robust_z(np.log(lengths))
    worse = (
        (LOW_QUALITY, z, z < -limits.quality, "the feature's length is {:.1f} deviations off"),
        (BLURRED, measures[:, SHARPNESS], measures[:, SHARPNESS] < limits.sharpness,
         "the variance of its Laplacian is {:.1f}"),
        (TURNED, -measures[:, TURN], measures[:, TURN] > limits.turn,
         "the nose is {:.2f} of the eyes' distance off their middle"),
    )  # fmt: skip
    for kind, values, bad, words in worse:
        for row in np.flatnonzero(bad & ~empty).tolist():
            value = abs(float(values[row]))
            findings.append(Finding(kind, value, words.format(value), int(labels[row]), row))
    sign = {LOW_QUALITY: -1, TURNED: -1}
    return sorted(findings, key=lambda f: (f.kind, sign.get(f.kind, 1) * f.score, f.image or 0))


def robust_z(values: np.ndarray) -> np.ndarray:
    """Return how many deviations values [N] are above their median, float64, by their MAD.

    >>> robust_z(np.array([1.0, 2.0, 3.0])).round(2).tolist()
    [-0.67, 0.0, 0.67]
    """
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))
    found: np.ndarray = (values - median) / max(float(deviation), 1e-12)
    return found
