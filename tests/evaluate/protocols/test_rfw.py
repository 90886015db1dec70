"""RFW: the golden folds of four races, the fixtures' tree, landmarks, and what is refused."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.containers import FOLDER, expected_pairs
from tests.helpers.feature_sources import FixedFeatures, computed_features
from uniface_jax.data.faces.alignment import align
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.formats.landmarks import TEMPLATE
from uniface_jax.errors import UserError
from uniface_jax.evaluate.arguments import Parts
from uniface_jax.evaluate.metrics.verification import pair_distances, ten_fold_accuracy
from uniface_jax.evaluate.protocols.base import Options
from uniface_jax.evaluate.protocols.rfw import ALL, RFW, TFACE_THRESHOLDS, race_summary, run
from uniface_jax.evaluate.sets.image_sets import FileDigests
from uniface_jax.evaluate.sets.rfw_trees import RACES, open_rfw

TREE = FOLDER / "rfw"


def test_golden_folds_and_summary(golden2):
    data = golden2("protocols2")
    same = data["rfw/issame"]
    rows = np.arange(0, 2 * len(same), 2)
    means = {}
    for race in data["rfw/races"]:
        distances = pair_distances(data[f"rfw/{race}/embeddings"], rows, rows + 1)
        found = ten_fold_accuracy(distances, same)
        np.testing.assert_array_equal(found.accuracy, data[f"rfw/{race}/fold_accuracy"])
        tface = ten_fold_accuracy(distances, same, thresholds=TFACE_THRESHOLDS)
        np.testing.assert_array_equal(tface.accuracy, data[f"rfw/{race}/tface_fold_accuracy"])
        means[str(race)] = found.mean
    np.testing.assert_array_equal(list(means.values()), data["rfw/accuracy"])
    summary = race_summary(means)
    for key in ("mean", "std", "skewed_error_ratio"):
        assert summary[key] == pytest.approx(float(data[f"rfw/{key}"]), abs=1e-13)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6))
def test_the_summary_is_the_plain_one(errors):
    """Against plain sums; a race without an error has no ratio."""
    values = [1 - error / 40 for error in errors]
    found = race_summary({str(i): value for i, value in enumerate(values)})
    mean = sum(values) / len(values)
    variance = sum((100 * (value - mean)) ** 2 for value in values) / (len(values) - 1)
    assert found["mean"] == pytest.approx(mean)
    assert found["std"] == pytest.approx(variance**0.5)
    expected = None if min(errors) == 0 else pytest.approx(max(errors) / min(errors))
    assert found["skewed_error_ratio"] == expected


@pytest.mark.parametrize("below", ["", "images", "images/test"])
def test_the_tree_of_the_fixtures(tmp_path, below):
    root = FOLDER / "rfw" / below
    if below == "images":
        root = FOLDER / "rfw" / "images"  # test/ lies in it
    opened = open_rfw(root)
    for race, found in opened.items():
        name = f"rfw/images/test/txts/{race}/{race}_pairs.txt"
        assert found.pairs.same.tolist() == [same for same, _ in expected_pairs(name)]
        assert found.pairs.folds == min(10, len(found.pairs))
    if not below:
        results = run(Parts([root]), computed_features(tmp_path), Options())
        assert list(results) == [*RACES, ALL]
        means = [results[race].metrics["accuracy"]["mean"] for race in RACES]
        assert results[ALL].metrics["mean"] == pytest.approx(np.mean(means))
        folds = opened["Asian"].pairs.folds
        assert f"{folds}-fold accuracy" in RFW.row(results["Asian"].metrics)
        assert RFW.row(results[ALL].metrics)["Asian"] == f"{means[1]:.2%}"


def test_four_bins_give_the_golden_numbers(golden2, tmp_path):
    """The whole protocol, with features that a source gives for each race."""
    data = golden2("protocols2")
    same = data["rfw/issame"]
    images = [encode_png(np.full((112, 112, 3), i, np.uint8)) for i in range(2 * len(same))]
    for race in RACES:
        rows = np.arange(0, 2 * len(same), 2)
        write_pairs(tmp_path / f"{race}_test.bin", images, rows, rows + 1, same)

    class OfRaces(FixedFeatures):
        def features(self, images, **_):
            self.values = data[f"rfw/{images.name}/embeddings"]
            return super().features(images)

    found = run(Parts([tmp_path]), OfRaces(None), Options())[ALL].metrics
    assert found["accuracy"] == dict(zip(data["rfw/races"], data["rfw/accuracy"], strict=True))
    assert found["mean"] == pytest.approx(float(data["rfw/mean"]), abs=1e-15)
    tface = [found["tface"]["accuracy"][race] for race in data["rfw/races"]]
    np.testing.assert_allclose(tface, data["rfw/tface_accuracy"], rtol=1e-15)
    assert found["tface"]["mean"] == pytest.approx(float(data["rfw/tface_mean"]), abs=1e-15)
    assert found["tface"]["std"] == pytest.approx(float(data["rfw/tface_std"]), abs=1e-12)
    (tmp_path / "Indian_test.bin").unlink()
    with pytest.raises(UserError, match=r"Indian_test\.bin: no such file; expected a .bin of each"):
        open_rfw(tmp_path)


@pytest.fixture
def tree(tmp_path):
    shutil.copytree(TREE / "images" / "test", tmp_path / "test")
    return tmp_path / "test"


def landmark_lines(tree, race):
    lines = {}
    for file in sorted((tree / "data" / race).rglob("*.jpg")):
        rest = "\t".join(str(value) for value in (2 * TEMPLATE + 30).ravel())
        name = f"{file.parent.name}/{file.name}"
        lines[name] = f"/elsewhere/test/data/{race}/{name}\t0\t{rest}"
    return lines


def test_photographs_are_aligned_by_their_landmarks(tree):
    lines = landmark_lines(tree, "Asian")
    name = next(iter(lines))
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (400, 400, 3), np.uint8)
    (tree / "data" / "Asian" / name).write_bytes(encode_png(photograph))
    (tree / "txts" / "Asian" / "Asian_lmk.txt").write_text("\n".join(lines.values()))
    images = open_rfw(tree)["Asian"].images
    at = list(images.names).index(name)
    aligned = align(photograph, 2 * TEMPLATE + 30)
    np.testing.assert_array_equal(images.pixels(at), aligned)
    assert images.pixels((at + 1) % len(images)).shape == (112, 112, 3)
    assert images.landmarks(at).shape == (5, 2)
    before = images.digest(FileDigests())
    lines[name] = lines[name].replace("\t0\t", "\t0\t1")
    (tree / "txts" / "Asian" / "Asian_lmk.txt").write_text("\n".join(lines.values()))
    assert open_rfw(tree)["Asian"].images.digest(FileDigests()) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["a b c"], r"line 1: 'a b c'; expected the path of an image, a label and"),
        (lambda lines: [lines[0].replace("\t0\t", "\t0\tnan\t")], r"line 1: "),
        (lambda lines: [lines[0], lines[0]], r"line 2: .* again, after line 1"),
        (lambda lines: lines[1:], r"no line for m\..*, which is in a pair"),
    ],
)
def test_other_landmarks_are_refused(tree, change, message):
    table = tree / "txts" / "Asian" / "Asian_lmk.txt"
    table.write_text("\n".join(change(list(landmark_lines(tree, "Asian").values()))))
    with pytest.raises(UserError, match=rf"Asian_lmk\.txt: {message}"):
        open_rfw(tree)


def test_other_folders_are_refused(tree, tmp_path):
    with pytest.raises(UserError, match=r"neither African_test\.bin nor a folder txts"):
        open_rfw(tree / "data")
    with pytest.raises(UserError, match="2 folders for rfw; expected one"):
        run(Parts([tree, tree]), FixedFeatures(None), Options())
    pairs = tree / "txts" / "Indian" / "Indian_pairs.txt"
    text = pairs.read_text()
    pairs.write_text("")
    with pytest.raises(UserError, match=r"Indian_pairs\.txt: no pairs"):
        open_rfw(tree)
    pairs.write_text(text.replace(text.split()[0], "m.none"))
    with pytest.raises(UserError, match=r"Indian_pairs\.txt: line \d: .*no such image"):
        open_rfw(tree)
    pairs.unlink()
    with pytest.raises(UserError, match=r"Indian_pairs\.txt: cannot be read"):
        open_rfw(tree)
