"""What the page asks of the server: right answers, and refusals in one line."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.helpers.serving import asked, face, service, tiny_model
from tests.helpers.serving import calibration as calibration_of
from tests.studio.conftest import HOSTILE, noise
from uniface_jax import Gallery
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.data.formats import images
from uniface_jax.inference.similarity import similarity
from uniface_jax.serve.access import Access
from uniface_jax.serve.limits import Limits
from uniface_jax.serve.service import Knowledge
from uniface_jax.studio.choices import choices_of
from uniface_jax.studio.pages import FOLDER, POLICY, TYPES, page_files
from uniface_jax.studio.studio import PREVIEW_SIDE, Evaluated, Studio, preview


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


ANYBODY = Access()


def ask(service, scenario, studio=None, access=ANYBODY):
    """Return what `scenario` returns for a client of a service with a studio."""
    return asked(service, scenario, access, [(studio or Studio()).router()])


def post(path, content):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def scenario(client):
        return await client.post(path, content=body)

    return scenario


def get(path):
    async def scenario(client):
        return await client.get(path)

    return scenario


def feature_of(encoded):
    return np.frombuffer(base64.b64decode(encoded), "<f4")


def in_base64(feature):
    return base64.b64encode(np.asarray(feature, "<f4").tobytes()).decode()


def turned(orientation):
    """Return a wide photograph of a face on its right side as JPEG, to be turned by its EXIF."""
    person = Image.open(orl_folder() / "s31" / "1.pgm").convert("RGB").resize((368, 448))
    photograph = Image.new("RGB", (1600, 900), "gray")
    photograph.paste(person, (1100, 300))
    stored = {1: photograph, 6: photograph.rotate(90, expand=True)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "JPEG", exif=exif, quality=95)
    return file.getvalue()


def test_boxes_are_those_of_the_upright_photograph(model):
    async def scenario(client):
        return [(await client.post("/studio/faces", content=turned(o))).json() for o in (1, 6)]

    upright, by_exif = ask(service(model, align=True), scenario)
    for found in (upright, by_exif):
        assert (found["width"], found["height"]) == (1600, 900)
        (found_face,) = found["faces"]
        x, y, width, height = found_face["box"]
        assert 1100 <= x < x + width <= 1468
        assert 300 <= y < y + height <= 748
        assert found_face["score"] > 0.6
        small = images.decode(base64.b64decode(found["preview"]), "preview")
        assert small.shape == (576, PREVIEW_SIDE, 3)
        crop = images.decode(base64.b64decode(found_face["crop"]), "crop")
        assert crop.shape == (112, 112, 3)
    boxes = [found["faces"][0]["box"] for found in (upright, by_exif)]
    np.testing.assert_allclose(*boxes, atol=4)


def test_a_photograph_without_a_face_is_shown_all_the_same(model):
    found = ask(service(model, align=True), post("/studio/faces", noise(200, 300))).json()
    assert (found["width"], found["height"], found["faces"]) == (300, 200, [])
    assert images.decode(base64.b64decode(found["preview"]), "").shape == (200, 300, 3)


def test_an_aligned_face_fills_its_image(model):
    found = ask(service(model), post("/studio/faces", face(1))).json()
    assert (found["faces"][0]["box"], found["faces"][0]["score"]) == ([0, 0, 112, 112], None)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"GIF89a" + bytes(100), 415, "no image; JPEG, PNG, PGM, BMP and WebP are taken"),
        (b"", 415, "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no image"),
        (face(0)[:2000], 422, "the image is truncated or corrupt"),
        (noise(40, 30), 422, "30x40 pixels; this server takes aligned faces"),
        (noise(200, 200), 413, "200x200 pixels; at most 30000 are taken"),
        (bytes(200_000), 413, "a request may have 150000 bytes"),
    ],
)
def test_a_file_that_is_no_photograph_is_refused_in_a_line(model, content, status, words):
    limits = Limits(body_bytes=150_000, pixels=30_000)
    answer = ask(service(model, limits=limits), post("/studio/faces", content))
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_a_comparison_is_the_cosine_of_two_features(model):
    async def scenario(client):
        found = [await client.post("/studio/faces", content=face(seed)) for seed in (1, 2)]
        first, second = (each.json()["faces"][0]["feature"] for each in found)
        answer = await client.post("/studio/compare", json={"first": first, "second": second})
        return first, second, answer.json()["cosine"]

    first, second, cosine = ask(service(model), scenario)
    assert cosine == pytest.approx(float(similarity(feature_of(first), feature_of(second))))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({}, 422),
        ([], 422),
        ({"first": "AAAA", "second": "AAAA"}, 422),
        ({"first": in_base64([0, 0]), "second": in_base64([0, 1])}, 422),
        ({"first": in_base64([np.nan, 1]), "second": in_base64([0, 1])}, 422),
        ({"first": in_base64([1, 0]), "second": in_base64([1, 0, 1])}, 422),
        ({"first": "<script>", "second": 7}, 422),
        (b"[" * 100_000, 400),
        (b"\xff{", 400),
        (b" " * 200_000, 413),
    ],
)
def test_features_from_elsewhere_are_checked(model, content, status):
    answer = ask(service(model), post("/studio/compare", content))
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


def test_a_search_finds_the_nearest_and_their_pictures(model, tmp_path):
    random = np.random.default_rng(0)
    features = random.standard_normal((20, 8)).astype(np.float32)
    people = [None, HOSTILE, *["ann"] * 18]
    Gallery.build(tmp_path / "g", features, [HOSTILE] * 20, people)
    known = service(model, knowledge=Knowledge(tmp_path / "g"))

    async def scenario(client):
        sent = [{"feature": in_base64(each)} for each in (features[1] * 3, [1, 2])]
        return [await client.post("/studio/search", json=each) for each in sent]

    found, wrong = ask(known, scenario)
    found = found.json()
    first = found["nearest"][0]
    assert (first["id"], first["picture"]) == (1, None)  # its photograph is nowhere
    assert first["cosine"] == pytest.approx(1.0)
    assert first["person"] == first["name"] == HOSTILE.replace("\u202e", "\\u202e")
    cosines = [row["cosine"] for row in found["nearest"]]
    assert len(cosines) == 12
    assert cosines == sorted(cosines, reverse=True)
    assert (wrong.status_code, wrong.json()["reason"]) == (422, "gallery")
    none = ask(service(model), post("/studio/search", {"feature": in_base64([1, 2])}))
    assert (none.status_code, none.json()["reason"]) == (404, "no_gallery")


def test_the_state_tells_what_there_is(model, run, tmp_path):
    calibration = calibration_of(model, tmp_path)
    Gallery.build(tmp_path / "g", np.eye(8, dtype=np.float32), ["x"] * 8)
    choices = choices_of(calibration, run_of(run, "folders"))
    full = service(model, knowledge=Knowledge(tmp_path / "g", calibration))

    async def scenario(client):
        return (await client.get("/studio/state")).json(), await client.get("/studio/sets/0")

    state, first = ask(full, scenario, Studio(Evaluated(run_of(run, "folders"), choices)))
    assert state["gallery"] == {"name": "g", "faces": 8}
    assert state["evaluation"] == {"sets": ["folders/faces"]}
    assert state["model"]["name"] == model.name
    (choice,) = state["choices"]
    assert choice["cosine"] == 0.9
    assert "8 faces of the gallery" in choice["searches"]
    assert first.json()["different"] == 300
    bare, missing = ask(service(model), scenario)
    assert (bare["gallery"], bare["evaluation"], bare["choices"]) == (None, None, [])
    assert missing.status_code == 404


def run_of(run, protocol):
    """Return a run as if it was by another protocol."""
    return replace(
        run,
        metrics={"protocols": {protocol: run.metrics["protocols"]["pairs"]}},
        drawings={protocol: run.drawings["pairs"]},
    )


@pytest.mark.parametrize("number", ["1", "-1", "99999999999999999999", "x"])
def test_a_set_that_is_not_there_is_refused(model, run, number):
    answer = ask(service(model), get(f"/studio/sets/{number}"), Studio(Evaluated(run, [])))
    assert answer.status_code in (404, 422)


def test_the_page_comes_under_a_policy_of_its_own_origin_alone(model):
    async def scenario(client):
        return {path: await client.get(path) for path in [*page_files(), "/static/../studio.py"]}

    answers = ask(service(model), scenario)
    assert answers.pop("/static/../studio.py").status_code == 404
    assert len(answers) == len(list(FOLDER.iterdir()))
    for path, answer in answers.items():
        file = page_files()[path]
        assert answer.content == file.read_bytes()
        assert answer.headers["content-type"] == TYPES[file.suffix]
        assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert set(re.findall(r"'?[\w-]+-src '?[\w:*']+", POLICY)) == {
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
        "connect-src 'self'",
    }  # fmt: skip


def test_no_file_of_the_page_names_another_host_or_makes_html_of_text():
    for file in FOLDER.iterdir():
        text = file.read_text().replace('"http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//\w+\.\w|@import|url\(", text), file.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text
        )
        assert not re.search(r"<[^>]+ (on\w+|style)=", text), file.name


def test_a_token_is_asked_for_but_by_the_files_of_the_page(model):
    paths = frozenset(page_files())
    access = Access(token="x" * 16, open_paths=paths)

    async def scenario(client):
        return [(await client.get(path)).status_code for path in ("/", "/studio/state")]

    assert ask(service(model), scenario, access=access) == [200, 401]


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (3000, 2000), (10, 10)])
def test_a_preview_keeps_the_proportions(shape):
    small = preview(np.zeros((*shape, 3), np.uint8))
    assert max(small.shape) == min(PREVIEW_SIDE, max(shape))
    assert min(small.shape[:2]) >= 1
