"""Landmarks beside images: align's report, CSVs, and data sets that keep them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests.helpers.batches import stream
from tests.helpers.conversion import FACES
from uniface_jax.data.conversion.run import convert
from uniface_jax.data.conversion.verify import verify
from uniface_jax.data.faces.alignment import similarity
from uniface_jax.data.faces.landmark_tables import (
    LandmarkedSource,
    LandmarkTable,
    with_landmarks,
)
from uniface_jax.data.formats.image_index import IMAGE_INDEX_FILE
from uniface_jax.data.formats.images import encode_png
from uniface_jax.data.formats.landmarks import TEMPLATE, from_pixels, mirrored
from uniface_jax.data.input.batches import DecoderPool, train_batches
from uniface_jax.data.input.sampler import Sampler
from uniface_jax.data.sources.opening import open_source
from uniface_jax.errors import UserError

PEOPLE, EACH = 3, 4
COUNT = PEOPLE * EACH


def photographed(seed):
    """Landmarks of a photograph, pixels, near a face that is turned, larger and elsewhere."""
    random = np.random.default_rng(seed)
    turned = 2.5 * TEMPLATE @ np.array([[0.9, 0.3], [-0.3, 0.9]]) + [40, 150]
    return turned + random.normal(0, 3, (5, 2))


def in_face(seed):
    points = photographed(seed)
    matrix = similarity(points, TEMPLATE)
    return from_pixels(points @ matrix[:, :2].T + matrix[:, 2])


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A folder as align leaves it: faces of people, and alignment.json."""
    folder, faces = tmp_path_factory.mktemp("aligned") / "faces", {}
    for number in range(COUNT):
        person, name = f"p{number // EACH}", f"{number % EACH}.png"
        (folder / person).mkdir(parents=True, exist_ok=True)
        gray = np.full((112, 112, 3), 10 + 9 * number, np.uint8)
        (folder / person / name).write_bytes(encode_png(gray))
        faces[f"{person}/{number % EACH}.jpg"] = {
            "file": f"{person}/{name}", "landmarks": photographed(number).tolist(),
        }  # fmt: skip
    (folder / "alignment.json").write_text(json.dumps({"source": "s", "faces": faces}))
    return folder


@pytest.fixture(scope="module")
def expected():
    return np.stack([in_face(number) for number in range(COUNT)])


@pytest.fixture(scope="module")
def converted(aligned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "set"
    convert(with_landmarks(open_source(aligned)), folder, FACES)
    return folder


def positions(source):
    """The number of each record's photograph, by its name."""
    names = [source[index].name for index in range(len(source))]
    return [int(name[1]) * EACH + int(name[3]) for name in names]


def csv_of(points, heading="", names=None):
    names = range(len(points)) if names is None else names
    lines = [
        f"{name},{','.join(map(str, np.ravel(row).tolist()))}"
        for name, row in zip(names, points, strict=True)
    ]
    return "\n".join([heading, *lines] if heading else lines) + "\n"


def test_align_s_report_gives_landmarks_in_the_coordinates_of_the_face(aligned, expected):
    source = with_landmarks(open_source(aligned))
    assert source.has_landmarks
    np.testing.assert_allclose(source.landmarks(np.arange(COUNT)), expected, atol=1e-6)
    assert source.fingerprint() != open_source(aligned).fingerprint()


@pytest.mark.parametrize("index", [True, False], ids=["image index", "record by record"])
def test_a_data_set_keeps_them(aligned, converted, expected, index, tmp_path):
    folder = shutil.copytree(converted, tmp_path / "set")
    if not index:
        (folder / IMAGE_INDEX_FILE).unlink()
    source = open_source(folder)
    assert source.has_landmarks
    assert with_landmarks(source) is source
    found = source.landmarks(np.arange(COUNT))
    np.testing.assert_allclose(found, expected[positions(source)], atol=1e-6)
    assert verify(open_source(aligned), folder).images == COUNT
    # And once more: a data set made of a data set.
    convert(source, tmp_path / "again", FACES)
    again = open_source(tmp_path / "again")
    np.testing.assert_array_equal(
        again.landmarks(np.argsort(positions(again))), found[np.argsort(positions(source))]
    )


def test_a_set_of_before_is_the_same_bytes_and_says_the_ways_out(aligned, converted, tmp_path):
    convert(open_source(aligned), tmp_path / "plain", FACES)
    source = open_source(tmp_path / "plain")
    assert not source.has_landmarks
    assert "landmarks" not in (tmp_path / "plain" / "features.json").read_text()
    assert [source[i] for i in range(COUNT)] == [open_source(converted)[i] for i in range(COUNT)]
    ways = r"plain: holds no landmarks .*--landmarks=alignment.json .*landmarks=template"
    with pytest.raises(UserError, match=ways):
        with_landmarks(source)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_batches_mirror_and_move_landmarks_with_the_pixels(converted, expected, kind):
    source = open_source(converted)
    order = Sampler(batch_size=8, seed=5)
    batches = train_batches(source, order, decoders=DecoderPool(kind, 2, landmarks=True))
    plain = stream(converted, kind="threads", augment={"flip": True})
    places, sides = np.array(positions(source)), set()
    for _ in range(3):
        batch, other = next(batches), next(plain)
        np.testing.assert_array_equal(batch["image"], other["image"])
        for points, index in zip(batch["landmarks"], batch["index"], strict=True):
            given = expected[places[index]]
            flips = [np.allclose(points, x, atol=1e-6) for x in (given, mirrored(given))]
            assert sum(flips) == 1
            sides.add(flips[0])
    assert sides == {True, False}
    batches.close()
    plain.close()


@pytest.mark.parametrize("heading", ["idx,ldmk_0,ldmk_1", "name,x,y", ""])
def test_csvs_by_position_and_by_name(aligned, expected, heading, tmp_path):
    source = open_source(aligned)
    names = None if heading.startswith("idx") else [source.item_name(i) for i in range(COUNT)]
    (tmp_path / "points.csv").write_text(csv_of(expected, heading, names))
    found = LandmarkedSource(source, LandmarkTable(tmp_path / "points.csv"))
    np.testing.assert_allclose(found.landmarks(np.array([7, 2])), expected[[7, 2]], atol=1e-6)
    assert found[3] == source[3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "points.csv: no landmarks"),
        ("idx,x\n", "points.csv: no landmarks"),
        ("a,1,2\n", "points.csv: line 1: 3 cells; expected a name and x, y of five points"),
        ("a" + ",38.5" * 10 + "\n", r"line 1: a landmark at 38.5; expected 0..1, .*pixels"),
        ("a" + ",nan" * 10 + "\n", "line 1: a landmark at nan"),
        ("idx,x\nb" + ",.5" * 10 + "\n", "line 2: 'b'; expected an image's position"),
        ("a" + ",.5" * 10 + "\n", r"points.csv: no landmarks of p0/0.png"),
        ("a" + ",.5" * 10 + "\na" + ",.6" * 10 + "\n", "line 2: 'a' has other landmarks in a line"),
        ("idx,x\n7" + ",.5" * 10 + "\n07" + ",.6" * 10 + "\n", "line 3: '7' has other landmarks"),
        ("idx,x\n7" + ",.5" * 10 + "\n", r"points.csv: no landmarks of 0$"),
    ],
)
def test_tables_that_are_none_or_lack_an_image(aligned, text, message, tmp_path):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        LandmarkedSource(open_source(aligned), LandmarkTable(tmp_path / "points.csv")).landmarks(
            np.array([0])
        )


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ([], "not the report of an alignment"),
        ({"faces": {"a": 3}}, r"faces\['a'\]: expected a face's file"),
        ({"faces": {"a": {"file": "a.png", "landmarks": [1, 2]}}}, "landmarks that no face has"),
        ({"faces": {"a": {"file": "a.png", "landmarks": [[3, 3]] * 5}}}, "that no face has"),
        ({"faces": {"a": {"file": "a.png", "landmarks": None}}}, "no landmarks of p0/0.png .*anew"),
    ],
)
def test_reports_that_are_none_or_lack_a_face(aligned, report, message, tmp_path):
    (tmp_path / "alignment.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match=message):
        LandmarkedSource(
            open_source(aligned), LandmarkTable(tmp_path / "alignment.json")
        ).landmarks(np.array([0]))


def test_images_without_landmarks_are_left_out_where_those_are_skipped(aligned, expected, tmp_path):
    source = open_source(aligned)
    names = [source.item_name(i) for i in range(COUNT)]
    (tmp_path / "points.csv").write_text(csv_of(expected[:-2], "", names[:-2]))
    landmarked = LandmarkedSource(source, LandmarkTable(tmp_path / "points.csv"))
    with pytest.raises(UserError, match=r"points.csv: no landmarks of p2/[23].png"):
        convert(landmarked, tmp_path / "all", FACES)
    convert(landmarked, tmp_path / "some", dataclasses.replace(FACES, on_error="skip"))
    manifest = json.loads((tmp_path / "some" / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["skipped"]] == names[-2:]
    assert all(entry["reason"].endswith("no landmarks") for entry in manifest["skipped"])
    found = open_source(tmp_path / "some")
    points = found.landmarks(np.arange(COUNT - 2))
    np.testing.assert_allclose(points, expected[positions(found)], atol=1e-6)
