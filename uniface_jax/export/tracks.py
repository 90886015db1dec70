"""Tracks of the MFR-ongoing server, with their limits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Track:
    """A track's limits: features at most so long, and a time per image on the server's GPU."""

    features: int
    milliseconds: int


TRACKS = {
    "cfat": Track(512, 15),
    "ms1m": Track(512, 10),
    "glint": Track(1024, 20),
    "unconstrained": Track(1024, 30),
}
