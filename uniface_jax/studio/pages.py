"""Files of the page, as they lie in static/, and the policy under which a browser runs them."""

from functools import partial
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Of the page alone: no other host, nothing inline, and no text that becomes HTML or code.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def page_files() -> dict[str, Path]:
    """Return the files of the page by the paths at which they are served."""
    files = {
        f"/static/{file.name}": file
        for file in sorted(FOLDER.iterdir())
        if file.suffix in TYPES and file.name != INDEX
    }
    return {"/": FOLDER / INDEX, **files}


def add_pages(router: APIRouter) -> None:
    """Add a route for each file, which is read now; no other path leads to a file."""
    for path, file in page_files().items():
        answer = partial(_answer, file.read_bytes(), TYPES[file.suffix])
        router.add_api_route(path, answer, methods=["GET"], include_in_schema=False)


async def _answer(content: bytes, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers={"Content-Security-Policy": POLICY})
