"""A service with a tiny network, and clients that ask its application without a socket."""

import asyncio
import json
from pathlib import Path

import httpx
import numpy as np

from tests.helpers.onnx_graphs import face_network
from uniface_jax.data.formats.images import encode_png
from uniface_jax.inference.calibration import read_calibration
from uniface_jax.inference.load import load_model
from uniface_jax.serve.access import Access
from uniface_jax.serve.app import create_app
from uniface_jax.serve.limits import Limits
from uniface_jax.serve.photographs import FaceReader
from uniface_jax.serve.service import Knowledge, Service

OWN = "http://127.0.0.1:8000"
FAR, THRESHOLD = 0.01, 0.9
ANYBODY, NOTHING, LIMITS = Access(), Knowledge(), Limits()


def tiny_model(folder: Path):
    """Return the model of face_network, which takes aligned faces, without the mirror sum."""
    file = face_network(
        folder / "face.onnx", metadata={"Image.NominalPixelRange": "Normalized_1_1"}
    )
    return load_model(file, mirror=False)


def service(model, *, align=False, knowledge=NOTHING, limits=LIMITS) -> Service:
    """Return a service of aligned faces, or of photographs with `align`."""
    reader = FaceReader(
        align=align, detector=None, score=0.6, pixels=limits.pixels, faces=limits.faces
    )
    return Service(model, reader, knowledge, limits, compiled=False)


def asked(service: Service, scenario, access: Access = ANYBODY, routers=()):
    """Return what the coroutine function `scenario` returns for a client of the service."""

    async def run():
        app = create_app(service, access, routers)
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50_000))
        async with service, httpx.AsyncClient(transport=transport, base_url=OWN) as client:
            return await scenario(client)

    return asyncio.run(run())


def posted(service: Service, path: str, files, data=None, access: Access = ANYBODY, **options):
    """Return the response to one form."""
    return asked(
        service,
        lambda client: client.post(path, files=files, data=data, **options),
        access,
    )


def calibration(model, folder: Path):
    """Return a calibration of the model, whose threshold at FAR is THRESHOLD."""
    found = [{"far": FAR, "resolvable": True, "threshold_cosine": THRESHOLD}]
    content = {
        "model": {"name": "m", "sha256": model.hash, "description": model.description},
        "protocols": {"folders": {"sets": {"faces": {"thresholds": found}}}},
    }
    (folder / "metrics.json").write_text(json.dumps(content))
    return read_calibration(folder / "metrics.json")


def face(seed: int) -> bytes:
    """Return an aligned face, a PNG of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    return encode_png(noise)
