"""Columns of the papers' tables: which numbers of which set stand in them, in percent."""

from collections.abc import Mapping
from typing import Any

from uniface_jax.evaluate.report import paper
from uniface_jax.evaluate.sets.rfw_trees import RACES

_PAIRS = {
    "lfw": paper.LFW,
    "cfp_fp": paper.CFP_FP,
    "cfp_ff": "CFP-FF",
    "agedb": paper.AGEDB,
    "agedb_30": paper.AGEDB,
    "calfw": "CALFW",
    "cplfw": "CPLFW",
    "xqlfw": "XQLFW",
    "vgg2_fp": "VGG2-FP",
}
_IJB = {
    "ijbb": {1e-4: "IJB-B TAR@1e-4", 1e-5: "IJB-B TAR@1e-5"},
    "ijbc": {1e-4: paper.IJBC_4, 1e-5: paper.IJBC_5},
}
_MEGAFACE = {
    "raw": (paper.MEGAFACE_ID, paper.MEGAFACE_VER),
    "refined": (paper.REFINED_ID, paper.REFINED_VER),
}
_MASK = "MFR mask TAR@1e-4"
_TINYFACE = {1: "TinyFace rank-1", 5: "TinyFace rank-5", 20: "TinyFace rank-20"}
_RFW = {"mean": "RFW mean", "std": "RFW std", "skewed_error_ratio": "RFW error ratio"}
# The order of a table, from left to right; the paper's names where it has such a column.
COLUMNS = tuple(
    dict.fromkeys(
        [
            *_PAIRS.values(),
            *(column for of_set in _IJB.values() for column in of_set.values()),
            *(column for of_set in _MEGAFACE.values() for column in of_set),
            paper.MR_ALL,
            _MASK,
            *(f"RFW {race}" for race in RACES),
            *_RFW.values(),
            *_TINYFACE.values(),
        ]
    )
)
FIRST_COLUMN = {
    **_PAIRS,
    **{name: next(iter(of_set.values())) for name, of_set in _IJB.items()},
    "megaface": paper.MEGAFACE_ID,
    "mfr": paper.MR_ALL,
    "rfw": _RFW["mean"],
    "tinyface": _TINYFACE[1],
}


def values(protocol: str, name: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of one set by their columns, in percent; a deviation, a ratio as it is.

    protocol, name, metrics: as in metrics.json. IJB is in the reading of insightface.
    """
    if protocol in ("verification", "lists") and name in _PAIRS:
        return {_PAIRS[name]: 100 * metrics["accuracy"]["mean"]}
    if protocol == "ijb" and name in _IJB:
        return {
            _IJB[name][entry["far"]]: 100 * entry["nearest"]["tar"]
            for entry in metrics["tar_at_far"]
            if entry["far"] in _IJB[name]
        }
    if protocol == "megaface" and name in _MEGAFACE:
        first, second = _MEGAFACE[name]
        rate = metrics["identification"][-1]["rank"]["1"]
        return {first: 100 * rate, **_tar(second, 1e-6, metrics["verification"])}
    if protocol == "mfr" and name in ("ALL", "mask"):
        column, far = (paper.MR_ALL, 1e-6) if name == "ALL" else (_MASK, 1e-4)
        return _tar(column, far, metrics)
    if protocol == "tinyface":
        ranks = metrics["closed_set"]["ranks"]
        return {_TINYFACE[entry["rank"]]: 100 * entry["rate"] for entry in ranks}
    if protocol == "rfw" and "skewed_error_ratio" in metrics:
        found = {f"RFW {race}": 100 * rate for race, rate in metrics["accuracy"].items()}
        found |= {_RFW["mean"]: 100 * metrics["mean"], _RFW["std"]: metrics["std"]}
        ratio = metrics["skewed_error_ratio"]
        return found if ratio is None else {**found, _RFW["skewed_error_ratio"]: ratio}
    return {}


def _tar(column: str, far: float, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the strict TAR at one FAR, where it was asked for and defined."""
    found = [e["strict"]["tar"] for e in metrics.get("tar_at_far", ()) if e["far"] == far]
    return {column: 100 * found[0]} if found else {}
