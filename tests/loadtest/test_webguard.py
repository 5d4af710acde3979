"""Who may ask a web server of ours, request by request."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from esx.web.guard import Asked, BadToken, Guard, Refused, Welcomed, is_loopback, names_of, token_of

TOKEN = "t0ken-of-this-server"
GUARD = Guard("127.0.0.1", TOKEN, cookie="esx_8000")
PROXIED = Guard("127.0.0.1", TOKEN, cookie="esx_8000", public=["esx.example.com", "other.example.com:8443"])
ENTERED = Asked("GET", "127.0.0.1:8000", "/", {}, {"esx_8000": TOKEN})


def status(guard: Guard, asked: Asked) -> int | None:
    verdict = guard.judge(asked)
    return verdict.status if isinstance(verdict, Refused) else None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_nobody_gets_in_without_the_token(method: str) -> None:
    asked = replace(ENTERED, method=method)
    assert GUARD.judge(asked) is None
    for cookies in ({}, {"esx_8000": ""}, {"esx_8000": TOKEN[:-1]}, {"esx_8000": "é"}, {"esx_8001": TOKEN}):
        assert status(GUARD, replace(asked, cookies=cookies)) == 403
    for header in (TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer x"):
        assert status(GUARD, replace(asked, cookies={}, authorization=header)) == 403
    assert GUARD.judge(replace(asked, cookies={}, authorization=f"Bearer {TOKEN}")) is None


def test_the_token_goes_from_the_address_to_a_cookie() -> None:
    first = replace(ENTERED, cookies={}, path="/stats", query={"a": "1&2", "token": TOKEN})
    assert GUARD.judge(first) == Welcomed("esx_8000", TOKEN, "/stats?a=1%262")
    assert GUARD.judge(replace(first, path="//evil.example/", query={"token": TOKEN})) == Welcomed(
        "esx_8000", TOKEN, "/evil.example/"
    )
    assert status(GUARD, replace(first, query={"token": "wrong"})) == 403
    assert status(GUARD, replace(first, method="POST")) == 403, "what changes something is not asked for by an address"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example:8000", "localhost.evil.example", "", "0.0.0.0"],
)
def test_it_answers_to_its_own_names_only(host: str) -> None:
    assert status(GUARD, replace(ENTERED, host=host)) == 403
    assert status(GUARD, replace(ENTERED, host=host, cookies={}, query={"token": TOKEN})) == 403


@pytest.mark.parametrize("host", ["localhost:8000", "LOCALHOST:9", "127.0.0.1", "[::1]:8000"])
def test_a_tunnel_may_end_at_another_port(host: str) -> None:
    assert GUARD.judge(replace(ENTERED, host=host)) is None


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_other_sites_may_not_ask(method: str) -> None:
    asked = replace(ENTERED, method=method)
    for other in ("cross-site", "same-site"):
        assert status(GUARD, replace(asked, site=other)) == 403
    for origin in ("http://evil.example", "null", "http://127.0.0.1:3000", "http://127.0.0.1", "http://[", "file://"):
        assert status(GUARD, replace(asked, origin=origin)) == 403
    for site in ("same-origin", "none", None):
        assert GUARD.judge(replace(asked, site=site, origin="http://127.0.0.1:8000")) is None


def test_a_proxy_has_names_of_its_own() -> None:
    for host, origin in (
        ("esx.example.com", "https://esx.example.com"),
        ("127.0.0.1:8000", "https://esx.example.com"),
        ("127.0.0.1:8000", "https://other.example.com:8443"),
    ):
        assert PROXIED.judge(replace(ENTERED, host=host, origin=origin)) is None
        assert status(GUARD, replace(ENTERED, host=host, origin=origin)) == 403
    assert status(PROXIED, replace(ENTERED, origin="https://other.example.com")) == 403


def test_beyond_loopback_it_is_called_by_the_addresses_of_this_machine() -> None:
    everywhere = names_of("0.0.0.0")
    assert {"localhost", "127.0.0.1", socket.gethostname().lower()} <= everywhere
    assert not {"0.0.0.0", "evil.example", ""} & everywhere
    assert names_of("192.0.2.7") == {"192.0.2.7"}
    assert "[::1]" in names_of("localhost")
    assert [is_loopback(host) for host in ("127.0.0.9", "::1", "localhost", "0.0.0.0", "", "esx")] == [
        *[True] * 3,
        *[False] * 3,
    ]


def test_a_token_is_new_each_time_or_ones_own() -> None:
    assert len(token_of({})) >= 32
    assert token_of({}) != token_of({})
    assert token_of({"ESX_WEB_TOKEN": TOKEN}) == TOKEN
    for bad in ("short", "with space and more", "with&and=and?and#", "é" * 20):
        with pytest.raises(BadToken, match="ESX_WEB_TOKEN"):
            token_of({"ESX_WEB_TOKEN": bad})
