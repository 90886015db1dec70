"""Forms of the answers, which OpenAPI describes."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, Field

from uniface_jax.files.printable import printable
from uniface_jax.gallery.thresholds import Limit
from uniface_jax.inference.calibration import Threshold
from uniface_jax.serve.batches import EmbeddedFace, Result
from uniface_jax.serve.problems import Problem
from uniface_jax.serve.service import Decision, Found

UNKNOWN = "unknown"


class ProblemAnswer(BaseModel):
    """Refusal of a request or of a photograph."""

    reason: str = Field(description="The cause, in one word.", examples=["no_face"])
    detail: str = Field(description="One line.", examples=["images[0]: no face found"])


class ModelAnswer(BaseModel):
    """The network."""

    name: str = Field(examples=["face"])
    sha256: str = Field(description="Of what was loaded, hexadecimal.")
    description: str = Field(description="How its input is prepared.")


class FaceAnswer(BaseModel):
    """One face of a photograph."""

    box: list[float] | None = Field(
        description="x, y, width, height in pixels of the upright photograph; null where the "
        "server takes aligned faces.",
        examples=[[12.5, 30.0, 81.0, 104.5]],
    )
    score: float | None = Field(description="Of the detector, 0..1.", examples=[0.93])


class EmbeddedAnswer(FaceAnswer):
    """One face and its feature."""

    feature: list[float] = Field(description="float32, not normalized.", examples=[[0.1, -1.5]])


class PhotographAnswer(BaseModel):
    """One photograph: its faces, the most prominent first, or its problem."""

    name: str = Field(description="As it was sent.", examples=["ann.jpg"])
    faces: list[EmbeddedAnswer]
    problem: ProblemAnswer | None


class EmbedAnswer(BaseModel):
    """Features of photographs, in the order in which they were sent."""

    model: ModelAnswer
    images: list[PhotographAnswer]


class ThresholdAnswer(BaseModel):
    """Cosine from which on two faces count as one person's."""

    cosine: float = Field(examples=[0.31])
    far: float = Field(description="False accept rate of a comparison.", examples=[1e-4])
    measured_on: str = Field(description="PROTOCOL/SET of the evaluation.")
    lower: float = Field(description="Of the cosine's 95 % interval.")
    upper: float


class CompareAnswer(BaseModel):
    """Cosine of two faces, -1..1, and the decision at the FAR; null without a threshold."""

    cosine: float = Field(examples=[0.62])
    same: bool | None = Field(examples=[True])
    threshold: ThresholdAnswer | None
    a: FaceAnswer
    b: FaceAnswer


class LimitAnswer(BaseModel):
    """Cosine from which on the nearest face of the gallery is an answer."""

    cosine: float
    far: float | None = Field(description="False accept rate of a comparison.", examples=[1e-4])
    fpir: float | None = Field(
        description="Rate of searches of this gallery that find someone for a face of nobody."
    )
    measured_on: str | None


class MatchAnswer(BaseModel):
    """One face of the gallery. What of a name is no letter is escaped; the id tells it apart."""

    id: int
    name: str
    person: str | None
    cosine: float
    accepted: bool | None = Field(description="The threshold is reached; null without one.")


class SearchAnswer(BaseModel):
    """Nearest faces of the gallery, the nearest first."""

    answer: str = Field(
        description="The person, or else the name, of the nearest face; unknown where that does "
        "not reach the threshold.",
        examples=["ann", UNKNOWN],
    )
    known: bool = Field(description="False where the answer is unknown.")
    threshold: LimitAnswer | None
    faces: int = Field(description="Faces in the gallery.")
    face: FaceAnswer
    nearest: list[MatchAnswer]


class HealthAnswer(BaseModel):
    """State of the server."""

    status: str = Field(examples=["ok"])


def embedded(model: ModelAnswer, names: Sequence[str], results: Sequence[Result]) -> EmbedAnswer:
    """Return the answer to /embed."""
    images = []
    for name, result in zip(names, results, strict=True):
        bad = isinstance(result, Problem)
        images.append(
            PhotographAnswer(
                name=printable(name),
                faces=[] if isinstance(result, Problem) else [_embedded(each) for each in result],
                problem=problem(result) if isinstance(result, Problem) and bad else None,
            )
        )
    return EmbedAnswer(model=model, images=images)


def problem(refusal: Problem) -> ProblemAnswer:
    """Return a refusal as part of an answer."""
    return ProblemAnswer(reason=refusal.reason, detail=refusal.detail)


def compared(decision: Decision, a: EmbeddedFace, b: EmbeddedFace) -> CompareAnswer:
    """Return the answer to /compare."""
    return CompareAnswer(
        cosine=decision.cosine,
        same=decision.same,
        threshold=None if decision.threshold is None else _threshold(decision.threshold),
        a=place(a),
        b=place(b),
    )


def searched(found: Found, face: EmbeddedFace) -> SearchAnswer:
    """Return the answer to /search."""
    nearest = [
        MatchAnswer(
            id=row.id,
            name=printable(row.name),
            person=None if row.person is None else printable(row.person),
            cosine=cosine,
            accepted=None if found.limit is None else cosine >= found.limit.cosine,
        )
        for row, cosine in found.nearest
    ]
    known = bool(nearest) and nearest[0].accepted is not False
    return SearchAnswer(
        answer=(nearest[0].person or nearest[0].name) if known else UNKNOWN,
        known=known,
        threshold=None if found.limit is None else _limit(found.limit),
        faces=found.faces,
        face=place(face),
        nearest=nearest,
    )


def place(embedded: EmbeddedFace) -> FaceAnswer:
    """Return where a face is."""
    box = embedded.face.box
    return FaceAnswer(
        box=None if box is None else [round(float(x), 2) for x in box], score=embedded.face.score
    )


def _embedded(face: EmbeddedFace) -> EmbeddedAnswer:
    where = place(face)
    return EmbeddedAnswer(box=where.box, score=where.score, feature=shortest(face.feature))


def shortest(feature: np.ndarray) -> list[float]:
    """Return float32 numbers as the shortest decimals that are the same in float32.

    >>> shortest(np.array([0.1, -3], np.float32))
    [0.1, -3.0]
    """
    return [float(text) for text in feature.astype(str)]


def _threshold(threshold: Threshold) -> ThresholdAnswer:
    return ThresholdAnswer(
        cosine=threshold.cosine,
        far=threshold.far,
        measured_on=printable(threshold.measured_on),
        lower=threshold.lower,
        upper=threshold.upper,
    )


def _limit(limit: Limit) -> LimitAnswer:
    where = limit.measured_on
    return LimitAnswer(
        cosine=limit.cosine,
        far=limit.far,
        fpir=limit.fpir,
        measured_on=None if where is None else printable(where),
    )
