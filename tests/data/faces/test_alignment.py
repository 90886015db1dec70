import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uniface_jax.data.faces import alignment
from uniface_jax.data.faces.align_folders import REPORT_FILE, align_folders
from uniface_jax.data.faces.alignment import TEMPLATE, FaceDetector, align, similarity
from uniface_jax.data.faces.orl import folded_pairs, orl_folder
from uniface_jax.data.formats import images
from uniface_jax.data.sources.folders import FolderSource
from uniface_jax.errors import UserError


def transform(angle, scale, x, y):
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, x], [sine, cosine, y]])


FINITE = st.floats(-200, 200)


@given(st.floats(-3.1, 3.1), st.floats(0.1, 10), FINITE, FINITE)
def test_similarity_recovers_an_exact_transform(angle, scale, x, y):
    matrix = transform(angle, scale, x, y)
    moved = TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(similarity(TEMPLATE, moved), matrix, atol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_similarity_is_the_least_squares_fit(seed):
    """Against the linear least squares over (a, b, x, y) of [[a, -b, x], [b, a, y]]."""
    random = np.random.RandomState(seed)
    source = TEMPLATE + random.normal(0, 5, TEMPLATE.shape)
    target = TEMPLATE * 0.7 + random.normal(0, 5, TEMPLATE.shape)
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in source]
    a, b, x, y = np.linalg.lstsq(np.concatenate(rows), target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(source, target), [[a, -b, x], [b, a, y]], atol=1e-9)


def test_similarity_of_one_point_is_refused():
    with pytest.raises(ValueError):
        similarity(np.ones((5, 2)), TEMPLATE)


@pytest.mark.parametrize("size", [112, 224])
def test_align_puts_the_landmarks_on_the_template(size):
    """Blobs at the landmarks of a warped face come out centred on the template, to 0.1 pixel."""
    matrix = transform(0.4, 1.7, 60, 20)
    landmarks = TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    rows, columns = np.mgrid[:300, :300]
    for point in range(5):
        x, y = landmarks[point]
        blob = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6.0**2))
        photo = np.repeat(np.round(blob).astype(np.uint8)[..., None], 3, axis=2)
        face = align(photo, landmarks, size)
        assert face.shape == (size, size, 3)
        assert face.dtype == np.uint8
        weight = face[..., 0].astype(float)
        y_out, x_out = (np.mgrid[:size, :size] * weight).sum((1, 2)) / weight.sum()
        expected = TEMPLATE[point] * size / 112
        np.testing.assert_allclose([x_out, y_out], expected, atol=0.1 * size / 112)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def photo():
    return images.decode((orl_folder() / "s6" / "1.pgm").read_bytes(), "s6/1.pgm")


def test_detector_follows_the_face(detector, photo):
    """Landmarks of the moved and enlarged photograph are the moved and enlarged landmarks."""
    (face,) = detector.detect(photo)
    canvas = np.full((400, 500, 3), 90, np.uint8)
    canvas[100:324, 250:434] = cv2.resize(photo, None, fx=2, fy=2)
    (moved,) = detector.detect(canvas)
    np.testing.assert_allclose(moved.landmarks, face.landmarks * 2 + [250.5, 100.5], atol=6)
    x, y, width, height = moved.box
    assert (moved.landmarks[:, 0] > x).all()
    assert (moved.landmarks[:, 0] < x + width).all()
    assert (moved.landmarks[:, 1] > y).all()
    assert (moved.landmarks[:, 1] < y + height).all()
    assert 0.6 < moved.score <= 1


def test_most_prominent_face_comes_first(detector, photo):
    canvas = np.full((400, 600, 3), 90, np.uint8)
    canvas[20:132, 10:102] = photo
    canvas[90:314, 250:434] = cv2.resize(photo, None, fx=2, fy=2)
    faces = detector.detect(canvas)
    assert len(faces) == 2
    assert faces[0].box[0] > 200 > faces[1].box[0]


def test_no_face_in_noise(detector):
    noise = np.random.RandomState(0).randint(0, 256, (120, 90, 3), np.uint8)
    assert detector.detect(noise) == []


def test_detector_files_are_checked(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"absent\.onnx: no such detector"):
        FaceDetector(tmp_path / "absent.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"bad\.onnx: OpenCV cannot load"):
        FaceDetector(bad)
    monkeypatch.setattr(alignment, "YUNET_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"yunet.*SHA-256 49f000ec.*not used"):
        FaceDetector()


def test_missing_packages_say_how_to_install(monkeypatch):
    monkeypatch.setattr(alignment.importlib.util, "find_spec", lambda name: None)
    for needs in (FaceDetector, orl_folder):
        with pytest.raises(UserError, match=r"not installed: pip install '.*\[demo\]'"):
            needs()


def test_folders_are_aligned_and_reported(tmp_path, detector, photo):
    source, destination = tmp_path / "photos", tmp_path / "faces"
    for identity in ("ann", "bob"):
        (source / identity).mkdir(parents=True)
    (source / "ann" / "1.png").write_bytes(images.encode_png(photo))
    (source / "ann" / "1.jpg").write_bytes(images.encode_jpeg(photo))
    two = np.concatenate([photo, photo], 1)
    (source / "ann" / "two.png").write_bytes(images.encode_png(two))
    noise = np.random.RandomState(0).randint(0, 256, (112, 92, 3), np.uint8)
    (source / "bob" / "none.png").write_bytes(images.encode_png(noise))
    (source / "bob" / "torn.png").write_bytes(images.encode_png(photo)[:500])
    (source / "bob" / "list.txt").write_text("x")
    report = align_folders(FolderSource(source), destination, detector)
    assert (report.aligned, report.already_done) == (3, 0)
    assert report.no_face == ["bob/none.png"]
    assert report.unreadable == ["bob/torn.png"]
    assert report.several_faces == ["ann/two.png"]
    assert report.skipped == ["bob/list.txt"]
    written = {str(f.relative_to(destination)) for f in destination.rglob("*") if f.is_file()}
    assert written == {"ann/1.png.png", "ann/1.jpg.png", "ann/two.png", REPORT_FILE}
    face = images.decode((destination / "ann" / "1.png.png").read_bytes(), "face")
    (found,) = detector.detect(photo)
    assert (face == align(photo, found.landmarks)).all()

    kept = (destination / "ann" / "two.png").stat().st_mtime_ns
    (destination / "ann" / "1.jpg.png").unlink()
    again = align_folders(FolderSource(source), destination, detector)
    assert (again.aligned, again.already_done) == (3, 2)
    assert again.several_faces == ["ann/two.png"]
    assert (destination / "ann" / "two.png").stat().st_mtime_ns == kept

    other = tmp_path / "other"
    (other / "ann").mkdir(parents=True)
    (other / "ann" / "1.png").write_bytes(images.encode_png(photo))
    with pytest.raises(UserError, match="holds the faces of"):
        align_folders(FolderSource(other), destination, detector)
    with pytest.raises(UserError, match="DEST must lie outside"):
        align_folders(FolderSource(source), source / "aligned", detector)


def test_folded_pairs_have_equal_shares():
    labels = np.repeat(np.arange(10), 10)
    first, second, same = folded_pairs(labels, 10, seed=0)
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == 4950
    assert (first < second).all()
    assert (same == (labels[first] == labels[second])).all()
    assert same.reshape(10, 495).sum(1).tolist() == [45] * 10
    assert not (np.diff(same[:495].astype(int)) <= 0).all()  # the kinds are mixed in a fold
    assert (first != folded_pairs(labels, 10, seed=1)[0]).any()
