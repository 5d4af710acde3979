"""The explorer in a real browser."""

from __future__ import annotations

import contextlib
import re
import signal
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest

from esx.store import EventStore, NewEvent
from tests.browser import PROGRAM, browser, until
from tests.cli.support import Running, esx, one_line_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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


@contextlib.asynccontextmanager
async def serve(*arguments: str) -> AsyncIterator[tuple[Running, str]]:
    running = await Running.start("serve", "--port", "0", *arguments)
    try:
        match = re.search(r"http://\S+/", await running.narration())
        assert match is not None
        yield running, match[0]
    finally:
        if running.process.returncode is None:
            await running.end(signal.SIGKILL)


@pytest.mark.skipif(PROGRAM is None, reason="there is no chromium: apt-get install chromium")
async def test_the_explorer_in_a_browser(dsn18: str, store18: EventStore) -> None:
    await store18.append("stream-in-a-browser", [NewEvent("Shown")])
    async with serve("-d", f"{dsn18}&password=hunter2") as (running, url), browser() as chromium:
        assert url.startswith("http://127.0.0.1:")
        server = psutil.Process(running.process.pid)
        page = await chromium.open(url)
        await until(lambda: "stream-in-a-browser" in page.received, "the stream")
        assert await page.evaluate("document.body.classList.contains('-first-byte')")
        before = await page.picture()
        [child] = explorers(server)
        assert "hunter2" not in " ".join(child.cmdline())
        await page.click(20, 10)
        await page.press("2")
        await until(lambda: "safe position" in page.received, "the screen Feed")
        assert await page.picture() != before
        # A page that is closed takes its explorer with it.
        await page.close()
        await until(lambda: not explorers(server), "the explorer to end")
        second = await chromium.open(url)
        await until(lambda: "stream-in-a-browser" in second.received, "the stream")
        [child] = explorers(server)
        assert await running.end(signal.SIGINT) == 130
        await until(lambda: has_ended(child), "the explorer to end with the server")


async def test_only_pages_of_its_own_address_may_use_it(dsn18: str) -> None:
    async with serve("-d", dsn18) as (running, url), aiohttp.ClientSession() as client:
        async with client.get(url) as page:
            assert page.status == 200
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            async with client.get(url, headers=headers) as page:
                assert page.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await client.ws_connect(f"{url}ws", headers=headers)
        assert not explorers(psutil.Process(running.process.pid))
        port = url.rsplit(":", 1)[1].strip("/")
        assert "another --port" in one_line_error(esx("serve", "--port", port, "-d", dsn18), 1)
        assert await running.end(signal.SIGTERM) == 143


def test_other_machines_are_let_in_only_on_request() -> None:
    line = one_line_error(esx("serve", "--host", "0.0.0.0", "-d", "postgresql://127.0.0.1:1/x"), 2)
    assert "--allow-remote" in line
    assert "without a password" in line
