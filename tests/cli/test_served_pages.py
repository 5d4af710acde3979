"""The server of `esx serve` and its bounds, with something short in place of the explorers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from esx.web import server
from tests.support.browser import until
from tests.support.pages import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow

_TELLING = """
import os, sys
told = f"{os.environ['COLUMNS']} {os.environ['ROWS']}\\n".encode()
while b'"quit"' not in told:
    told += sys.stdin.buffer.read1()
open(sys.argv[1] + "~", "wb").write(told)
os.rename(sys.argv[1] + "~", sys.argv[1])  # it is there as a whole or not at all
"""
"""What runs in place of an explorer: it writes down its first size, and what it is told until it is to quit."""


@contextlib.asynccontextmanager
async def serving(told: Path, bounds: server.Bounds) -> AsyncIterator[Address]:
    """Run a server whose explorers write down in that file what they are told."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        server.serve(
            [sys.executable, "-c", _TELLING, str(told)],
            os.environ,
            host="127.0.0.1",
            port=0,
            token="only-for-this-test",
            bounds=bounds,
            started=address.set_result,
            told=print,
        )
    )
    try:
        yield Address(await asyncio.wait_for(address, 60))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_size_of_a_page_is_bounded(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with serving(told, server.Bounds()) as url:
        for query, first, (width, height), then in (
            ("width=100000&height=100000", b"500 200", (10**30, 10**30), (500, 200)),
            ("width=-1&height=-1", b"1 1", (100_000, 100_000), (500, 200)),
            ("width=x&height=1e9", b"80 24", (-1, 0), (1, 1)),
            (f"width={'9' * 4000}", b"500 24", (300, 100), (300, 100)),
        ):
            async with url.page(query) as page:
                await page.socket.send_json(["resize", {"width": width, "height": height}])
                await page.answers()
            await until(told.exists, "the end of what runs in place of the explorer")
            size, _, messages = told.read_bytes().partition(b"\n")
            assert size == first, query
            assert re.findall(rb'"(?:width|height)": ?(-?\d+)', messages) == [b"%d" % each for each in then], query
            told.unlink()


NONSENSE = [
    ("not JSON", 1008),
    ("[" * 100_000, 1008),
    ('["resize", {"width": "wide"}]', 1008),
    ('["stdin", 7]', 1008),
    ('{"stdin": ""}', 1008),
    ('["stdin", "' + "x" * 300_000 + '"]', 1009),
]


async def test_a_page_that_sends_nonsense_is_closed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with serving(told, server.Bounds()) as url:
        for said, code in NONSENSE:
            async with url.page() as page:
                await page.socket.send_str('["stdin", "\\ud800"]')
                await page.answers()
                await page.socket.send_str(said)
                assert await page.until_closed() == code, said[:40]
            await until(told.exists, "the end of what runs in place of the explorer")
            told.unlink()


async def test_two_pages_are_open_and_a_third_is_refused(tmp_path: Path) -> None:
    bounds = server.Bounds(sessions=2)
    async with (
        serving(tmp_path / "told", bounds) as url, url.client() as client, url.page() as one, url.page() as other
    ):  # fmt: skip
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await client.ws_connect(f"{url.bare}ws")
        async with client.get(url.bare) as refused:
            assert "2 pages are open" in await refused.text()
        for page in (one, other):
            await page.answers()


async def test_pages_cannot_be_opened_as_fast_as_one_likes(tmp_path: Path) -> None:
    bounds = server.Bounds(sessions=100, starts=4)
    async with serving(tmp_path / "told", bounds) as url, url.client() as client:
        opened = []
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            for _ in range(10):
                opened.append(await client.ws_connect(f"{url.bare}ws"))
                await opened[-1].close()
        assert len(opened) == bounds.starts < server.Bounds().starts
        async with client.get(url.bare) as page:
            assert "4 pages were opened within 60 s: try again in a minute" in await page.text()
