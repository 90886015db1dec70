"""Application: a service's routes behind the guard."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from uniface_jax import __version__
from uniface_jax.serve.access import Access
from uniface_jax.serve.guard import Guard
from uniface_jax.serve.routes import router
from uniface_jax.serve.service import Service


def create_app(service: Service, access: Access, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application that answers by `service` whom `access` lets ask.

    routers: further routes, which find the service as routes.service_of does. The application
    begins and ends the service's threads.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(
        title="uniface_jax",
        version=__version__,
        description="Features of faces, comparisons, and searches of a gallery.",
        docs_url=None,  # its page would load scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(Guard, access=access, limits=service.limits, counts=service.counts)
    for each in (router, *routers):
        app.include_router(each)
    return app


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """Return an unknown path or method in the form of all refusals."""
    assert isinstance(error, HTTPException)
    reason = {404: "no_such_path", 405: "no_such_method"}.get(error.status_code, "http")
    content = {"reason": reason, "detail": error.detail}
    return JSONResponse(content, error.status_code, error.headers)
