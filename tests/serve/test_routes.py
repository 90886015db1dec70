"""The routes: right answers, and refusals that say why."""

import asyncio
import os

import numpy as np
import pytest

from tests.helpers.onnx_graphs import expected_features
from tests.helpers.serving import FAR, THRESHOLD, asked, calibration, face, posted, service
from uniface_jax import Gallery
from uniface_jax.data.faces.orl import orl_folder
from uniface_jax.data.formats.images import decode, encode_png
from uniface_jax.inference.similarity import similarity
from uniface_jax.serve.limits import Limits
from uniface_jax.serve.service import Knowledge


def features(*encoded: bytes) -> np.ndarray:
    return expected_features(np.stack([decode(each, "") for each in encoded]))


def test_embed_returns_the_features_of_each_image_in_order(model):
    sent = [face(seed) for seed in range(5)]
    answer = posted(
        service(model), "/embed", [("images", (f"{i}.png", x)) for i, x in enumerate(sent)]
    )
    assert answer.status_code == 200
    found = answer.json()
    assert found["model"] == {
        "name": model.name, "sha256": model.hash, "description": model.description
    }  # fmt: skip
    assert [image["name"] for image in found["images"]] == [f"{i}.png" for i in range(5)]
    rows = [image["faces"][0]["feature"] for image in found["images"]]
    np.testing.assert_allclose(rows, features(*sent), rtol=1e-4, atol=1e-4)


def test_many_clients_at_once_get_their_own_answers(model):
    sent = [face(seed) for seed in range(24)]

    async def scenario(client):
        ask = (client.post("/embed", files={"images": ("x.png", x)}) for x in sent)
        return await asyncio.gather(*ask)

    answers = asked(service(model, limits=Limits(batch=5)), scenario)
    rows = [answer.json()["images"][0]["faces"][0]["feature"] for answer in answers]
    np.testing.assert_allclose(rows, features(*sent), rtol=1e-4, atol=1e-4)


def test_faces_of_photographs_are_found_and_boxed(model):
    photograph = (orl_folder() / "s31" / "1.pgm").read_bytes()
    two = np.concatenate([decode(photograph, "")] * 2, axis=1)
    answer = posted(
        service(model, align=True), "/embed",
        [("images", ("1.pgm", photograph)), ("images", ("none.png", face(0))),
         ("images", ("two.png", encode_png(two)))],
        {"faces": "all"},
    )  # fmt: skip
    one, none, several = answer.json()["images"]
    assert [len(image["faces"]) for image in (one, none, several)] == [1, 0, 2]
    assert none["problem"] == {"reason": "no_face", "detail": "images[1]: no face found"}
    left, right = sorted(each["box"][0] for each in several["faces"])
    assert right - left == pytest.approx(two.shape[1] / 2, abs=6)
    assert min(each["score"] for each in several["faces"]) > 0.6


def test_compare_decides_at_the_far(model, tmp_path):
    knowledge = Knowledge(calibration=calibration(model, tmp_path))
    one, other = face(1), face(2)
    for pair, same in (((one, one), True), ((one, other), False)):
        files = {"a": ("a", pair[0]), "b": ("b", pair[1])}
        answer = posted(service(model, knowledge=knowledge), "/compare", files, {"far": FAR})
        found = answer.json()
        assert found["cosine"] == pytest.approx(float(similarity(*features(*pair))), abs=1e-4)
        assert found["same"] is same
        assert found["threshold"]["cosine"] == THRESHOLD
        assert found["threshold"]["measured_on"] == "folders/faces"


def test_without_a_threshold_nothing_is_decided(model):
    files = {"a": ("a", face(1)), "b": ("b", face(2))}
    found = posted(service(model), "/compare", files).json()
    assert found["same"] is None
    assert found["threshold"] is None


@pytest.fixture
def gallery(model, tmp_path):
    known = {"name": model.name, "sha256": model.hash, "description": model.description}
    names = [os.fsdecode(b"a\xff.png"), "b\n.png", "c.png"]
    rows = features(*(face(seed) for seed in range(3))).astype(np.float32)
    return Gallery.build(tmp_path / "g", rows, names, [None, "ben", None], known)


def test_search_names_who_is_known(model, gallery, tmp_path):
    knowledge = Knowledge(gallery.folder, calibration(model, tmp_path), FAR)
    asks = service(model, knowledge=knowledge)

    async def scenario(client):
        return [
            (await client.post("/search", files={"image": face(seed)}, data={"k": "2"})).json()
            for seed in (0, 1, 9)
        ]

    first, second, stranger = asked(asks, scenario)
    assert (first["answer"], second["answer"], stranger["answer"]) == (
        r"a\xff.png",
        "ben",
        "unknown",
    )
    assert [found["known"] for found in (first, second, stranger)] == [True, True, False]
    assert second["nearest"][0]["name"] == r"b\n.png"
    assert [match["accepted"] for match in second["nearest"]] == [True, False]
    assert second["nearest"][0]["cosine"] == pytest.approx(1)
    assert first["faces"] == 3
    assert first["threshold"]["fpir"] == pytest.approx(1 - (1 - FAR) ** 3)


def test_a_change_of_the_gallery_is_seen(model, gallery):
    asks = service(model, knowledge=Knowledge(gallery.folder))

    async def scenario(client):
        before = await client.post("/search", files={"image": face(0)})
        await asyncio.to_thread(gallery.remove, [0])
        after = await client.post("/search", files={"image": face(0)})
        return before.json(), after.json()

    before, after = asked(asks, scenario)
    assert (before["nearest"][0]["id"], before["faces"]) == (0, 3)
    assert after["nearest"][0]["id"] != 0
    assert after["faces"] == 2


JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 200
WIDE = encode_png(np.zeros((8, 600, 3), np.uint8))


@pytest.mark.parametrize(
    ("path", "files", "data", "status", "reason"),
    [
        ("/embed", {"images": b"<html>"}, None, 415, "no_image"),
        ("/embed", {"images": b""}, None, 415, "no_image"),
        ("/embed", {"images": JPEG}, None, 422, "damaged_image"),
        ("/embed", {"images": face(0)[:-500]}, None, 422, "damaged_image"),
        ("/embed", {"images": WIDE}, None, 422, "not_aligned"),
        ("/embed", {"images": b"P6 60000 60000 255 "}, None, 413, "too_many_pixels"),
        ("/embed", {"images": b"P6 5000 5000 255 "}, None, 413, "too_many_pixels"),
        ("/embed", {"images": b"P6 1 20000 255 "}, None, 413, "too_many_pixels"),
        ("/embed", {"picture": face(0)}, None, 422, "form"),
        ("/embed", {"images": face(0)}, {"faces": "some"}, 422, "form"),
        ("/embed", {"images": face(0)}, {"what": "x"}, 422, "form"),
        ("/embed", {"images": face(0)}, {"faces": "x" * 1000}, 400, "form"),
        ("/embed", [("images", face(0))] * 17, None, 413, "form"),
        ("/compare", {"a": face(0)}, None, 422, "form"),
        ("/compare", {"a": face(0), "b": face(1)}, {"far": "nan"}, 422, "form"),
        ("/compare", {"a": face(0), "b": face(1)}, {"far": "0.1"}, 422, "no_calibration"),
        ("/search", {"image": face(0)}, None, 404, "no_gallery"),
        ("/search", {"image": face(0)}, {"k": "0"}, 422, "form"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(model, path, files, data, status, reason):
    answer = posted(service(model), path, files, data)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert "\n" not in answer.json()["detail"]


def test_a_far_that_was_not_measured_names_those_that_were(model, tmp_path):
    knowledge = Knowledge(calibration=calibration(model, tmp_path))
    files = {"a": face(0), "b": face(1)}
    answer = posted(service(model, knowledge=knowledge), "/compare", files, {"far": "0.5"})
    assert answer.status_code == 422
    assert (
        answer.json()["detail"] == "FAR 0.5 was not measured, only 0.01; evaluate --fars=0.5 does"
    )


def test_openapi_describes_each_route(model):
    async def scenario(client):
        return (await client.get("/openapi.json")).json()

    found = asked(service(model), scenario)["paths"]
    assert {"/embed", "/compare", "/search", "/health", "/metrics", "/model"} <= set(found)
    body = found["/embed"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["required"] == ["images"]
    for path in ("/embed", "/compare", "/search"):
        assert {"200", "413", "415", "422", "429", "503"} <= set(found[path]["post"]["responses"])


def test_health_and_metrics(model):
    async def scenario(client):
        await client.post("/embed", files={"images": face(0)})
        await client.post("/embed", files={"images": b"nothing"})
        health = await client.get("/health")
        return health.json(), (await client.get("/metrics")).text

    health, text = asked(service(model), scenario)
    assert health == {"status": "ok"}
    assert 'uniface_requests_total{route="/embed",status="200"} 1.0' in text
    assert 'uniface_requests_total{route="/embed",status="415"} 1.0' in text
    assert 'uniface_photographs_total{result="no_image"} 1.0' in text
    assert "uniface_waiting_photographs 0.0" in text
    assert "uniface_held_bytes 0.0" in text
    assert "process_resident_memory_bytes" in text
