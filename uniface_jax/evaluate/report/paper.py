"""Numbers of the paper, in percent, to be compared with: targets, no results of this project.

Zhou, Jia, Li, Shen, Duan, "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition",
ICCV 2023.
The one place of these numbers: the recipes in configs/ and the reports of evaluations take them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MR_ALL, IJBC_4, IJBC_5 = "MR-All TAR@1e-6", "IJB-C TAR@1e-4", "IJB-C TAR@1e-5"
LFW, CFP_FP, AGEDB = "LFW", "CFP-FP", "AgeDB"
MEGAFACE_ID, MEGAFACE_VER = "MegaFace rank-1", "MegaFace TAR@1e-6"
REFINED_ID, REFINED_VER = "MegaFace refined rank-1", "MegaFace refined TAR@1e-6"


@dataclass(frozen=True)
class Row:
    """Numbers of the paper for one network. values: percent, by the names above."""

    method: str
    training: str
    values: Mapping[str, float]


def _casia(method: str, *values: float) -> Row:
    names = (MR_ALL, IJBC_4, IJBC_5, LFW, CFP_FP, AGEDB)
    return Row(method, "CASIA, R50", dict(zip(names, values, strict=True)))


def _megaface(*values: float) -> dict[str, float]:
    return dict(zip((MEGAFACE_ID, MEGAFACE_VER, REFINED_ID, REFINED_VER), values, strict=True))


ROWS = (
    Row("NSL, no margin", "CASIA, R50", {MR_ALL: 18.52}),
    Row("BCE, no margin", "CASIA, R50", {MR_ALL: 18.90}),
    Row("UCE, no margin", "CASIA, R50", {MR_ALL: 19.59}),
    _casia("CosFace m .35", 43.34, 79.78, 38.82, 99.36, 96.60, 94.53),
    _casia("ArcFace m .5", 45.59, 60.31, 17.20, 99.40, 97.27, 94.96),
    _casia("SphereFace-R", 39.92, 86.35, 75.81, 99.38, 96.95, 94.48),
    _casia("SphereFace2", 44.20, 88.41, 79.18, 99.46, 97.42, 94.96),
    _casia("UCE-M", 47.45, 88.65, 78.42, 99.56, 97.24, 94.71),
    _casia("UCE-MB λ .6", 48.54, 88.96, 78.40, 99.55, 97.47, 95.36),
    _casia("UCE-MB r .5", 48.72, 88.94, 78.30, 99.30, 97.20, 94.95),
    Row("UCE-MB λ .7, m .4", "CASIA, R50", _megaface(77.83, 93.64, 92.75, 95.17)),
    Row("Partial FC", "WebFace4M, R50", {MR_ALL: 86.85}),
    Row("UCE-M", "WebFace4M, R50", {MR_ALL: 88.30}),
    Row("UCE-MB λ .7", "WebFace4M, R50", {MR_ALL: 88.55}),
    Row("UCE-MB r .4", "WebFace4M, R50", {MR_ALL: 88.49}),
    Row("UCE-MB λ .7", "Glint360K, R100", _megaface(84.87, 97.85, 99.27, 99.19)),
    Row("Partial FC", "WebFace42M, R200", {MR_ALL: 97.70}),
    Row("UCE-MB λ .7", "WebFace42M, R200", {MR_ALL: 97.78}),
    Row("UCE-MB r .4", "WebFace42M, R200", {MR_ALL: 97.92}),
)


def published(training: str, *methods: str) -> dict[str, float]:
    """Return the paper's numbers of networks by their `training` and `methods`, as ROWS has them.

    Raises KeyError for a network that is not there.
    """
    found = {row.method: row.values for row in ROWS if row.training == training}
    return {key: value for method in methods for key, value in found[method].items()}


# Pairs, same pairs: by these a set of that name is known to be the published one.
_PUBLISHED_PAIRS = {
    "lfw": (6000, 3000, LFW),
    "cfp_fp": (7000, 3500, CFP_FP),
    "agedb_30": (6000, 3000, AGEDB),
    "agedb": (6000, 3000, AGEDB),
}
_IJBC_PAIRS = (19_557, 15_638_932)  # same, different
_MR_ALL = (1_624_305, 242_143)  # images, identities
_PROBE_IDENTITIES, _DISTRACTORS = 80, {"raw": 1_000_000, "refined": 900_000}  # of MegaFace


def comparable(protocol: str, name: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return one's own numbers, in percent, where data and protocol are the paper's.

    protocol, name, metrics: of one set, as in metrics.json. The names are those above. The result
    is empty where the counts of pairs or images show that it is other data. IJB-C is taken in the
    reading of insightface.
    """
    if protocol in ("verification", "lists") and name in _PUBLISHED_PAIRS:
        pairs, same, key = _PUBLISHED_PAIRS[name]
        if (metrics["pairs"], metrics["same"]) == (pairs, same):
            return {key: 100 * metrics["accuracy"]["mean"]}
    if protocol == "ijb" and (metrics.get("same"), metrics.get("different")) == _IJBC_PAIRS:
        nearest = {entry["far"]: 100 * entry["nearest"]["tar"] for entry in metrics["tar_at_far"]}
        return {
            key: nearest[far] for key, far in ((IJBC_4, 1e-4), (IJBC_5, 1e-5)) if far in nearest
        }
    counts = (metrics.get("images"), metrics.get("identities"))
    if protocol == "mfr" and name == "ALL" and counts == _MR_ALL:
        return {MR_ALL: 100 * _tar(metrics["tar_at_far"])}
    if protocol == "megaface" and metrics["identities"] == _PROBE_IDENTITIES:
        last = metrics["identification"][-1]
        if last["distractors"] >= _DISTRACTORS.get(name, math.inf):  # a label leak: no comparison
            raw = name == "raw"
            first, second = (MEGAFACE_ID, MEGAFACE_VER) if raw else (REFINED_ID, REFINED_VER)
            tar = _tar(metrics["verification"]["tar_at_far"])
            return {first: 100 * last["rank"]["1"], second: 100 * tar}
    return {}


def _tar(tar_at_far: Sequence[Mapping[str, Any]]) -> float:
    """Return the TAR at FAR 1e-6, nan where it was not asked for."""
    found = [entry["strict"]["tar"] for entry in tar_at_far if entry["far"] == 1e-6]
    return found[0] if found else float("nan")


def rows_for(keys: set[str]) -> list[Row]:
    """Return the paper's rows that have one of the numbers named in `keys`."""
    return [row for row in ROWS if keys & set(row.values)]
