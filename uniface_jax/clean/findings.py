"""Findings: what is wrong with which image or person, how sure that is, and what to do about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EXACT, NEAR = "exact_duplicate", "near_duplicate"
ONE_PERSON, SEVERAL, STRANGER = "one_person", "several_people", "stranger"
OFF_CENTER = "off_center"
NO_FACE, LOW_QUALITY, BLURRED, TURNED = "no_face", "low_quality", "blurred", "turned"
DROP, MERGE, SPLIT, LOOK = "drop", "merge", "split", "look"

# What --apply does where nothing else is asked for. A blurred or turned face is a face to learn
# from: these are for looking at.
ACTIONS: Mapping[str, str] = {
    EXACT: DROP,
    NEAR: DROP,
    ONE_PERSON: MERGE,
    SEVERAL: SPLIT,
    STRANGER: DROP,
    OFF_CENTER: DROP,
    NO_FACE: DROP,
    LOW_QUALITY: LOOK,
    BLURRED: LOOK,
    TURNED: LOOK,
}
TITLES: Mapping[str, str] = {
    EXACT: "Exact duplicates",
    NEAR: "Near duplicates",
    ONE_PERSON: "People who are probably one",
    SEVERAL: "Labels that are probably several people",
    STRANGER: "Images far from their person",
    OFF_CENTER: "Images far from their dominant sub-center",
    NO_FACE: "Images without a face",
    LOW_QUALITY: "Images of a low quality",
    BLURRED: "Blurred images",
    TURNED: "Turned faces",
}
WITH_OTHER = (EXACT, NEAR)  # whose other image is the one that stays


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: a key of ACTIONS.
        score: how much so; what it is the reason says.
        reason: in words.
        label: the person's class.
        image: the record, None where it is about a person as a whole.
        other_image: the record that it is like, or that shows a person meant.
        other_label: the class of `other_image`, or the person whom the image shows more probably.
        group: of SEVERAL, the number of the person apart under this label, from 1 on.
    """

    kind: str
    score: float
    reason: str
    label: int
    image: int | None = None
    other_image: int | None = None
    other_label: int | None = None
    group: int | None = None


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each kind.

    >>> counts([Finding(BLURRED, 3.0, "blurred", 0, 7)])[BLURRED]
    1
    """
    found = dict.fromkeys(ACTIONS, 0)
    for finding in findings:
        found[finding.kind] += 1
    return found
