"""Who may use esx's web servers: a browser that was given the address with the token, and uses the server's own name.

Every request must fulfil three conditions. Its Host is a name of this server: with another name that leads here, a
foreign page would count as one of this server (DNS rebinding). It does not come from a page of another site. And it has
the token, first in the address, as with Jupyter, and then in a cookie that no script and no other site can use.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import psutil

from esx.errors import EsxError

VARIABLE = "ESX_WEB_TOKEN"
"""The environment variable with a token to use instead of a new one."""
HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""For every response: an address may hold the token, and pages hold private data."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
EVERYWHERE = frozenset({"", "*", "0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on
"""Addresses to listen on that mean all addresses of the machine."""
_READING = frozenset({"GET", "HEAD"})
_SHORTEST = 16


class BadToken(EsxError):
    """The given token is not safe, or cannot be part of an address."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What counts of a request. `origin`, `site` and `authorization` are headers."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    origin: str | None = None
    site: str | None = None
    authorization: str | None = None

    @classmethod
    def by(cls, request: Any, host: str, query: Mapping[str, str]) -> Self:
        """Return what counts of a request of aiohttp or Flask."""
        headers = [request.headers.get(name) for name in ("Origin", "Sec-Fetch-Site", "Authorization")]
        return cls(request.method, host, request.path, query, request.cookies, *headers)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is refused."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Welcomed:
    """A request with the token in its address: the cookie for later ones, and the location without the token."""

    cookie: str
    token: str
    location: str


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """Return an address as written in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def address_of(host: str, port: int) -> str:
    """Return the address at which a browser on this machine reaches a server that listens on `host`."""
    return f"{'127.0.0.1' if host in EVERYWHERE else bracketed(host)}:{port}"


def names_of(host: str, public: Iterable[str] = ()) -> frozenset[str]:
    """Return the names that browsers may use for a server that listens on `host`; `public` are those of a proxy."""
    names = set(map(_name, public)) - {""}
    if host not in EVERYWHERE:
        names.add(bracketed(host).lower())
    if is_loopback(host) or host in EVERYWHERE:
        names |= _LOOPBACK
    if host in EVERYWHERE:
        names.add(socket.gethostname().lower())
        for addresses in psutil.net_if_addrs().values():
            names |= {
                bracketed(each.address.partition("%")[0])
                for each in addresses
                if each.family in (socket.AF_INET, socket.AF_INET6)
            }
    return frozenset(names)


def token_of(environ: Mapping[str, str]) -> str:
    """Return the token in `environ`, or a new one. Raises BadToken."""
    token = environ.get(VARIABLE, "")
    if not token:
        return secrets.token_urlsafe(24)
    if not re.fullmatch(r"[A-Za-z0-9_.~-]+", token) or len(token) < _SHORTEST:
        raise BadToken(f"{VARIABLE} must be {_SHORTEST} or more letters, digits, and _ . ~ -: change it, or unset it")
    return token


class Guard:
    """Judges requests to a server on `host`. `public` are the names of a proxy, with unusual ports.

    All ports of a host share cookies, so `cookie` should name the port.
    """

    def __init__(self, host: str, token: str, *, cookie: str, public: Iterable[str] = ()) -> None:
        self.token = token
        self.cookie = cookie
        self._public = frozenset(name.lower() for name in public)
        self._names = names_of(host, self._public)

    def judge(self, asked: Asked) -> Refused | Welcomed | None:
        """Return None for a request that is allowed."""
        if _name(asked.host) not in self._names:
            return Refused(403, "This server is not called that: open the address that it printed.\n")
        if asked.site not in (None, "same-origin", "none") or not self._is_own(asked.origin, asked.host):
            return Refused(403, "Another site's page may not use this: paste the address into the browser.\n")
        given = asked.query.get("token")
        if given is not None and asked.method in _READING and self._is_token(given):
            rest = urlencode([(key, value) for key, value in asked.query.items() if key != "token"])
            path = "/" + asked.path.lstrip("/\\")
            return Welcomed(self.cookie, self.token, f"{path}?{rest}" if rest else path)
        scheme, _, bearer = (asked.authorization or "").partition(" ")
        if self._is_token(asked.cookies.get(self.cookie)) or (scheme.lower() == "bearer" and self._is_token(bearer)):
            return None
        return Refused(403, "This needs the token: open the address that was printed, with all of ?token=...\n")

    def _is_token(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _is_own(self, origin: str | None, host: str) -> bool:
        """Return whether a page of this server asks; without an origin, it is not a page's script or form."""
        if origin is None:
            return True
        try:
            place = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        # A proxy may use another name than its page has.
        return bool(place) and (place == host.lower() or place in self._public)


def _name(authority: str) -> str:
    return re.sub(r":\d*$", "", authority).lower()
