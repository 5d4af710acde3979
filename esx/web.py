"""The explorer in a browser: textual-serve with a guard in front of it.

Each page that is opened runs an explorer of its own, as a child process. textual-serve asks no one who they are, so the
guard lets in only pages of this server: another site that the browser happens to show could otherwise open the
websocket and press keys in it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server

from esx.store.errors import EsxError
from esx.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 1.0
"""Seconds that pages have to close by themselves at the end."""
# No fonts and scripts from elsewhere: a tool for private data should tell nobody that it is used.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self' ws: wss:; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ServeFailed(EsxError):
    """The server could not start. The message is one line with the remedy."""


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def serve(command: str, *, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve the program that the shell runs as `command` until cancelled; port 0 means any that is free.

    `started` is told the address. Raises ServeFailed.
    """
    logging.getLogger("textual-serve").setLevel(logging.CRITICAL)
    server = _Server(command, host=host, port=port, title="esx")
    runner = web.AppRunner(await server._make_app(), access_log=None, shutdown_timeout=_PATIENCE)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            raise ServeFailed(
                f"cannot listen on {visible(host)} port {port}: {visible(str(error))}; try another --port"
            ) from None
        server.port = runner.addresses[0][1]
        server.public_url = f"http://{_bracketed(host)}:{server.port}"
        started(f"{server.public_url}/")
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


class _Server(Server):
    """Serves pages to browsers that were given this server's address."""

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._guard)
        app.on_response_prepare.append(_add_headers)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: `started` does."""

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], object]) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if not self._is_ours(request.host) or (origin is not None and urlsplit(origin).netloc != request.host):
            return web.Response(status=403, text="This page may not use the explorer: open its own address.\n")
        return await handler(request)  # type: ignore[misc,no-any-return]

    def _is_ours(self, host: str) -> bool:
        """Return whether a browser may call this server so. A name that points here by a trick is not ours."""
        if not is_loopback(self.host):
            return True
        names = ("localhost", "127.0.0.1", "[::1]", _bracketed(self.host))
        return host in {f"{name}:{self.port}" for name in names}


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
