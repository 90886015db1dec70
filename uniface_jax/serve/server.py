"""HTTP server on one address: uvicorn, with bounds on connections that never say anything."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

import h11
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from uniface_jax.errors import UserError
from uniface_jax.serve.limits import (
    KEEP_ALIVE_SECONDS,
    MAX_HEADER_BYTES,
    RETRY_SECONDS,
    Limits,
)

_FULL = (
    "HTTP/1.1 503 Service Unavailable\r\n"
    f"Retry-After: {RETRY_SECONDS}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
).encode()
_BACKLOG = 128
_REFUSAL_SECONDS = 0.2  # for a refusal to be read, before the connection is closed


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 takes any free one.

    Raises UserError, which names the address, where it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as e:
        raise UserError(f"--host={host} --port={port}: {e.strerror or e}") from e


def address_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(
    app: ASGIApp, listening: socket.socket, limits: Limits, started: Callable[[], None]
) -> None:
    """Answer until SIGINT or SIGTERM, then finish the requests in progress; a second ends at once.

    started: called when the first request can be answered.
    """
    asyncio.run(server(app, limits, started).serve(sockets=[listening]))


def server(app: ASGIApp, limits: Limits, started: Callable[[], None]) -> uvicorn.Server:
    """Return the server that `serve` runs."""
    # Of damaged forms, with the bytes that were sent.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        app,
        http=_bounded(limits),
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        log_level="critical",  # what strangers send is counted, and no line of a log each
        access_log=False,
        server_header=False,
        proxy_headers=False,  # what a client says of its address would escape the rate
        timeout_keep_alive=int(KEEP_ALIVE_SECONDS),
        timeout_graceful_shutdown=int(limits.seconds) + 1,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    return _Server(config, started)


class _Server(uvicorn.Server):
    """Server that ends by itself after a signal, and does not raise it once more."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = started

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit  # the second one
        self.should_exit = True


def _bounded(given: Limits) -> type[H11Protocol]:
    class Protocol(_BoundedProtocol):
        limits = given

    return Protocol


class _BoundedProtocol(H11Protocol):
    """Connection that ends if its headers do not come in time, or its answers are not read."""

    limits: ClassVar[Limits] = Limits()
    _refused = False
    _idle_since = 0.0  # by the loop's clock
    _timer: asyncio.TimerHandle | None = None  # until headers are there
    _unread: asyncio.TimerHandle | None = None  # until what was written is taken

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.limits.connections and not self._end_an_idle_one():
            self._refused, self.transport = True, transport
            transport.write(_FULL)
            self.loop.call_later(_REFUSAL_SECONDS, transport.close)
            return
        self._idle_since = self.loop.time()
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # paused until the last byte is taken
        self._watch()

    @override
    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        self._watch()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        self._unread = self.loop.call_later(self.limits.seconds, self.transport.abort)
        super().pause_writing()

    @override
    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    @override
    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _end_an_idle_one(self) -> bool:
        """Close the connection that has been without a request for longest; False without one."""
        idle = [
            other
            for other in self.connections
            if isinstance(other, _BoundedProtocol)
            and other.conn.their_state is h11.IDLE
            and not other.transport.is_closing()
        ]
        if not idle:
            return False
        longest = min(idle, key=lambda other: other._idle_since)
        longest.transport.close()
        self.connections.discard(longest)
        return True

    def _watch(self) -> None:
        """Start the timer of the headers where some are missing, and stop it where none are."""
        if self.conn.their_state is not h11.IDLE:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self.limits.header_seconds, self.transport.close)
