"""Routes by which the page asks: faces of a photograph, a comparison, a search, an evaluation."""

import asyncio
import base64
import binascii
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from fastapi import APIRouter, Request

from uniface_jax.data.formats import images
from uniface_jax.errors import UserError
from uniface_jax.evaluate.report.results import Run
from uniface_jax.files.bounded_json import parse_json
from uniface_jax.files.printable import printable
from uniface_jax.gallery.rows import Row
from uniface_jax.gallery.sheet import face_of
from uniface_jax.inference.extract import check_features
from uniface_jax.serve.batches import EmbeddedFace
from uniface_jax.serve.problems import Problem
from uniface_jax.serve.routes import seconds_left, service_of
from uniface_jax.studio.choices import Choice, searches
from uniface_jax.studio.evaluations import SetName, sets_of, shown_set
from uniface_jax.studio.pages import add_pages

PREVIEW_SIDE = 1024  # pixels, of the photograph as the page shows it
NEAREST = 12
_PREVIEW_QUALITY = 88
_MAX_SENT_BYTES = 1 << 17  # of two features of the widest networks, in base64
_NAME = "the photograph"  # what problems call it: its own name stays in the browser


@dataclass(frozen=True)
class Evaluated:
    """An evaluation, and the thresholds that it offers."""

    run: Run
    choices: Sequence[Choice]


class Studio:
    """Answer what the page asks, beside the API of the same server. evaluated: None without one."""

    def __init__(self, evaluated: Evaluated | None = None) -> None:
        self._evaluated = evaluated
        self._sets: Sequence[SetName] = sets_of(evaluated.run) if evaluated else ()
        self._drawing = threading.Lock()  # a source of photographs is for one thread

    def router(self) -> APIRouter:
        """Return the routes of the page and of its files."""
        router = APIRouter()
        for path, answer, method in (
            ("/studio/state", self.state, "GET"),
            ("/studio/sets/{number}", self.set, "GET"),
            ("/studio/faces", self.faces, "POST"),
            ("/studio/compare", self.compare, "POST"),
            ("/studio/search", self.search, "POST"),
        ):
            router.add_api_route(path, answer, methods=[method], include_in_schema=False)
        add_pages(router)
        return router

    async def state(self, request: Request) -> dict[str, Any]:
        """Return the model, the gallery, the evaluation's sets, the thresholds, and the limits."""
        service = service_of(request)
        folder = service.knowledge.gallery
        gallery: dict[str, Any] | None = None
        if folder is not None:
            faces = len(await asyncio.to_thread(service.gallery))
            gallery = {"name": printable(folder.name), "faces": faces}
        choices = []
        for choice in self._evaluated.choices if self._evaluated else ():
            said = searches(choice.far, gallery["faces"]) if gallery else None
            choices.append({**asdict(choice), "searches": said})
        model = service.model
        return {
            "model": {"name": printable(model.name), "description": printable(model.description)},
            "gallery": gallery,
            "evaluation": {"sets": list(map(str, self._sets))} if self._evaluated else None,
            "choices": choices,
            "limits": {"bytes": service.limits.body_bytes, "faces": service.limits.faces},
        }

    async def set(self, number: int) -> dict[str, Any]:
        """Return a set of the evaluation; see evaluations.shown_set."""
        if self._evaluated is None or not 0 <= number < len(self._sets):
            raise Problem(404, "no_set", f"the evaluation has no set {number}")
        return shown_set(self._evaluated.run, self._sets[number])

    async def faces(self, request: Request) -> dict[str, Any]:
        """Return the faces of the photograph that is the request's body, and the photograph, small.

        Boxes are in pixels of the upright photograph, whose `width` and `height` are told. Where
        no face is found, there are none; other problems are raised.
        """
        encoded = await request.body()
        results = await service_of(request).results(
            [(_NAME, encoded)], several=True, seconds=seconds_left(request)
        )
        (result,) = results
        if isinstance(result, Problem):
            if result.reason != "no_face":
                detail = result.detail.removeprefix(f"{_NAME}: ")  # the page says which
                raise Problem(result.status, result.reason, detail)
            result = ()
        return await asyncio.to_thread(_shown, encoded, result)

    async def compare(self, request: Request) -> dict[str, Any]:
        """Return the cosine of two features."""
        first, second = await _features(request, "first", "second")
        if first.shape != second.shape:
            raise Problem(422, "feature", "features of two lengths")
        return {"cosine": service_of(request).decide(first, second, None).cosine}

    async def search(self, request: Request) -> dict[str, Any]:
        """Return the nearest faces of the gallery for a feature, with their pictures."""
        (feature,) = await _features(request, "feature")
        service = service_of(request)
        service.expect_gallery()
        try:
            found = await service.search(feature, NEAREST, None, seconds=seconds_left(request))
        except UserError as e:
            raise Problem(422, "gallery", str(e)) from e
        return await asyncio.to_thread(self._nearest, found.nearest)

    def _nearest(self, rows: Sequence[tuple[Row, float]]) -> dict[str, Any]:
        with self._drawing:
            return {
                "nearest": [
                    {
                        "id": row.id,
                        "name": printable(row.name),
                        "person": None if row.person is None else printable(row.person),
                        "cosine": cosine,
                        "picture": None if (face := face_of(row)) is None else _png(face),
                    }
                    for row, cosine in rows
                ]
            }


def _shown(encoded: bytes, faces: Sequence[EmbeddedFace]) -> dict[str, Any]:
    pixels = images.decode(encoded, _NAME)
    height, width = pixels.shape[:2]
    return {
        "width": width,
        "height": height,
        "preview": _base64(images.encode_jpeg(preview(pixels), _PREVIEW_QUALITY)),
        "faces": [
            {
                # A face that was aligned before fills its image.
                "box": [0, 0, width, height]
                if face.box is None
                else np.round(face.box, 2).tolist(),
                "score": face.score,
                "crop": _png(face.crop),
                "feature": _base64(np.asarray(feature, "<f4").tobytes()),
            }
            for face, feature in faces
        ],
    }


def preview(pixels: np.ndarray) -> np.ndarray:
    """Return an image of at most PREVIEW_SIDE a side, uint8 RGB, its sides in proportion."""
    height, width = pixels.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


async def _features(request: Request, *names: str) -> list[np.ndarray]:
    """Return the features float32 [D] in a request's JSON; Problem for anything else."""
    content = await request.body()
    if len(content) > _MAX_SENT_BYTES:
        raise Problem(413, "body", f"features may have {_MAX_SENT_BYTES} bytes")
    try:
        sent = parse_json(content)
    except ValueError as e:
        raise Problem(400, "json", "expected JSON") from e
    return [_feature(sent.get(name) if isinstance(sent, dict) else None, name) for name in names]


def _feature(sent: Any, name: str) -> np.ndarray:
    try:
        content = base64.b64decode(sent, validate=True) if isinstance(sent, str) else b""
        feature = np.frombuffer(content, "<f4").astype(np.float32)
        if not len(feature):
            raise UserError(f"{name}: no feature")
        check_features(feature[None], 0, lambda _: name)
    except (binascii.Error, ValueError) as e:  # UserError is a ValueError
        raise Problem(422, "feature", f"{name}: no feature, as float32 in base64") from e
    return feature


def _png(pixels: np.ndarray) -> str:
    return _base64(images.encode_png(pixels))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
