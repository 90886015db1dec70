"""Bounds within which requests are answered; beyond them they are refused at once."""

from dataclasses import dataclass

KEEP_ALIVE_SECONDS = 20.0  # longer than clients keep theirs, lest one asks on a closed connection
LINGER_SECONDS = 2.0  # for a refused body to arrive, so that its sender reads the refusal
RETRY_SECONDS, MAX_RETRY_SECONDS = 1, 30  # what Retry-After says
MAX_HEADER_BYTES = 1 << 14  # of one request, all together
MAX_FIELDS, MAX_FIELD_BYTES = 8, 256  # of a form, beside its photographs


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    body_bytes: of one request. held_bytes: of all requests in progress. photographs, pixels, faces:
    of one request, of one photograph, and found in one photograph. queue: photographs that wait or
    are worked on. batch: faces the network takes at a time. seconds: from the first byte of a
    request's body to its answer. header_seconds: until a request's headers are there. connections:
    open ones. rate: requests a second of one address, 0 for any number; twice as many at once.
    """

    body_bytes: int = 16 << 20
    held_bytes: int = 256 << 20
    photographs: int = 16
    pixels: int = 1 << 24
    faces: int = 32
    queue: int = 64
    batch: int = 16
    seconds: float = 30.0
    header_seconds: float = 10.0
    connections: int = 512
    rate: float = 50.0
