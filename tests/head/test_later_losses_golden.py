"""Golden cases of the losses after UniFace through the streamed, sharded path, in float64.

Of a set of the same form with other numbers as well: UNIFACE_GOLDEN2.
"""

import numpy as np
import pytest

from tests.helpers.dense_head import assert_same
from tests.helpers.sharded_head import LAYOUTS, run_head

RTOL = 1e-9
MARGINS = {"elastic_arc": (0.5, 0.05), "elastic_cos": (0.35, 0.05)}
PLUS = {"elastic_arc": (0.5, 0.0175), "elastic_cos": (0.35, 0.02)}


def repeated(array, shards):
    """An array [B, ...] so often that it divides by the shards: the mean loss is the same."""
    return np.concatenate([array] * (shards // np.gcd(shards, len(array))))


def check(file, case, name, layout, *, features, expected=None, **settings):
    """The head on `features` against the numbers of `case` (expected: those of another name)."""
    shards, block = layout
    times = shards // np.gcd(shards, len(features))
    if "draws" in settings:
        settings["draws"] = repeated(settings["draws"], shards)
    result, _ = run_head(
        name, repeated(features, shards), file["prototypes"], np.float64(0),
        repeated(file["labels"], shards), shards=shards, block=block, **settings,
    )  # fmt: skip
    of = expected or case
    gradient = repeated(file[f"{of}/dfeatures"], shards) / times
    assert_same(
        result, (file[f"{of}/loss"], gradient, file[f"{of}/dprototypes"], np.float64(0)), RTOL
    )


@pytest.mark.parametrize(("shards", "block"), LAYOUTS)
@pytest.mark.parametrize("case", ["subcentre", "subcentre_near"])
def test_golden_subcentres(golden2, x64, case, shards, block):
    """Three prototypes a class under ArcFace: values, and the gradient of each of the three."""
    file = golden2("losses2")
    given = file[f"{case}/subcentres"]
    prototypes = given.reshape(len(file["prototypes"]), -1, given.shape[1])
    near = "_near" if "_near" in case else ""
    times = shards // np.gcd(shards, len(file["labels"]))
    result, _ = run_head(
        "arcface", repeated(file[f"features{near}"], shards), prototypes, np.float64(0),
        repeated(file["labels"], shards), shards=shards, block=block,
        varied={"scale": scale_of(case)},
    )  # fmt: skip
    expected = (
        file[f"{case}/loss"],
        repeated(file[f"{case}/dfeatures"], shards) / times,
        file[f"{case}/dsubcentres"].reshape(prototypes.shape),
        np.float64(0),
    )
    assert_same(result, expected, RTOL)


PFC = ["pfc_cosface", "pfc_cosface_near", "pfc_cosface_r0.5", "pfc_cosface_near_r0.5"]


@pytest.mark.parametrize("shards", [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)] + [3])
def test_golden_partial_fc(golden2, x64, shards):
    """arcface_torch's CosFace over all classes and over those that its PartialFC sampled."""
    file = golden2("losses2")
    found = [case for case in PFC if f"{case}/loss" in file]
    assert len(found) >= 3
    for case in found:
        near = "_near" if "_near" in case else ""
        result, _ = run_head(
            "cosface", file[f"features{near}"], file["prototypes"], np.float64(0), file["labels"],
            shards=shards, block=7, classes=file[f"{case}/classes"],
            varied={"scale": scale_of(case), "margin": 0.4},
        )  # fmt: skip
        expected = (file[f"{case}/dfeatures"], file[f"{case}/dprototypes"], np.float64(0))
        assert_same(result, (file[f"{case}/loss_unclamped"], *expected), RTOL)


UNPG = [
    f"unpg_{name}{kind}"
    for name, whisker in (("arcface", "0.5"), ("cosface", "0.2"))
    for kind in ("", f"_w{whisker}", "_near")
]


@pytest.mark.parametrize("shards", [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)] + [3])
@pytest.mark.parametrize("case", UNPG)
def test_golden_unpg(golden2, x64, case, shards):
    """Pairs of the global batch, on however many devices it is."""
    file = golden2("losses2")
    near = "_near" if "_near" in case else ""
    result, _ = run_head(
        case.split("_")[1], file[f"features{near}"], file["prototypes"], np.float64(0),
        file["labels_dup"], shards=shards, block=7,
        varied={"scale": scale_of(case)}, fixed={"margin": 0.5},
        pair_whisker=float(file[f"{case}/whisker"]),
    )  # fmt: skip
    expected = (file[f"{case}/dfeatures"], file[f"{case}/dprototypes"], np.float64(0))
    assert_same(result, (file[f"{case}/loss"], *expected), RTOL)


def scale_of(case):
    return 16.0 if "_near" in case else 64.0


@pytest.mark.parametrize(("shards", "block"), LAYOUTS)
@pytest.mark.parametrize("case", ["magface", "magface_near", "magface_hard"])
def test_golden_magface(golden2, x64, case, shards, block):
    """Gradients through the norm as well, of norms below, between and above its two bounds."""
    file = golden2("losses2")
    near = "magface_near" if "_near" in case else "magface"
    varied = {"scale": scale_of(case), "norm_weight": float(file["magface/lambda_g"])}
    check(
        file, case, case.removesuffix("_near"), (shards, block),
        features=file[f"{near}/features"], varied=varied,
    )  # fmt: skip


@pytest.mark.parametrize("part", ["ce", "g"])
def test_golden_parts_of_magface(golden2, x64, part):
    """Cross-entropy and penalty apart: λ = 0, and the difference that λ = 1 makes."""
    file = golden2("losses2")
    arrays = (file["magface/features"], file["prototypes"], np.float64(0), file["labels"])
    without, _ = run_head("magface", *arrays, varied={"norm_weight": 0.0})
    if part == "ce":
        expected = (file["magface/ce/dfeatures"], file["magface/ce/dprototypes"], np.float64(0))
        assert_same(without, (file["magface/ce/loss"], *expected), RTOL)
        return
    with_one, _ = run_head("magface", *arrays, varied={"norm_weight": 1e6})
    loss = (with_one.loss - without.loss) / 1e6
    gradient = (with_one.gradients.features - without.gradients.features) / 1e6
    np.testing.assert_allclose(loss, file["magface/g/loss"], rtol=RTOL)
    np.testing.assert_allclose(gradient, file["magface/g/dfeatures"], rtol=RTOL, atol=1e-14)


@pytest.mark.parametrize(("shards", "block"), LAYOUTS)
@pytest.mark.parametrize("near", ["", "_near"])
@pytest.mark.parametrize("name", MARGINS)
def test_golden_elastic(golden2, x64, name, near, shards, block):
    file, case = golden2("losses2"), f"{name}{near}"
    mean, deviation = MARGINS[name]
    check(
        file, case, name, (shards, block), features=file[f"features{near}"],
        varied={"scale": scale_of(case)}, draws=(file[f"{case}/margins"] - mean) / deviation,
    )  # fmt: skip


@pytest.mark.parametrize("shards", [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)] + [3])
@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("near", ["", "_near"])
@pytest.mark.parametrize("name", PLUS)
def test_golden_elastic_plus(golden2, x64, name, near, as_published, shards):
    """The paper's order of the margins, and the code's, which permutes the other way round.

    The batch is not repeated: its ranks would be others.
    """
    file, case = golden2("losses2"), f"{name}_plus{near}"
    mean, deviation = PLUS[name]
    check(
        file, case, f"{name}_plus", (shards, 7), features=file[f"features{near}"],
        expected=case if as_published else f"{case}_meant",
        varied={"scale": scale_of(case)}, fixed={"as_published": as_published},
        draws=(file[f"{case}/margins"] - mean) / deviation,
    )  # fmt: skip
