"""Who may ask: hosts, origins, the token, and how often an address may."""

import hashlib
import hmac
import ipaddress
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniface_jax.errors import UserError
from uniface_jax.files.reading import read_regular
from uniface_jax.serve.problems import Problem

TOKEN_VARIABLE = "UNIFACE_TOKEN"
MIN_TOKEN_LETTERS, _MAX_TOKEN_BYTES = 16, 4096
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_ADDRESSES = 10_000  # whose requests are counted at a time
_NETWORK_BITS = 64  # of an IPv6 address: who has one has all of its network


@dataclass(frozen=True)
class Access:
    """Rules on who may ask.

    hosts: names that the Host header may have, in lower case, with any port. token: None for none.
    open_paths: paths that need no token. rate: see Limits.
    """

    hosts: frozenset[str] = frozenset(LOCAL_HOSTS)
    token: str | None = None
    open_paths: frozenset[str] = frozenset({"/health"})
    rate: float = 0.0

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Raise Problem for a Host that is not one of ours: a page elsewhere, by a rebound name."""
        host = headers.get("host", "")
        found = _HOST.fullmatch(host)
        if found is None or found[1].lower() not in self.hosts:
            raise Problem(421, "host", f"Host {host[:100]!r} is not served here (--hosts)")

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Raise Problem for what a page of another origin asks in somebody's browser."""
        own = headers.get("host", "").lower()
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{own}", f"https://{own}"):
            raise Problem(403, "origin", "pages of another origin are not answered")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Problem(403, "origin", "pages of another site are not answered")

    def check_token(self, path: str, headers: Mapping[str, str]) -> None:
        """Raise Problem unless the token is right, or none is needed."""
        if self.token is None or path in self.open_paths:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(_digest(given), _digest(self.token)):
            raise Problem(401, "token", "expected Authorization: Bearer TOKEN")


class Rates:
    """Buckets of requests by address: `rate` a second flow in, and twice as many find room.

    Args:
        rate: requests a second, 0 for any number.
        clock: seconds, that only grow.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Take one request of an address; Problem where there is none left."""
        if not self._rate:
            return
        address, now = _network(address), self._clock()
        room = max(2 * self._rate, 1.0)
        left, then = self._buckets.pop(address, (room, now))
        left = min(room, left + (now - then) * self._rate)
        allowed = left >= 1
        self._buckets[address] = (left - 1 if allowed else left, now)
        while len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        if not allowed:
            raise Problem(429, "rate", f"more than {self._rate:g} requests a second (--rate)")


def read_token(file: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token in a file, or else in the environment's UNIFACE_TOKEN; None for neither.

    Raises UserError for one that is too short or not one line of visible ASCII, and for a file
    that others may read. The messages do not show it.
    """
    if file is None:
        text, source = environment.get(TOKEN_VARIABLE), TOKEN_VARIABLE
        if text is None:
            return None
    else:
        source = f"--token_file={file}"
        if Path(file).stat().st_mode & 0o077:
            raise UserError(f"{source}: others may read or write it (chmod 600)")
        text = read_regular(Path(file), _MAX_TOKEN_BYTES).decode("latin-1").strip("\r\n")
    if len(text) < MIN_TOKEN_LETTERS or not re.fullmatch(r"[!-~]+", text):
        raise UserError(
            f"{source}: expected a token of {MIN_TOKEN_LETTERS} or more visible ASCII letters in "
            "one line, as `openssl rand -hex 32` gives"
        )
    return text


def hosts_for(address: str, named: Sequence[str], token: str | None) -> frozenset[str]:
    """Return the hosts that a server which listens on `address` answers as.

    named: further ones, of --hosts. Raises UserError for an address beyond this machine without a
    token, and for one of all networks without a name.
    """
    for name in named:
        if _HOST.fullmatch(name) is None or re.search(r":\d+$", name.rpartition("]")[2]):
            raise UserError(f"--hosts={name}: expected names or addresses, without a port")
    if _is_local(address):
        return frozenset(name.lower() for name in (*LOCAL_HOSTS, *named))
    if token is None:
        raise UserError(
            f"--host={address}: others reach it, and a token is missing: --token_file or the "
            f"variable {TOKEN_VARIABLE}"
        )
    own = [] if address in ("0.0.0.0", "::") else [f"[{address}]" if ":" in address else address]
    if not own and not named:
        raise UserError(
            f"--host={address}: --hosts is missing, the names by which this machine is reached"
        )
    return frozenset(name.lower() for name in (*own, *named, *LOCAL_HOSTS))


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _digest(text: str) -> bytes:
    """Return a digest, so that comparing takes the same time for every length."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(ipaddress.ip_network((int(found), _NETWORK_BITS), strict=False))
