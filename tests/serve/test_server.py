"""The server on a socket: clients that are slow, silent, greedy or many, and how it ends."""

import asyncio
import contextlib
import json
import time

import pytest
from fastapi import APIRouter
from starlette.responses import Response

from tests.helpers.serving import ANYBODY, face, service
from uniface_jax.serve.app import create_app
from uniface_jax.serve.limits import Limits
from uniface_jax.serve.server import listen, server

HOST = b"Host: localhost\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
LARGE = b"x" * (32 << 20)


def on_a_socket(model, scenario, limits):
    """Return what the coroutine function `scenario` of the server's port returns."""
    router = APIRouter()

    @router.get("/large")
    async def large() -> Response:
        return Response(LARGE)

    async def run():
        app = create_app(service(model, limits=limits), ANYBODY, [router])
        began = asyncio.Event()
        running = server(app, limits, began.set)
        listening = listen("127.0.0.1", 0)
        task = asyncio.create_task(running.serve(sockets=[listening]))
        await began.wait()
        try:
            return await asyncio.wait_for(scenario(listening.getsockname()[1]), 20)
        finally:
            running.should_exit = True
            await task

    return asyncio.run(run())


async def exchange(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts with pauses between, and return all that comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()

    async def receive() -> None:
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(1 << 16):
                received.extend(part)

    reading = asyncio.create_task(receive())
    with contextlib.suppress(ConnectionError):
        for part in parts:
            if reading.done():
                break
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    await reading
    writer.close()
    return bytes(received)


def asked(model, *parts, limits, pause=0.0):
    began = time.monotonic()
    found = on_a_socket(model, lambda port: exchange(port, *parts, pause=pause), limits)
    return found, time.monotonic() - began


def status(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.mark.parametrize("parts", [[b""], [b"GET / HTTP/1.1\r\n"], [b"a"] * 60])
def test_headers_that_do_not_come_end_the_connection(model, parts):
    found, taken = asked(model, *parts, limits=Limits(header_seconds=0.3), pause=0.02)
    assert found == b""
    assert taken < 3


def test_headers_after_an_answer_are_waited_for_as_long(model):
    first = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
    dribble = [b"GET /health HTTP/1.1\r\n", *[b"X"] * 60]
    found, taken = asked(model, first, *dribble, limits=Limits(header_seconds=0.3), pause=0.02)
    assert found.count(b"HTTP/1.1 ") == 1
    assert taken < 3


@pytest.mark.parametrize(
    "headers", [b"X: " + b"x" * (1 << 17) + b"\r\n", b"X: y\r\n" * (1 << 14), b"X" * (1 << 17)]
)
def test_headers_too_long_are_refused(model, headers):
    found, _ = asked(model, b"GET /health HTTP/1.1\r\n" + HOST, headers, b"\r\n", limits=Limits())
    assert found == b"" or status(found) == 400


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: " + b"9" * 30 + b"\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Host: other\r\n",
        b"A\x00b: c\r\n",
    ],
)
def test_requests_of_two_meanings_are_refused(model, headers):
    lines = b"POST /embed HTTP/1.1\r\n" + HOST + FORM + headers + b"\r\n"
    found, _ = asked(model, lines, limits=Limits(seconds=0.5))
    assert status(found) in (400, 413, 501)
    assert found.count(b"HTTP/1.1 ") == 1


def test_a_body_that_dribbles_in_is_refused_in_time(model):
    lines = b"POST /embed HTTP/1.1\r\n" + HOST + FORM + b"Content-Length: 1000\r\n\r\n"
    found, taken = asked(model, lines, PART, *[b"x"] * 100, limits=Limits(seconds=0.3), pause=0.02)
    assert status(found) == 408
    assert taken < 5


def test_a_body_nobody_reads_ends_the_connection(model):
    lines = b"GET /health HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n"
    found, taken = asked(model, lines, *[b"x"] * 50, limits=Limits(), pause=0.02)
    assert status(found) == 200
    assert b"connection: close" in found.lower()
    assert taken < 5


def test_who_sends_too_much_reads_the_refusal(model):
    body = b"x" * 3_000_000
    lines = b"POST /embed HTTP/1.1\r\n" + HOST + FORM
    lines += b"Content-Length: %d\r\n\r\n" % len(body)
    found, _ = asked(model, lines, body, limits=Limits(body_bytes=1_000_000))
    assert status(found) == 413
    assert json.loads(found.partition(b"\r\n\r\n")[2])["reason"] == "body"


def test_who_does_not_read_is_left(model):
    async def scenario(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        writer.write(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        await asyncio.sleep(4)
        received = 0
        try:
            while part := await reader.read(1 << 20):
                received += len(part)
        except ConnectionError:
            pass
        writer.close()
        return received

    assert on_a_socket(model, scenario, Limits(seconds=0.3)) < len(LARGE)


def test_connections_beyond_the_limit_are_told(model):
    async def scenario(port):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in held:
            writer.write(b"POST /embed HTTP/1.1\r\n" + HOST + FORM + b"Content-Length: 9\r\n\r\n")
        await asyncio.sleep(0.1)
        refused = await exchange(port, b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        request = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        return refused, await exchange(port, request)

    refused, answered = on_a_socket(model, scenario, Limits(connections=3))
    assert status(refused) == 503
    assert b"retry-after: 1" in refused.lower()
    assert status(answered) == 200


def test_idle_connections_make_room(model):
    async def scenario(port):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await asyncio.sleep(0.1)
        request = b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        answered = await exchange(port, request)
        first = await asyncio.wait_for(held[0][0].read(), 5)
        for _, writer in held:
            writer.close()
        return answered, first

    answered, first = on_a_socket(model, scenario, Limits(connections=3))
    assert (status(answered), first) == (200, b"")


@pytest.mark.parametrize(
    "body",
    [
        (PART + b"\r\n") * 20_000 + b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 20_000 + b"--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 200_000,
        b"--b\r\n" + b"X" * 1_000_000,
        b'--b\r\nContent-Disposition: form-data; name="' + b"x" * 1_000_000,
        b"\r\n" * 500_000,
    ],
    ids=["files", "fields", "headers", "header", "name", "lines"],
)
def test_forms_of_thousands_of_parts_are_refused_soon(model, body):
    lines = b"POST /embed HTTP/1.1\r\n" + HOST + FORM
    lines += b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    found, taken = asked(model, lines, body, limits=Limits())
    assert status(found) in (400, 413, 422)
    assert taken < 10


def test_a_request_in_progress_is_answered_before_the_end(model):
    async def run():
        app = create_app(service(model), ANYBODY)
        began = asyncio.Event()
        running = server(app, Limits(), began.set)
        listening = listen("127.0.0.1", 0)
        task = asyncio.create_task(running.serve(sockets=[listening]))
        await began.wait()
        port = listening.getsockname()[1]
        body = PART + face(0) + b"\r\n--b--\r\n"
        lines = b"POST /embed HTTP/1.1\r\n" + HOST + FORM
        lines += b"Content-Length: %d\r\n\r\n" % len(body)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(lines + body[:1000])
        await writer.drain()
        await asyncio.sleep(0.1)
        running.handle_exit(15, None)
        await asyncio.sleep(0.3)
        writer.write(body[1000:])
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await asyncio.wait_for(task, 20)
        return answer

    assert status(asyncio.run(run())) == 200
