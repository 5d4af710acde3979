"""`esx serve`, and its pages without a browser: what a page does is said to the server by hand."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.cli.support import Running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PATIENCE = 120.0


class Page:
    """A page, and the text that its explorer has sent: what is drawn, with the escape sequences taken out.

    `received` is what came since `shows` was waited for the last time.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.received = ""
        self.everything = ""

    async def press(self, keys: str) -> None:
        """Type."""
        await self.socket.send_json(["stdin", keys])

    async def shows(self, text: str, *, press: str = "") -> None:
        """Wait until `text` has been drawn, and type then."""
        async with asyncio.timeout(_PATIENCE):
            while text not in self.received:
                # What is closed answers at once for ever, and the time would never be up.
                assert await self.receive(), f"the page was closed; it showed {self.received[-500:]!r}"
        self.received = ""
        if press:
            await self.press(press)

    async def answers(self) -> None:
        """Wait until the server has taken what was sent before."""
        await self.socket.send_json(["ping", "all before"])
        async with asyncio.timeout(_PATIENCE):
            while (await self.socket.receive()).data != '["pong", "all before"]':
                assert not self.socket.closed

    async def receive(self) -> bool:
        """Take what comes next; return whether there was anything before the end."""
        message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            text = message.data.decode("utf-8", "replace")
            drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
            self.received += drawn
            self.everything += drawn
        return message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT)

    async def draws(self, seconds: float = 1.0) -> str:
        """Return what is drawn until nothing has come for so long; fail if it never stops."""
        deadline = time.monotonic() + _PATIENCE
        with contextlib.suppress(TimeoutError):
            while await asyncio.wait_for(self.receive(), seconds):
                assert time.monotonic() < deadline, f"it draws all the time: {self.everything[-500:]!r}"
        return self.received

    async def until_closed(self) -> int | None:
        """Wait until the server closes the page, and return the code that it does so with."""
        async with asyncio.timeout(_PATIENCE):
            while await self.receive():
                pass
        return self.socket.close_code


class Address:
    """The address that was printed."""

    def __init__(self, first: str) -> None:
        self.first = first
        self.bare, _, self.token = first.partition("?token=")

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Give a client that has the cookie."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            async with client.get(self.first) as page:
                assert page.status == 200, await page.text()
            yield client

    @contextlib.asynccontextmanager
    async def page(self, query: str = "width=120&height=40", **options: Any) -> AsyncIterator[Page]:
        """Open a page."""
        async with self.client() as client, client.ws_connect(f"{self.bare}ws?{query}", **options) as socket:
            yield Page(socket)


@contextlib.asynccontextmanager
async def serve(*arguments: str, **extra: str) -> AsyncIterator[tuple[Running, Address]]:
    """Run `esx serve` on any free port."""
    running = await Running.start("serve", "--port", "0", *arguments, **extra)
    try:
        said = ""
        while not (match := re.search(r"the explorer is at (http://\S+)", said)):
            line = await running.narration()
            assert line, said
            said += line
        yield running, Address(match[1])
    finally:
        if running.process.returncode is None:
            await running.end(signal.SIGKILL)
