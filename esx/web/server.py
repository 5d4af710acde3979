"""The explorer in a browser: textual-serve with a guard and with bounds.

Each page runs an explorer of its own, as a child process that ends with the page and with the server.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp_jinja2
from aiohttp import WSCloseCode, WSMsgType, web
from textual_serve.server import Server

from esx.errors import EsxError
from esx.text import visible
from esx.web.guard import HEADERS, Asked, Guard, Welcomed, address_of
from esx.web.session import WebSession

_PATIENCE = 1.0
"""Seconds that pages may take to close by themselves at the end."""
_LOOK_EVERY = 0.5
"""Seconds between two checks of the sessions."""
_STARTS_WITHIN = 60.0
"""How many pages may be opened within how many seconds: each takes a second of a processor."""
_LONGEST_MESSAGE = 256 * 1024
"""Bytes that a page may send at once, and so the most that can be pasted."""
_HEARTBEAT = 15.0
"""Seconds between pings to a page; one that does not answer in half of that is gone."""


class ServeFailed(EsxError):
    """The server could not start. The message is one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on all pages together, and on each of them."""

    sessions: int = 10
    """Pages that are open at once."""
    idle: float = 12 * 3600.0
    """Seconds without a key or a mouse movement after which a page ends; 0 for never."""
    memory: int = 1024 * 2**20
    """Bytes of memory that the explorer of a page may take."""
    starts: int = 30
    """Pages that may be opened within a minute."""


async def serve(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    host: str,
    port: int,
    token: str,
    public: Sequence[str] = (),
    bounds: Bounds | None = None,
    started: Callable[[str], None],
    told: Callable[[str], None],
) -> None:
    """Serve the explorer until cancelled; port 0 means a free one.

    `command` and `environ` start an explorer, `public` are names of a proxy in front of this server. `started`
    receives the address with the token, `told` a line when a page is ended. Raises ServeFailed.
    """
    logging.getLogger("textual-serve").setLevel(logging.CRITICAL)
    server = _Server(command, environ, bounds or Bounds(), told)
    runner = web.AppRunner(await server._make_app(), access_log=None, shutdown_timeout=_PATIENCE)
    await runner.setup()
    watching: asyncio.Future[None] | None = None
    try:
        site = web.TCPSite(runner, None if host == "*" else host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise ServeFailed(
                f"cannot listen on {visible(host)} port {port}: {visible(str(error))}; try another --port"
            ) from None
        port = runner.addresses[0][1]
        server.guard = Guard(host, token, cookie=f"esx_{port}", public=public)
        watching = asyncio.ensure_future(server.watch())
        started(f"http://{address_of(host, port)}/?token={token}")
        await watching
    finally:
        if watching is not None:
            watching.cancel()
        await server.end_all()
        await runner.cleanup()


class _Server(Server):
    guard: Guard

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], bounds: Bounds, told: Callable[[str], None]
    ) -> None:
        super().__init__("", title="esx")
        self._words = command
        self._environ = environ
        self._bounds = bounds
        self._told = told
        self._sessions: set[WebSession] = set()
        self._reserved = 0
        self._starts: deque[float] = deque()

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._let_in)
        app.on_response_prepare.append(_add_headers)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Print nothing, as `started` is called."""

    @web.middleware
    async def _let_in(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        verdict = self.guard.judge(Asked.by(request, request.headers.get("Host", ""), request.query))
        if verdict is None:
            return await handler(request)
        if isinstance(verdict, Welcomed):
            welcome = web.Response(status=303, headers={"Location": verdict.location})
            welcome.set_cookie(
                verdict.cookie, verdict.token, path="/", httponly=True, samesite="Strict", secure=_is_tls(request)
            )
            return welcome
        return web.Response(status=verdict.status, text=verdict.text)

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """Serve the page, which opens its websocket under the server's name in the browser."""
        busy = self._is_busy()
        if busy:
            return web.Response(status=503, text=f"{busy}\n")
        secure = "s" if _is_tls(request) else ""
        return aiohttp_jinja2.render_template(
            "app_index.html",
            request,
            {
                "font_size": min(max(_number(request.query.get("fontsize"), 16), 4), 72),
                "app_websocket_url": f"ws{secure}://{request.host}/ws",
                "config": {"static": {"url": "/static/"}},
                "application": {"name": self.title},
            },
        )

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Run an explorer for a page until that is closed."""
        busy = self._is_busy()
        if busy:
            raise web.HTTPServiceUnavailable(text=f"{busy}\n")
        self._starts.append(time.monotonic())
        self._reserved += 1
        session: WebSession | None = None
        try:
            websocket = web.WebSocketResponse(heartbeat=_HEARTBEAT, max_msg_size=_LONGEST_MESSAGE)
            await websocket.prepare(request)
            session = WebSession(self._words, self._environ, websocket, self.download_manager)
            self._sessions.add(session)
            await session.start(_number(request.query.get("width"), 80), _number(request.query.get("height"), 24))
            await _take_messages(websocket, session)
        except (ConnectionError, RuntimeError):
            pass  # the page is gone
        finally:
            try:
                if session is not None:
                    # Also where this is cancelled, as nothing else would end the explorer.
                    await asyncio.shield(self._finish(session))
            finally:
                self._reserved -= 1
        return websocket

    async def _finish(self, session: WebSession) -> None:
        await session.stop()
        self._sessions.discard(session)
        if session.why:
            self._told(f"a page was ended: {session.why}")

    def _is_busy(self) -> str:
        """Return why no page can be opened now, or an empty text."""
        while self._starts and self._starts[0] < time.monotonic() - _STARTS_WITHIN:
            self._starts.popleft()
        if self._reserved >= self._bounds.sessions:
            return f"{self._bounds.sessions} pages are open, which is all that --max-sessions allows: close one."
        if len(self._starts) >= self._bounds.starts:
            return f"{self._bounds.starts} pages were opened within {_STARTS_WITHIN:.0f} s: try again in a minute."
        return ""

    async def watch(self) -> None:
        """End the sessions that exceed a bound, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            idle_since = time.monotonic() - self._bounds.idle
            for session in list(self._sessions):
                if session.why:
                    continue
                if self._bounds.idle and session.used < idle_since:
                    await session.end(f"no key was pressed in it for {self._bounds.idle:,.0f} s (--idle-timeout)")
                elif session.memory > self._bounds.memory:
                    most = self._bounds.memory / 2**20
                    await session.end(f"its explorer took more than {most:,.0f} MB of memory (--max-memory)")

    async def end_all(self) -> None:
        """Close all pages, and wait until their explorers have ended."""
        await asyncio.gather(*(session.end("") for session in self._sessions))
        await asyncio.gather(*(session.stop() for session in self._sessions))


async def _take_messages(websocket: web.WebSocketResponse, session: WebSession) -> None:
    """Pass what the page sends to the explorer; a page that sends something else is closed."""
    async for message in websocket:
        if message.type is not WSMsgType.TEXT:
            continue
        match _parsed(message.data):
            case ["stdin", str(text)]:
                session.used = time.monotonic()
                await session.send_bytes(text.encode("utf-8", "replace"))
            case ["resize", {"width": int(width), "height": int(height)}]:
                await session.set_terminal_size(width, height)
            case ["ping", payload]:
                await websocket.send_json(["pong", payload])
            case ["blur", *_]:
                await session.blur()
            case ["focus", *_]:
                await session.focus()
            case _:
                await websocket.close(code=WSCloseCode.POLICY_VIOLATION)


def _parsed(text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return None


def _number(text: str | None, default: int) -> int:
    try:
        return default if text is None else int(text)
    except ValueError:
        return default


def _is_tls(request: web.Request) -> bool:
    """Return whether the browser speaks TLS, to this server or to a proxy that says so."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    # No fonts and scripts from elsewhere: no other server should learn that a tool for private data is in use.
    response.headers["Content-Security-Policy"] = (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data:; connect-src 'self'{_sockets(request)}; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )


def _sockets(request: web.Request) -> str:
    """Return the sources of the page's websocket: some browsers do not count it as part of 'self'."""
    host = request.host
    return f" ws://{host} wss://{host}" if host and not set(host) & set(" ;,'\"") else ""
