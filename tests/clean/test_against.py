import hashlib
import json
import math

import cv2
import numpy as np
import pytest

from tests.clean.test_duplicates import texture
from tests.clean.test_people import faces
from tests.helpers.containers import EXPECTED, FOLDER
from uniface_jax.clean.against import (
    BY_FEATURES,
    BY_IMAGE,
    BY_NAME,
    alike_people,
    hashes_of,
    open_test_sets,
    same_images,
    shared_people,
)
from uniface_jax.clean.people import group_people
from uniface_jax.clean.scale import estimate_scale
from uniface_jax.data.formats.bin_pairs import write_pairs
from uniface_jax.data.formats.landmarks import TEMPLATE
from uniface_jax.data.formats.overlap_list import read_overlaps, set_digest
from uniface_jax.errors import UserError


def test_people_of_new_images_are_known_and_others_are_not():
    features, labels = faces(np.random.default_rng(0), 30, 10, width=256)
    train = labels < 20
    scale = estimate_scale(features[train], labels[train])
    people = group_people(features[train], labels[train], 25, scale.threshold)
    # Odd images of people 18 and 19 were trained on: the others are new ones of theirs.
    test = np.isin(labels, [18, 19, 25, 26])
    person, score = alike_people(features[test], people, scale, 6.0)
    wanted = np.where(labels[test] < 20, labels[test], -1)
    assert person.tolist() == wanted.tolist()
    cosines = features[test] @ people.centers[:20].T / np.linalg.norm(people.centers[:20], axis=1)
    known = person >= 0
    np.testing.assert_allclose(score[known], cosines.max(axis=1)[known], atol=1e-5)


def test_shared_people_are_told_by_the_surest_way():
    same = np.array([-1, 3, -1, -1])
    alike = np.array([2, 1, 2, -1]), np.array([0.7, 0.9, 0.8, -np.inf])
    train = ["zoë müller", "ann", "cem can", "dora day", "0001"]
    test = ["cem", "dora", "cem", "Zoe_Muller"]
    image, features, name = shared_people(same, alike, train, test)
    assert (image.label, image.by, image.score, image.image) == (3, BY_IMAGE, 1.0, 1)
    assert (features.label, features.by, features.images, features.image) == (2, BY_FEATURES, 2, 2)
    assert (name.label, name.by, name.images, name.name) == (0, BY_NAME, 0, "Zoe_Muller")
    assert math.isnan(name.score)
    assert [s.by for s in shared_people(same, alike, None, test)] == [BY_IMAGE, BY_FEATURES]


def test_same_images_are_those_of_equal_bytes():
    train, test = [b"a", b"b", b"a"], [b"c", b"b", b"a"]
    assert same_images(hashes_of(train), hashes_of(test)).tolist() == [-1, 1, 0]


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.fixture
def sets(tmp_path):
    """Return a folder with a training set and a .bin, which share a person and one image."""
    features, labels = faces(np.random.default_rng(1), 8, 8, width=256)
    for i in range(48):  # people 0 to 5
        person = tmp_path / "train" / f"p{labels[i]}"
        person.mkdir(parents=True, exist_ok=True)
        (person / f"{i:02d}.png").write_bytes(png(texture(i)))
    np.save(tmp_path / "dataset.npy", features[:48])
    rows = [40, *range(52, 64)]  # an image of person 5, others of people 6 and 7
    images = [png(texture(i)) for i in rows]
    fresh = features[41:42] + 0.1 * features[42:43]  # a new image of person 5
    pairs = np.arange(13)
    write_pairs(
        tmp_path / "val.bin", [*images, png(texture(99))], np.append(pairs, pairs),
        np.append(pairs + 1, pairs[::-1]), np.arange(26) % 2 == 0,
    )  # fmt: skip
    np.save(tmp_path / "val.npy", np.concatenate([features[rows], fresh]))
    return tmp_path


def test_command_writes_the_list_that_training_reads(sets, run_cli):
    done = run_cli(
        "clean", sets / "train", f"--against={sets / 'val.bin'}", f"--output={sets / 'out'}",
        f"--embeddings=dataset={sets / 'dataset.npy'},val={sets / 'val.npy'}", "--checks=people",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "val: 1 people" in done.stdout
    (person,) = json.loads((sets / "out" / "overlap.json").read_text())["people"]
    assert (person["person"], person["by"], person["test_images"]) == ("p5", "image", 2)
    images, (overlap,) = read_overlaps(sets / "train.overlap.json")
    assert (images, overlap.same_images, overlap.people) == (48, 1, 1)
    (opened,) = open_test_sets(str(sets / "val.bin"))
    encoded = [opened.encoded(i) for i in range(len(opened.images))]
    assert overlap.digest == set_digest(encoded)


@pytest.fixture
def ijb(sets):
    """Return the folder of an IJB-B beside the training set: two images of its person 5, and one.

    Of ten images of four templates: 0 has the bytes of an image of person 5, 1 is a new one of
    theirs, the others are of people 6 and 7.
    """
    features, _ = faces(np.random.default_rng(1), 8, 8, width=256)
    root = sets / "IJBB"
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    rng = np.random.default_rng(2)
    ids, points = [], []
    for i in range(10):
        crop = rng.integers(0, 256, (150, 140 + i, 3), np.uint8)
        (root / "loose_crop" / f"{i}.png").write_bytes(png(texture(43) if i == 0 else crop))
        ids.append(f"{i}.png {i // 3} {i}\n")
        landmarks = " ".join(f"{x:.2f}" for x in (TEMPLATE + i).ravel())
        points.append(f"{i}.png {landmarks} 0.9\n")
    (root / "meta" / "ijbb_face_tid_mid.txt").write_text("".join(ids))
    (root / "meta" / "ijbb_name_5pts_score.txt").write_text("".join(points))
    fresh = features[41:42] + 0.1 * features[42:43]
    np.save(sets / "ijbb.npy", np.concatenate([features[43:44], fresh, features[50:58]]))
    return root


def test_an_ijb_directory_is_a_set_to_look_for(sets, ijb, run_cli):
    done = run_cli(
        "clean", sets / "train", f"--against=ijbb:{ijb},{sets / 'val.bin'}",
        f"--output={sets / 'out'}", "--checks=people", "--embeddings="
        + ",".join(f"{name}={sets / name}.npy" for name in ("dataset", "val", "ijbb")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ijbb: 1 people" in done.stdout
    people = json.loads((sets / "out" / "overlap.json").read_text())["people"]
    (found,) = [person for person in people if person["set"] == "ijbb"]
    assert (found["person"], found["by"], found["test_images"]) == ("p5", "image", 2)
    assert (found["test_image"], found["test_name"]) == (0, str(ijb / "loose_crop" / "0.png"))
    images, overlaps = read_overlaps(sets / "train.overlap.json")
    assert images == 48
    assert [(each.name, each.images, each.same_images, each.people) for each in overlaps] == [
        ("ijbb", 10, 1, 1), ("val", 14, 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("meta/ijbb_face_tid_mid.txt", r"ijbb_face_tid_mid\.txt: cannot be read"),
        ("meta/ijbb_name_5pts_score.txt", r"ijbb_name_5pts_score\.txt: cannot be read"),
        ("loose_crop/4.png", r"loose_crop/4\.png: "),
    ],
)
def test_an_ijb_directory_without_one_of_its_files_is_named(ijb, file, message):
    (ijb / file).unlink()
    with pytest.raises(UserError, match=message):
        open_test_sets(f"ijbb:{ijb}")[0].images.pixels(4)


def test_the_trees_of_rfw_and_tinyface_are_sets_to_look_for():
    tests = open_test_sets(f"rfw:{FOLDER / 'rfw'},tinyface:{FOLDER / 'tinyface'}")
    names = [test.images.name for test in tests]
    assert names[:4] == ["African", "Asian", "Caucasian", "Indian"]
    assert len(set(names)) == 7
    for test in tests:
        count = len(test.images)
        assert count
        assert test.images.pixels(count - 1).shape == (112, 112, 3)
    hashes = {hashlib.sha256(tests[4].encoded(i)).hexdigest() for i in range(len(tests[4].images))}
    assert hashes == {entry["sha256"] for entry in EXPECTED["tinyface"]["Probe"]}
    assert tests[0].people
    assert tests[4].people is None


def test_two_sets_of_one_name_are_refused(sets):
    with pytest.raises(UserError, match="two sets called"):
        open_test_sets(f"{sets / 'train'},{sets / 'train'}")
    with pytest.raises(UserError, match="nowhere"):
        open_test_sets("nowhere")
