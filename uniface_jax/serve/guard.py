"""Wall around the application: requests are checked before they are read, and counted."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from absl import logging
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniface_jax.serve.access import Access, Rates
from uniface_jax.serve.counts import Counts
from uniface_jax.serve.limits import LINGER_SECONDS, Limits
from uniface_jax.serve.problems import Problem, full, late

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_GRACE_SECONDS = 2.0  # for an answer to be sent, beyond the seconds of a request
OTHER_ROUTE = "other"


class Guard:
    """ASGI middleware that refuses, bounds and counts requests.

    A request's body is read only if its host, origin, rate and token are right, if it is short
    enough, and if there is room for it. scope["state"]["deadline"] tells the routes until when, by
    the loop's clock, there must be an answer. Headers of security are on every answer; a route may
    set its own Content-Security-Policy and Cache-Control.
    """

    def __init__(self, app: ASGIApp, *, access: Access, limits: Limits, counts: Counts) -> None:
        self._app, self._access, self._limits, self._counts = app, access, limits, counts
        self._rates, self._held = Rates(access.rate), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; pass on what is no request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # of WebSockets there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        began = time.perf_counter()
        exchange = _Exchange(Headers(scope=scope), receive, send, self._limits)
        exchange.on_bytes = self._take
        try:
            async with asyncio.timeout(self._limits.seconds + _GRACE_SECONDS):
                await self._answer(scope, exchange)
        except TimeoutError:
            if not exchange.started:
                await exchange.refuse(late(self._limits.seconds), linger=False)
        except ClientDisconnect:
            pass
        finally:
            route = getattr(scope.get("route"), "path", OTHER_ROUTE)
            self._counts.request(route, exchange.status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, exchange: "_Exchange") -> None:
        try:
            self._check(scope, exchange)
            scope.setdefault("state", {})["deadline"] = exchange.deadline
            await self._app(scope, exchange.receive, exchange.send)
        except Problem as e:
            await exchange.refuse(e)
        except (ClientDisconnect, TimeoutError):
            raise
        except Exception:
            logging.exception("%s: not answered", scope["path"][:200])
            await exchange.refuse(Problem(500, "internal", "an error of the server"))
        finally:
            self._hold(-exchange.received)

    def _check(self, scope: Scope, exchange: "_Exchange") -> None:
        headers, access = exchange.headers, self._access
        self._rates.take((scope.get("client") or ("",))[0])
        access.check_host(headers)
        access.check_origin(headers)
        access.check_token(scope["path"], headers)
        if exchange.promised > self._limits.body_bytes:
            raise _too_large(self._limits)
        self._expect_room(exchange.promised)

    def _expect_room(self, count: int) -> None:
        if self._held + count > self._limits.held_bytes:
            raise full(f"requests in progress hold {self._held} bytes")

    def _take(self, count: int) -> None:
        """Hold bytes that have come: only these, lest promises alone keep others out."""
        self._hold(count)
        self._expect_room(0)

    def _hold(self, count: int) -> None:
        self._held += count
        self._counts.held.set(self._held)


class _Exchange:
    """One request and its answer, of which the body comes in within bounds."""

    def __init__(self, headers: Headers, receive: Receive, send: Send, limits: Limits) -> None:
        self.headers, self._limits = headers, limits
        self._receive, self._send = receive, send
        self._loop = asyncio.get_running_loop()
        self.on_bytes: Callable[[int], None] = lambda count: None
        self.deadline = self._loop.time() + limits.seconds
        self.status = 499  # as nginx counts who left before the answer
        self.received, self.started = 0, False
        chunked = "transfer-encoding" in headers
        # h11 has checked that it is a number of up to 20 digits.
        length = int(headers.get("content-length") or 0)
        self.promised = limits.body_bytes if chunked else length
        self._whole = not chunked and not length

    async def receive(self) -> Message:
        """Return the next message; Problem where the body is too long or late."""
        left = self.deadline - self._loop.time()
        try:
            message = await _within(left, self._receive())
        except TimeoutError as e:
            raise Problem(408, "late", f"no whole request in {self._limits.seconds:g} s") from e
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self.received += count
            self.on_bytes(count)
            self._whole = self._whole or not message.get("more_body", False)
            if self.received > self._limits.body_bytes:
                raise _too_large(self._limits)
        return message

    async def send(self, message: Message) -> None:
        """Send a message, the first with the headers of security."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if not self._whole:  # what still comes would be read as long as it comes
                headers["Connection"] = "close"
            self.status, self.started = message["status"], True
        await self._send(message)

    async def refuse(self, problem: Problem, *, linger: bool = True) -> None:
        """Send a refusal, unless an answer has begun, which then ends with the connection.

        linger: let the body arrive for a moment, lest its sender never reads the refusal.
        """
        if self.started:
            return
        response = problem.response()
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
        await self.send(start)
        await self.send({"type": "http.response.body", "body": response.body, "more_body": True})
        if linger:
            await self._linger()
        await self.send({"type": "http.response.body", "body": b""})

    async def _linger(self) -> None:
        until = self._loop.time() + LINGER_SECONDS
        passed = 0
        try:
            while not self._whole and passed <= 4 * self._limits.body_bytes:
                message = await _within(until - self._loop.time(), self._receive())
                if message["type"] != "http.request":
                    return
                passed += len(message.get("body", b""))
                self._whole = not message.get("more_body", False)
        except TimeoutError:
            return


async def _within(seconds: float, awaited: Awaitable[Message]) -> Message:
    async with asyncio.timeout(max(seconds, 0)):
        return await awaited


def _too_large(limits: Limits) -> Problem:
    return Problem(413, "body", f"a request may have {limits.body_bytes} bytes")
