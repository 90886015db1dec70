"""Routes of the API."""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from uniface_jax.serve import answers, counts
from uniface_jax.serve.problems import Problem
from uniface_jax.serve.service import Service
from uniface_jax.serve.uploads import FORM, Form, read_form

MAX_NEAREST, _NEAREST = 100, 5
ONE, ALL = "one", "all"
_BINARY = {"type": "string", "format": "binary"}
_FAR = {
    "type": "number",
    "description": "False accept rate, one of those of the calibration; default: --far.",
}
_PROBLEMS = {
    400: "A damaged form",
    401: "No token, or a wrong one",
    403: "Asked by a page of another origin",
    408: "The request did not arrive in time",
    413: "Too many bytes, pixels or parts",
    415: "No form, or no image",
    421: "Another host is meant",
    422: "No face, a damaged image, or a wrong field",
    429: "Asked too often; see Retry-After",
    503: "Full, or too late; see Retry-After",
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.ProblemAnswer, "description": text}
    for status, text in _PROBLEMS.items()
}
router = APIRouter()


def service_of(request: Request) -> Service:
    """Return the service of the application that a request is for."""
    service: Service = request.app.state.service
    return service


def seconds_left(request: Request) -> float:
    """Return the seconds within which a request must be answered."""
    deadline: float = request.state.deadline
    return max(deadline - asyncio.get_running_loop().time(), 0.0)


async def form_of(request: Request, photographs: Sequence[str], fields: Sequence[str]) -> Form:
    """Read the form of a request; see uploads.read_form."""
    limits = service_of(request).limits
    return await read_form(request, limits, frozenset(photographs), frozenset(fields))


def form_schema(
    photographs: dict[str, dict[str, Any]], fields: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what OpenAPI says of a form: all photographs are needed, and no field is."""
    schema = {
        "type": "object",
        "required": list(photographs),
        "properties": {**photographs, **fields},
    }
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


@router.post(
    "/embed",
    summary="Features of photographs",
    responses=_REFUSALS,
    openapi_extra=form_schema(
        {"images": {"type": "array", "items": _BINARY, "description": "One or more."}},
        {
            "faces": {
                "type": "string",
                "enum": [ONE, ALL],
                "default": ONE,
                "description": "Of each photograph, the most prominent face or all.",
            }
        },
    ),
)
async def embed(request: Request) -> answers.EmbedAnswer:
    """Return the features of the faces of one or more photographs.

    A photograph without a face, or a damaged one, has a problem instead of faces; where no
    photograph has a face, the answer is that of the first one's problem.
    """
    service = service_of(request)
    form = await form_of(request, ["images"], ["faces"])
    several = form.choice("faces", (ONE, ALL)) == ALL
    sent = form.photographs.get("images", [])
    if not sent:
        raise Problem(422, "form", "images: no photograph; expected one or more")
    photographs = [(f"images[{i}]", encoded) for i, (_, encoded) in enumerate(sent)]
    results = await service.results(photographs, several=several, seconds=seconds_left(request))
    if isinstance(results[0], Problem) and all(isinstance(each, Problem) for each in results):
        raise results[0]
    return answers.embedded(model_answer(service), [name for name, _ in sent], results)


@router.post(
    "/compare",
    summary="One person or two",
    responses=_REFUSALS,
    openapi_extra=form_schema({"a": _BINARY, "b": _BINARY}, {"far": _FAR}),
)
async def compare(request: Request) -> answers.CompareAnswer:
    """Compare the most prominent faces of two photographs, and decide at a false accept rate."""
    service = service_of(request)
    form = await form_of(request, ["a", "b"], ["far"])
    far = form.number("far", 0, 1)
    service.threshold(far)  # refused before anything is computed
    photographs = [(field, form.one(field)[1]) for field in ("a", "b")]
    a, b = await service.faces(photographs, seconds=seconds_left(request))
    return answers.compared(service.decide(a.feature, b.feature, far), a, b)


@router.post(
    "/search",
    summary="Who of the gallery",
    responses=_REFUSALS,
    openapi_extra=form_schema(
        {"image": _BINARY},
        {
            "k": {"type": "integer", "minimum": 1, "maximum": MAX_NEAREST, "default": _NEAREST},
            "far": _FAR,
        },
    ),
)
async def search(request: Request) -> answers.SearchAnswer:
    """Search the gallery for the most prominent face of a photograph."""
    service = service_of(request)
    form = await form_of(request, ["image"], ["k", "far"])
    far, k = form.number("far", 0, 1), form.number("k", 1, MAX_NEAREST)
    service.threshold(far)
    service.expect_gallery()
    photograph = ("image", form.one("image")[1])
    (face,) = await service.faces([photograph], seconds=seconds_left(request))
    nearest = _NEAREST if k is None else int(k)
    found = await service.search(face.feature, nearest, far, seconds=seconds_left(request))
    return answers.searched(found, face)


@router.get("/health", summary="Whether it answers")
async def health(request: Request) -> answers.HealthAnswer:
    """Say that the server answers; asks for no token."""
    return answers.HealthAnswer(status="ok")


@router.get("/model", summary="The network", responses={401: _REFUSALS[401]})
async def model(request: Request) -> answers.ModelAnswer:
    """Return the model's name, its digest, and how its input is prepared."""
    return model_answer(service_of(request))


@router.get("/metrics", summary="Counts", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the counts of this server, in Prometheus' text format."""
    return Response(service_of(request).counts.text(), media_type=counts.CONTENT_TYPE)


def model_answer(service: Service) -> answers.ModelAnswer:
    """Return what is said of a service's model."""
    model = service.model
    return answers.ModelAnswer(name=model.name, sha256=model.hash, description=model.description)
