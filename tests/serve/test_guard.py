"""The wall: what is refused before it is read, and what is on every answer."""

import asyncio

import pytest
from fastapi import APIRouter

from tests.helpers.serving import ANYBODY, OWN, asked, face, posted, service
from uniface_jax.serve.access import Access
from uniface_jax.serve.limits import Limits

TOKEN = "0123456789abcdef"


def got(model, path="/health", access=ANYBODY, **headers):
    return asked(
        service(model),
        lambda client: client.get(
            path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        ),
        access,
    )


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LocalHost:1", "[::1]:80"])
def test_own_hosts_are_answered(model, host):
    assert got(model, host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost:x", "", "a b"]
)
def test_other_hosts_are_not(model, host):
    assert got(model, host=host).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_pages_of_other_origins_are_not_answered(model, headers):
    assert got(model, **headers).json()["reason"] == "origin"


def test_its_own_pages_are(model):
    assert got(model, origin=OWN, sec_fetch_site="same-origin").status_code == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        ("Bearer no", 401),
        (TOKEN, 401),
        ("", 401),
    ],
)
def test_the_token_is_asked_for(model, given, status):
    answer = got(model, "/model", Access(token=TOKEN), authorization=given)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_health_needs_no_token(model):
    assert got(model, access=Access(token=TOKEN)).status_code == 200


def test_more_requests_than_the_rate_are_refused(model):
    async def scenario(client):
        return [await client.get("/health") for _ in range(4)]

    answers = asked(service(model), scenario, Access(rate=1.0))
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[-1].headers["retry-after"] == "1"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_long_is_refused(model, chunked):
    async def chunks():
        yield b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 100

    body = chunks() if chunked else b"x" * 3000
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = asked(
        service(model, limits=Limits(body_bytes=2000)),
        lambda client: client.post("/embed", content=body, headers=kind),
    )
    assert (answer.status_code, answer.json()["reason"]) == (413, "body")


def test_bytes_of_all_requests_are_bounded(model):
    limits = Limits(body_bytes=60_000, held_bytes=100_000)
    answers = []

    async def scenario(client):
        ask = [client.post("/embed", files={"images": face(i)}) for i in range(8)]
        answers.extend(await asyncio.gather(*ask))

    asked(service(model, limits=limits), scenario)
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}  # 38 kB each
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["reason"] == "full"
    assert refused.headers["retry-after"] == "1"


def test_promises_alone_keep_nobody_out(model):
    limits = Limits(body_bytes=60_000, held_bytes=60_000, seconds=2)
    kind = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "60000"}

    async def never():
        await asyncio.sleep(1)
        yield b"x"

    async def scenario(client):
        slow = [
            asyncio.create_task(client.post("/embed", content=never(), headers=kind))
            for _ in range(5)
        ]
        await asyncio.sleep(0.1)
        answer = await client.post("/embed", files={"images": face(0)})
        await asyncio.gather(*slow)
        return answer

    assert asked(service(model, limits=limits), scenario).status_code == 200


def test_a_body_that_does_not_come_is_refused(model):
    async def body():
        yield b"--b\r\n"
        await asyncio.sleep(30)

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = asked(
        service(model, limits=Limits(seconds=0.1)),
        lambda client: client.post("/embed", content=body(), headers=kind),
    )
    assert (answer.status_code, answer.json()["reason"]) == (408, "late")


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "multipart/form-data",
        "text/plain; boundary=b",
        "multipart/form-data; boundary=b; charset=idna",
    ],
)
def test_what_is_no_form_is_refused(model, kind):
    answer = posted(service(model), "/embed", None, content=b"{}", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["reason"]) == (415, "no_form")


def test_a_fault_of_a_route_is_one_line_without_a_trace(model, caplog):
    router = APIRouter()

    @router.get("/fault")
    async def fault() -> None:
        raise ZeroDivisionError("secret")

    answer = asked(service(model), lambda client: client.get("/fault"), routers=[router])
    assert (answer.status_code, answer.json()["reason"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_headers_of_security_are_on_every_answer(model):
    for path in ("/health", "/nothing"):
        found = got(model, path).headers
        assert found["content-security-policy"].startswith("default-src 'none'")
        assert found["cache-control"] == "no-store"
        assert found["x-frame-options"] == "DENY"
