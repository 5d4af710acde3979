"""The explorer in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest

from esx.cli.explore import make_explorer
from esx.database_choice import Database
from esx.eventstore import EventStore
from esx.fold.reducer import MERGE
from esx.load.errors import LoadFailed
from esx.load.model import LoadOptions
from esx.model import NewEvent
from tests.cli.support import esx, one_line_error
from tests.support.browser import browser, needs_browser, until
from tests.support.pages import serve

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def explorers(process: psutil.Process) -> list[psutil.Process]:
    """Return the explorers that serve pages."""
    found = []
    for child in process.children(recursive=True):
        # One may end while it is looked at.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "esx" in child.cmdline():
                found.append(child)
    return found


def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@needs_browser
async def test_the_explorer_in_a_browser(dsn18: str, store18: EventStore) -> None:
    await store18.append("stream-in-a-browser", [NewEvent("Shown")])
    async with serve("-d", f"{dsn18}&password=hunter2") as (running, url), browser() as chromium:
        assert url.first.startswith("http://127.0.0.1:")
        process = psutil.Process(running.process.pid)
        page = await chromium.open(url.first)
        await until(lambda: "stream-in-a-browser" in page.received, "the stream")
        assert await page.evaluate("document.body.classList.contains('-first-byte')")
        # The token is neither in the address any more nor for scripts to read.
        assert await page.evaluate("location.href") == url.bare
        assert url.token not in await page.evaluate("document.cookie + document.documentElement.outerHTML")
        before = await page.picture()
        [child] = explorers(process)
        assert "hunter2" not in " ".join(child.cmdline())
        await page.click(20, 10)
        await page.press("2")
        await until(lambda: "safe position" in page.received, "the screen Feed")
        assert await page.picture() != before
        # A page that is closed takes its explorer with it.
        await page.close()
        await until(lambda: not explorers(process), "the explorer to end")
        second = await chromium.open(url.bare)
        await until(lambda: "stream-in-a-browser" in second.received, "the stream")
        [child] = explorers(process)
        assert await running.end(signal.SIGINT) == 130
        await until(lambda: has_ended(child), "the explorer to end with the server")


async def test_only_a_browser_that_has_its_address_may_use_it(dsn18: str) -> None:
    async with serve("-d", dsn18) as (running, url), aiohttp.ClientSession() as stranger:
        for path in ("", "ws", "download/x", "static/js/textual.js", "nothing", "?token=wrong"):
            async with stranger.get(f"{url.bare}{path}") as page:
                assert page.status == 403, path
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await stranger.ws_connect(f"{url.bare}ws")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await stranger.ws_connect(f"{url.bare}ws?token={url.token}")  # a page's websocket has the cookie
        async with stranger.get(url.first, allow_redirects=False) as page:
            assert (page.status, page.headers["Location"]) == (303, "/")
            assert page.headers["Referrer-Policy"] == "no-referrer"
            assert {"HttpOnly", "SameSite=Strict"} <= set(page.headers["Set-Cookie"].split("; "))
        async with url.client() as client:
            async with client.get(url.bare) as page:
                assert page.status == 200
                assert "default-src 'self'" in page.headers["Content-Security-Policy"]
                assert page.headers["Cache-Control"] == "no-store"
                assert url.token not in await page.text()
            for headers in (
                {"Origin": "http://evil.example"},
                {"Origin": "http://127.0.0.1:1"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
                {"Host": "evil.example"},
            ):
                async with client.get(url.bare, headers=headers) as page:
                    assert page.status == 403
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await client.ws_connect(f"{url.bare}ws", headers=headers)
        assert not explorers(psutil.Process(running.process.pid))
        port = url.bare.rsplit(":", 1)[1].strip("/")
        assert "another --port" in one_line_error(esx("serve", "--port", port, "-d", dsn18), 1)
        assert await running.end(signal.SIGTERM) == 143


def test_other_machines_are_let_in_only_on_request() -> None:
    line = one_line_error(esx("serve", "--host", "0.0.0.0", "-d", "postgresql://127.0.0.1:1/x"), 2)
    assert "--allow-remote" in line
    assert "token" in line
    assert "ESX_WEB_TOKEN" in one_line_error(esx("serve", ESX_WEB_TOKEN="short"), 2)


async def test_beyond_loopback_token_and_host_are_asked_for_too(dsn18: str) -> None:
    own = "a-token-of-ones-own"
    remote = ("-d", dsn18, "--host", "0.0.0.0", "--allow-remote", "--public-name", "esx.example.com")
    async with serve(*remote, ESX_WEB_TOKEN=own) as (running, url):
        assert f"https://esx.example.com/?token={own}" in await running.narration()
        here = url.bare
        port = here.rsplit(":", 1)[1].strip("/")
        assert url.first == f"http://127.0.0.1:{port}/?token={own}"
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            async with client.get(here) as page:
                assert page.status == 403
            async with client.get(f"{here}?token={own}") as page:
                assert page.status == 200
            proxied = {"Cookie": f"esx_{port}={own}", "X-Forwarded-Proto": "https", "Origin": "https://esx.example.com"}
            for host, status in (
                ("evil.example", 403),
                (f"0.0.0.0:{port}", 403),
                ("esx.example.com", 200),
                (f"localhost:{port}", 200),
            ):
                async with client.get(here, headers={"Host": host, **proxied}) as page:
                    assert page.status == status
                    assert ("wss://" in await page.text()) == (status == 200)


async def test_an_explorer_of_any_size_that_a_page_asks_for_is_bounded(dsn18: str) -> None:
    async with serve("-d", dsn18) as (running, url):
        async with url.page("width=100000&height=100000") as page:
            assert await page.receive()
            await page.socket.send_json(["resize", {"width": 10**30, "height": 10**30}])
            await page.draws()
            [child] = explorers(psutil.Process(running.process.pid))
            assert child.memory_info().rss < 400 * 2**20
        await until(lambda: not explorers(psutil.Process(running.process.pid)), "the explorer to end")


async def test_no_more_pages_than_allowed_and_others_after_those_that_were_closed(dsn18: str) -> None:
    async with serve("-d", dsn18, "--max-sessions", "1") as (running, url), url.client() as client:
        async with url.page() as first:
            await first.socket.send_str('["stdin", "\\ud800"]')
            await first.shows("esx")
            async with client.get(url.bare) as page:
                assert (page.status, page.content_type) == (503, "text/plain")
                assert "--max-sessions" in await page.text()
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await client.ws_connect(f"{url.bare}ws")
            assert len(explorers(psutil.Process(running.process.pid))) == 1
            await first.socket.send_str("not JSON")
            assert await first.until_closed() == 1008
        await until(lambda: not explorers(psutil.Process(running.process.pid)), "the explorer to end")
        async with asyncio.timeout(60):  # the server counts it a moment longer
            while (await client.get(url.bare)).status != 200:
                await asyncio.sleep(0.02)
        async with url.page() as second:
            await second.shows("esx")


async def test_a_page_without_input_ends_and_one_that_is_used_does_not(dsn18: str) -> None:
    async with serve("-d", dsn18, "--idle-timeout", "3") as (running, url), url.page() as page:
        for _ in range(10):
            await page.press("j")
            await page.draws(0.5)
        assert not page.socket.closed
        assert await page.until_closed() == 1001
        assert "--idle-timeout" in await running.narration()
        await until(lambda: not explorers(psutil.Process(running.process.pid)), "the explorer to end")


async def test_an_explorer_that_takes_too_much_memory_ends(dsn18: str) -> None:
    async with serve("-d", dsn18, "--max-memory", "50") as (running, url), url.page("width=500&height=200") as page:
        assert await page.until_closed() == 1001
        assert "--max-memory" in await running.narration()
        await until(lambda: not explorers(psutil.Process(running.process.pid)), "the explorer to end")
        assert running.process.returncode is None


async def test_a_page_that_is_closed_early_leaves_nothing(dsn18: str) -> None:
    async with serve("-d", dsn18) as (running, url):
        process = psutil.Process(running.process.pid)
        for seconds, abruptly in ((0.0, False), (0.4, True), (1.0, False)):
            async with url.page("width=500&height=200") as page:
                await asyncio.sleep(seconds)
                if abruptly:
                    page.socket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            await until(lambda: not process.children(), "the explorer to end")
        before = process.cpu_times()
        await asyncio.sleep(1)
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.3, "nothing spins"
        async with url.page():
            await asyncio.sleep(0.4)
            children = process.children()
            assert await running.end(signal.SIGTERM) == 143
            await until(lambda: all(map(has_ended, children)), "the explorer to end with the server")


async def test_a_stopped_explorer_is_ended_all_the_same(dsn18: str) -> None:
    """One that cannot even take a signal."""
    async with serve("-d", dsn18) as (running, url), url.page() as page:
        await page.shows("esx")
        [child] = explorers(psutil.Process(running.process.pid))
        child.suspend()
        await page.socket.close()
        await until(lambda: has_ended(child), "the explorer to end")


_CONFIG = """
reducer = "written_by_visitors:fold"
decoder = "written_by_visitors:fold"

[connections.shown]
dsn = "{dsn}"
read_only = false

[connections.other]
dsn = "{dsn}"
"""


@pytest.fixture
def config(dsn18: str, tmp_path: Path) -> dict[str, str]:
    """A config file whose connection may write, whose reducer and decoder leave a trace when they are loaded."""
    trace = tmp_path / "trace"
    (tmp_path / "written_by_visitors.py").write_text(
        f"open({str(trace)!r}, 'w').close()\ndef fold(state, event):\n    return event.event_type\n"
    )
    (tmp_path / "config.toml").write_text(_CONFIG.format(dsn=dsn18))
    return {"ESX_CONFIG": str(tmp_path / "config.toml"), "PYTHONPATH": str(tmp_path), "ESX_DATA_DIR": str(tmp_path)}


async def test_a_page_reads_and_nothing_else(config: dict[str, str], store18: EventStore, tmp_path: Path) -> None:
    """All keys, in any order: nothing is written, no file is made, nothing else is shown."""
    await store18.append("account-1", [NewEvent("Opened")])
    async with serve("-d", "shown", **config) as (running, url), url.page("width=160&height=40") as page:
        await page.shows("account-1", press="3")
        await page.shows("esx serve --allow-load")
        [explorer] = explorers(psutil.Process(running.process.pid))
        files = set(tmp_path.rglob("*"))
        for keys in (
            "s",
            "\x13",
            "e",
            "1",
            "e",
            "\r",
            "\x0f",
            "\r",
            "\x1a",
            "\x10export\r",
            "\x1b",
            "\x10screen\r",
            "\x1b",
        ):
            await page.press(keys)
            await page.draws(0.3)
        await page.press("1")
        await page.draws(0.3)
        await page.press("ll")
        await page.draws(0.3)
        await page.press("v")
        await page.shows("JSON merge")
        assert not explorer.children(recursive=True)
        assert set(tmp_path.rglob("*")) == files
        assert not (tmp_path / "trace").exists()
        assert "other connections" not in page.everything
        assert "export what is shown" not in page.everything
    assert await store18.count_events("load-") == 0


async def test_what_is_switched_on_can_be_done_and_nothing_else(
    config: dict[str, str], store18: EventStore, tmp_path: Path
) -> None:
    await store18.append("account-1", [NewEvent("Opened", metadata={"seen": "in the event alone"})])
    for options, shown in (
        (
            ["--allow-export", "--allow-connections", "--allow-load"],
            {"e": "handed to your browser", "\x0f": "other", "3": "writes events to"},
        ),
        (["--allow-reducer"], {"llv": "written_by_visitors"}),
    ):
        async with serve("-d", "shown", *options, **config) as (running, url), url.page("width=160&height=40") as page:
            await page.shows("account-1")
            [explorer] = explorers(psutil.Process(running.process.pid))
            permitted = {f"--allow-{each}" for each in explorer.environ()["ESX_SERVED"].split(",")}
            assert permitted == set(options)
            while "in the event alone" not in page.everything:  # some keys need the event that is shown
                assert await page.receive()
            for keys, text in shown.items():
                await page.press(keys)
                await page.shows(text)
                await page.press("\x1b")
                await page.draws(0.3)
            assert (tmp_path / "trace").exists() == ("--allow-reducer" in options)


async def test_a_page_cannot_confirm_what_a_load_test_may_write_to(dsn18: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESX_SERVED", "load")
    try:
        explorer = make_explorer(Database(dsn18, "ESX_DSN", "a database", embedded=False), MERGE)
    finally:
        gc.enable()  # as the explorer does once it has begun
    assert explorer._run_load is not None
    with pytest.raises(LoadFailed, match="cannot confirm"):
        explorer._run_load(dsn18, LoadOptions(yes_write_to="x/y"))


def test_an_explorer_that_fails_says_so_by_its_exit_code(dsn18: str) -> None:
    """The server then tells why the page was ended."""
    code = (
        "from esx.tui.app import Explorer\nExplorer.compose = lambda self: 1 / 0\nfrom esx.cli.main import main\nmain()"
    )
    environ = {**os.environ, "ESX_DSN": dsn18, "TEXTUAL_DRIVER": "esx.tui.webdriver:BrowserDriver"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert b"ZeroDivisionError" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a browser is not opened by xdg-open")
async def test_open_opens_the_address_with_the_token(dsn18: str, tmp_path: Path) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    async with serve("-d", dsn18, "--open", PATH=f"{tmp_path}:{os.environ['PATH']}") as (_running, url):
        await until((tmp_path / "opened").exists, "the browser")
        await until(lambda: (tmp_path / "opened").read_text() == f"{url.first}\n", "the address")
