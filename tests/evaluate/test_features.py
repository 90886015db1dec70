"""Features of sets: kept, resumed, told apart by model and data; and features that are given."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.feature_sources import MODEL, computed_features, corners, corners_both
from uniface_jax.data.formats.images import encode_png
from uniface_jax.errors import UserError
from uniface_jax.evaluate.features import ComputedFeatures, GivenFeatures
from uniface_jax.evaluate.sets.image_sets import EncodedImages, FileDigests, ImageFiles


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (11, 112, 112, 3), np.uint8)


@pytest.fixture
def images(tmp_path, pixels):
    """Eleven files in one folder."""
    folder = tmp_path / "people"
    names = [f"p{i // 4}/{i}.png" for i in range(len(pixels))]
    for name, face in zip(names, pixels, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(face))
    return ImageFiles("people", folder, names)


class Counting:
    """A model that counts the images it is given, and is interrupted after some batches."""

    def __init__(self, batches=10**6):
        self.seen, self.left = 0, batches
        self.model = replace(MODEL, embed=self)

    def __call__(self, batch):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.seen += len(batch)
        return corners_both(batch)


def test_features_are_computed_once_for_a_model_and_data(tmp_path, images, pixels):
    counting = Counting()
    kept = tmp_path / "kept"
    first = computed_features(kept, counting.model, batch_size=4).features(images)
    np.testing.assert_array_equal(first.values, corners_both(pixels))
    assert isinstance(first.values, np.memmap)
    assert counting.seen == 12
    again = computed_features(kept, counting.model, batch_size=5).features(images)
    np.testing.assert_array_equal(again.values, first.values)
    assert counting.seen == 12
    assert again.record == first.record
    renamed = ImageFiles("same", images.root, images.names)
    assert computed_features(kept, counting.model).features(renamed).record == first.record
    assert counting.seen == 12
    beside = json.loads(Path(first.record["features"]).with_suffix(".json").read_text())
    assert beside["done"] == beside["data"]["images"] == 11
    assert beside["data"]["sha256"] == first.record["sha256"]


def test_another_model_or_other_data_are_computed_anew(tmp_path, images):
    counting = Counting()
    kept = tmp_path / "kept"
    computed_features(kept, counting.model).features(images)
    computed_features(kept, replace(counting.model, hash="1" * 64)).features(images)
    assert counting.seen == 32
    computed_features(kept, replace(counting.model, description="other input")).features(images)
    assert counting.seen == 48
    changed = images.root / images.names[3]
    changed.write_bytes(encode_png(np.zeros((112, 112, 3), np.uint8)))
    found = computed_features(kept, counting.model).features(images)
    assert counting.seen == 64
    assert not (found.values[3] - found.values[3, 0]).any()


def test_an_interrupted_extraction_goes_on_where_it_was(tmp_path, images, pixels):
    stopped = Counting(batches=3)
    with pytest.raises(KeyboardInterrupt):
        computed_features(tmp_path / "kept", stopped.model, batch_size=2).features(images)
    (beside,) = (tmp_path / "kept").glob("people-*.json")
    assert json.loads(beside.read_text())["done"] == 6
    resumed = Counting()
    found = computed_features(tmp_path / "kept", resumed.model, batch_size=2).features(images)
    assert resumed.seen == 6
    np.testing.assert_array_equal(found.values, corners_both(pixels))


@pytest.mark.parametrize("damage", ["json", "array", "rows"])
def test_what_is_damaged_is_computed_anew(tmp_path, images, pixels, damage):
    kept = tmp_path / "kept"
    file = Path(computed_features(kept).features(images).record["features"])
    if damage == "json":
        file.with_suffix(".json").write_text("{")
    elif damage == "array":
        file.write_bytes(b"no array")
    else:
        np.save(file, np.zeros((5, 12), np.float32))
    found = computed_features(kept).features(images)
    np.testing.assert_array_equal(found.values, corners_both(pixels))


def test_an_error_keeps_what_was_done(tmp_path, images):
    (images.root / images.names[9]).write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"{images.names[9]}: not an image"):
        computed_features(tmp_path / "kept", batch_size=2).features(images)
    (beside,) = (tmp_path / "kept").glob("people-*.json")
    assert json.loads(beside.read_text())["done"] == 8


def test_plain_features_and_mirrored_ones_apart(tmp_path, images, pixels):
    found = computed_features(tmp_path).features(images, apart=True)
    np.testing.assert_array_equal(found.plain, corners(pixels))
    np.testing.assert_allclose(found.values, corners_both(pixels), rtol=1e-6)
    inside = replace(MODEL, plain=None)
    assert computed_features(tmp_path, inside).features(images, apart=True).plain is None


def given(path, name=""):
    return GivenFeatures.open({name: path}, FileDigests())


def test_given_arrays_are_taken_in_order_or_by_name(tmp_path, images):
    values = np.random.default_rng(1).standard_normal((11, 3))
    np.save(tmp_path / "mine.npy", values)
    found = given(tmp_path / "mine.npy").features(images)
    np.testing.assert_array_equal(found.values, values)
    assert found.record["sha256"] == images.digest(FileDigests())
    order = np.random.default_rng(2).permutation(11)
    np.save(tmp_path / "mine.npy", values[order])
    (tmp_path / "mine.txt").write_text("".join(f"{images.names[i]}\n" for i in order))
    np.testing.assert_array_equal(
        given(tmp_path / "mine.npy", "people").features(images).values, values
    )
    (tmp_path / "mine.txt").write_text("x.png\n" * 11)
    with pytest.raises(UserError, match=r"mine\.txt: no line for .*p0/0\.png"):
        given(tmp_path / "mine.npy").features(images)
    (tmp_path / "mine.txt").write_text("x.png\n")
    with pytest.raises(UserError, match=r"mine\.txt: 1 lines for 11 rows"):
        given(tmp_path / "mine.npy").features(images)


def test_a_row_for_each_entry_of_a_list_is_taken_as_well(tmp_path):
    listed = np.array([2, 0, 1, 2, 0])
    values = np.arange(3.0)[:, None] + [0, 10]
    np.save(tmp_path / "mine.npy", values[listed])
    file = tmp_path / "pairs.bin"
    file.write_bytes(b"x")
    pairs = EncodedImages("pairs", [b"a", b"b", b"c"], file)
    found = given(tmp_path / "mine.npy").features(pairs, listed=listed)
    np.testing.assert_array_equal(found.values, values)


def test_the_folder_of_an_earlier_evaluation_can_be_given(tmp_path, images, pixels):
    kept = tmp_path / "kept"
    computed_features(kept).features(images, apart=True)
    source = given(kept)
    assert source.name == "corners"
    found = source.features(images)
    np.testing.assert_allclose(found.values, corners_both(pixels), rtol=1e-6)
    np.testing.assert_array_equal(found.plain, corners(pixels))
    ComputedFeatures(replace(MODEL, hash="3"), kept, 8, FileDigests()).features(images)
    with pytest.raises(UserError, match=r"kept: 2 finished arrays for people: .*name one"):
        given(kept).features(images)
    (images.root / images.names[0]).write_bytes(encode_png(pixels[1]))
    with pytest.raises(UserError, match="kept: 0 finished arrays for people"):
        given(kept).features(images)


def test_unusable_given_arrays_are_named(tmp_path, images):
    file = tmp_path / "mine.npy"
    with pytest.raises(UserError, match=r"mine\.npy: no such file"):
        given(file)
    with pytest.raises(UserError, match=r"no \.npy file in this folder"):
        given(tmp_path)
    for value, message in [
        (np.zeros((10, 3)), "10 rows, but people has 11 images"),
        (np.zeros(11), "float64 11; expected floats"),
        (np.zeros((11, 3), int), "int64 11x3; expected floats"),
        (np.array([{}] * 11, object), "no array that can be read"),
    ]:
        np.save(file, value, allow_pickle=True)
        with pytest.raises(UserError, match=rf"mine\.npy: {message}"):
            given(file).features(images)
    with pytest.raises(UserError, match="none for people, only for other"):
        given(file, "other").features(images)


def test_faces_of_the_first_set_settle_the_model(tmp_path, images, pixels, capsys):
    seen = []

    def settle(faces):
        seen.append(faces)
        return replace(MODEL, description="settled", notes=("input as faces tell",))

    source = computed_features(tmp_path / "kept", replace(MODEL, description="not", settle=settle))
    for _ in range(2):
        found = source.features(images)
    np.testing.assert_array_equal(found.values, corners_both(pixels))
    assert source.description == "settled"
    (faces,) = seen
    np.testing.assert_array_equal(faces, pixels)
    assert capsys.readouterr().out.count("corners: input as faces tell") == 1


def test_features_that_are_all_the_same_are_warned_of(tmp_path, images, capsys):
    constant = replace(MODEL, embed=lambda batch: np.tile([3.0, 4.0], (len(batch), 1)), plain=None)
    computed_features(tmp_path / "constant", constant).features(images)
    assert "WARNING: corners: people: the features of all images are the same" in (
        capsys.readouterr().out
    )
    computed_features(tmp_path / "different").features(images)
    assert "WARNING" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "problem"), [(np.nan, "holds nan"), (np.inf, "holds nan or infinity"), (0, "is zero")]
)
def test_a_feature_of_no_use_names_its_image(tmp_path, images, pixels, value, problem):
    bad = corners_both(pixels)[6]

    def embed(batch):
        found = corners_both(batch)
        found[(found == bad).all(1)] = value
        return found

    source = computed_features(tmp_path / "kept", replace(MODEL, embed=embed), batch_size=4)
    with pytest.raises(UserError, match=rf"p1/6\.png: the feature that the model gives {problem}"):
        source.features(images)
