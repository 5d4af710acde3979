"""A proxy in front of PostgreSQL's socket that loses a connection at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Moment = Literal["before the request", "in flight", "before the reply", "no reply"]


class Proxy:
    """Forwards everything until `cut` is set; then it loses the first connection that says anything, once.

    "before the request": PostgreSQL never sees it. "in flight": PostgreSQL has it, and its answer goes to
    no client. "before the reply": PostgreSQL has done it, and the answer is lost. "no reply": the same, but the
    connection stays, and nothing more comes from it. With `about` it waits for a message that has this in it.

    It can also fall silent: it stays connected, and keeps to itself what either side says.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        """The socket to which connections lead that are opened from now on."""
        self.cut: Moment | None = None
        self.about = b""
        self.losses = 0
        self.mute = False
        """Whether all connections are silent, and those to come."""
        self.clings = False
        """Whether a silent connection stays open to PostgreSQL when its client has gone."""
        self.farewell: asyncio.Event | None = None
        """A connection that PostgreSQL has ended stays open to its client until this is set."""
        self.parting = asyncio.Event()
        """Set once a client was sent the last that PostgreSQL had to say, and waits for `farewell`."""
        self.opened = 0
        """How many connections have been opened."""
        self._hushed = 0

    def hush(self) -> None:
        """Silence the connections that are open now."""
        self._hushed = self.opened

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self.target)
        lost, swallowing = asyncio.Event(), asyncio.Event()
        self.opened += 1
        number = self.opened

        def silent() -> bool:
            return self.mute or number <= self._hushed

        async def forward() -> None:
            while data := await reader.read(65536):
                if silent():
                    continue
                moment = self.cut if self.about in data and not lost.is_set() else None
                if moment == "no reply":
                    self.cut = moment = None
                    self.losses += 1
                    swallowing.set()
                if moment:
                    self.cut = None
                    self.losses += 1
                    lost.set()
                if moment != "before the request":
                    upstream_writer.write(data)
                    await upstream_writer.drain()
                # A request may come in pieces, and is answered when all of them are there.
                if moment and moment != "before the reply":
                    return

        async def back() -> None:
            while data := await upstream_reader.read(65536):
                if lost.is_set():
                    return
                if not silent() and not swallowing.is_set():
                    writer.write(data)
                    await writer.drain()

            if self.farewell is not None:
                self.parting.set()
                await self.farewell.wait()

        tasks = [asyncio.create_task(forward()), asyncio.create_task(back())]
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if self.clings and silent():
            writer.transport.abort()
            await tasks[1]  # until PostgreSQL ends it
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for side in (writer, upstream_writer):
            side.transport.abort()


@contextlib.asynccontextmanager
async def proxied(dsn: str, directory: Path, *, tcp: bool = False) -> AsyncIterator[tuple[Proxy, str]]:
    """Yield a proxy for the server of `dsn`, and the DSN that leads through it: by a socket in `directory`, or by TCP.

    By TCP each client asks for encryption first, as is the default, and is told that there is none.
    """
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host, port = query["host"][0], query["port"][0]
    proxy = Proxy(f"{host}/.s.PGSQL.{port}")
    if tcp:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        address = f"postgresql://{parts.username}@127.0.0.1:{server.sockets[0].getsockname()[1]}{parts.path}"
    else:
        server = await asyncio.start_unix_server(proxy.serve, directory / f".s.PGSQL.{port}")
        address = dsn.replace(parts.query, f"host={directory}&port={port}&sslmode=disable")
    try:
        yield proxy, address
    finally:
        server.close()
