"""Refusals as answers: a status, a word that programs read, and a line that people read."""

import http

from starlette.responses import JSONResponse

from uniface_jax.files.printable import printable
from uniface_jax.serve.limits import RETRY_SECONDS

_RETRIED = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE)


class Problem(Exception):  # noqa: N818 - it is an answer, and no fault of the server
    """Refusal of a request, or of one of its photographs.

    status: of HTTP. reason: one word with underscores, the same for the same cause. detail: one
    line, with nothing in it that a terminal or a page would not show. retry: after how many
    seconds it may be asked again, where that may help.
    """

    def __init__(self, status: int, reason: str, detail: str, retry: int = RETRY_SECONDS) -> None:
        self.status, self.reason, self.retry = status, reason, retry
        self.detail = printable(" ".join(detail.split()))
        super().__init__(self.detail)

    def response(self) -> JSONResponse:
        """Return the answer; one that may be asked again says after how many seconds."""
        headers = {}
        if self.status in _RETRIED:
            headers["Retry-After"] = str(self.retry)
        if self.status == http.HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        content = {"reason": self.reason, "detail": self.detail}
        return JSONResponse(content, self.status, headers)


def full(detail: str, retry: int = RETRY_SECONDS) -> Problem:
    """Return the refusal of what finds no room now, and may be asked again."""
    return Problem(http.HTTPStatus.SERVICE_UNAVAILABLE, "full", detail, retry)


def late(seconds: float) -> Problem:
    """Return the refusal of what was not answered within `seconds`."""
    return Problem(
        http.HTTPStatus.SERVICE_UNAVAILABLE, "timeout", f"no answer within {seconds:g} seconds"
    )
