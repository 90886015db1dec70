"""Every golden case of the heads through the streamed, sharded path, in float64."""

import re

import numpy as np
import pytest

from tests.helpers.dense_head import assert_same
from tests.helpers.sharded_head import layouts, run_head

RTOL = 1e-9
# Of all pairs of shards and blocks the fast part takes four, with each number of both.
FAST_GRID = {(1, 37), (2, 7), (3, 1), (8, 7)}
GRID = layouts(*FAST_GRID)


def hyperparameters(case: str) -> dict[str, float]:
    """uce_m0.45_l0.6 -> margin 0.45, λ 0.6, and s = 64 where it is not named."""
    found = {key: float(value) for key, value in re.findall(r"_([msl])([0-9.]+)", case)}
    values = {"scale": found.get("s", 64.0), "margin": found["m"]}
    if case.startswith(("uce", "bce")):
        values["negative_weight"] = found.get("l", 1.0)
    return values


def cases(golden, prefix):
    return sorted({key.split("/")[0] for key in golden if key.startswith(prefix)})


def repeated(file, shards):
    """Features and labels so often that they divide by the shards: the mean loss is the same."""
    times = shards // np.gcd(shards, len(file["labels"]))
    return np.tile(file["features"], (times, 1)), np.tile(file["labels"], times), times


def check(file, case, name, shards, block, classes=None):
    features, labels, times = repeated(file, shards)
    bias = file.get(f"{case}/bias", np.zeros(1))[0]
    result, _ = run_head(
        name, features, file["prototypes"], bias, labels, varied=hyperparameters(case),
        shards=shards, block=block, classes=classes,
    )  # fmt: skip
    expected = (
        file[f"{case}/loss"],
        np.tile(file[f"{case}/dfeatures"], (times, 1)) / times,
        file[f"{case}/dprototypes"],
        file.get(f"{case}/dbias", np.zeros(1))[0],
    )
    assert_same(result, expected, RTOL)


@pytest.mark.parametrize(("shards", "block"), GRID)
@pytest.mark.parametrize(("prefix", "name"), [("uce", "uce"), ("bce", "bce"), ("nsl", "cosface")])
def test_golden_heads(golden, x64, prefix, name, shards, block):
    file = golden("heads")
    whole = [case for case in cases(file, prefix) if f"{case}/classes" not in file]
    assert whole
    for case in whole:
        check(file, case, name, shards, block)


@pytest.mark.parametrize(("shards", "block"), [(1, 7), (2, 7), (3, 1), (3, 7), (3, 37), (8, 7)])
def test_golden_sampled_heads(golden, x64, shards, block):
    file = golden("heads")
    sampled = [case for case in cases(file, "uce") if f"{case}/classes" in file]
    assert sampled
    for case in sampled:
        check(file, case, "uce", shards, block, file[f"{case}/classes"])


@pytest.mark.parametrize(("shards", "block"), GRID)
def test_golden_margins(golden, x64, shards, block):
    file = golden("margins")
    features, labels, _ = repeated(file, shards)
    for case in cases(file, ("arcface", "cosface")):
        given = hyperparameters(case)
        name = case.split("_")[0]
        # ArcFace's margin is built in: its sine and cosine are taken outside the program.
        kind = "fixed" if name == "arcface" else "varied"
        result, _ = run_head(
            name, features, file["prototypes"], np.float64(0), labels, shards=shards, block=block,
            **{kind: given},
        )  # fmt: skip
        np.testing.assert_allclose(result.loss, file[f"{case}/loss"], rtol=RTOL)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    ("prefix", "gradient"), [("arcface_true", "formula"), ("pfc_arcface", "detached")]
)
def test_golden_gradients_of_arcface(golden2, x64, prefix, gradient, shards):
    """arcface_torch's own gradient, which leaves the margin's slope out, and the formula's."""
    file = golden2("losses2")
    found = cases(file, prefix)
    assert len(found) >= 2
    for case in found:
        near = "_near" in case
        labels, times = file["labels"], shards // np.gcd(shards, len(file["labels"]))
        features = np.tile(file["features_near" if near else "features"], (times, 1))
        result, _ = run_head(
            "arcface", features, file["prototypes"], np.float64(0), np.tile(labels, times),
            fixed={"scale": 16.0 if near else 64.0, "margin": 0.5, "gradient": gradient},
            shards=shards,
        )  # fmt: skip
        loss = file.get(f"{case}/loss_unclamped", file[f"{case}/loss"])
        expected = (
            loss,
            np.tile(file[f"{case}/dfeatures"], (times, 1)) / times,
            file[f"{case}/dprototypes"],
            np.float64(0),
        )
        assert_same(result, expected, RTOL)
