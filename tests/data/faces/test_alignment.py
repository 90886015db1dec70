import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniface_jax.data.faces import alignment
from uniface_jax.data.faces.alignment import FaceDetector, align, similarity
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.data.formats.images import decode
from uniface_jax.data.formats.landmarks import TEMPLATE
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


def test_the_margin_of_a_long_strip_takes_no_more_than_a_photograph(monkeypatch):
    """Around 300 x 16000 pixels a third of the long side would be 174 megapixels."""
    padded = []
    original = cv2.copyMakeBorder

    def bordered(image, *sides_and_kind):
        found = original(image, *sides_and_kind)
        padded.append(found.shape[0] * found.shape[1])
        return found

    monkeypatch.setattr(cv2, "copyMakeBorder", bordered)
    assert FaceDetector().detect(np.zeros((300, 16000, 3), np.uint8)) == []
    assert max(padded) <= alignment.MAX_PIXELS


@pytest.mark.parametrize("fill", [0, 127])
def test_no_face_is_found_in_a_thin_strip(fill):
    for shape in ((30, 1280, 3), (1280, 30, 3), (1, 5000, 3), (64, 1280, 3)):
        assert FaceDetector().detect(np.full(shape, fill, np.uint8)) == []


def test_a_face_beside_a_margin_of_a_reduced_image_is_where_it_was(monkeypatch):
    small = decode((orl_folder() / "s31" / "1.pgm").read_bytes(), "face")
    photograph = cv2.resize(small, None, fx=15, fy=15, interpolation=cv2.INTER_CUBIC)
    detector = FaceDetector()
    (expected,) = detector.detect(photograph)
    monkeypatch.setattr(alignment, "MAX_PIXELS", 0)
    detect = detector._detect
    monkeypatch.setattr(
        detector, "_detect", lambda image, margin: detect(image, margin) * (margin > 0)
    )
    (found,) = detector.detect(photograph)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=40)
    np.testing.assert_allclose(found.box, expected.box, atol=80)
