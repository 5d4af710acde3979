"""Noticing connections from which nothing will come any more.

A peer that is gone is noticed by TCP. One that stays connected and keeps what it is sent to itself, such as a proxy
that hangs, is not; and no client can tell it from a query that takes long or waits for a lock. So PostgreSQL is asked,
over another connection, whether it is at work for the silent one.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg

from esx.store.driver import DRIVER_ERRORS, is_connection_loss

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from esx.store.connection import Connector

_LOOKS = 4  # in the time that a connection may be silent
_IDLE = """
    SELECT pid, pg_postmaster_start_time() FROM unnest($1::int[]) AS asked (pid)
    WHERE NOT EXISTS (
        SELECT FROM pg_stat_activity a WHERE a.pid = asked.pid AND coalesce(a.state, '') NOT LIKE 'idle%'
    )
"""


class Watch:
    """Ends those of the `lent` connections that were silent for `patience` seconds and that nobody works for.

    Whoever waits on one of them then gets the error of a lost connection. That comes within three times `patience`, and
    costs those who do not wait nothing. Behind a pooler PostgreSQL cannot be asked about a connection; there they are
    ended if the pooler does not answer a new one either.
    """

    def __init__(self, connector: Connector, lent: Collection[asyncpg.Connection], patience: float) -> None:
        self._connector = connector
        self._lent = lent
        self._patience = patience
        self._seen: dict[asyncpg.Connection, tuple[tuple[int, int], float]] = {}
        self._spared: set[asyncpg.Connection] = set()
        self._task: asyncio.Task[None] | None = None
        self.asked = 0
        """How many times PostgreSQL was asked."""

    def start(self) -> None:
        """Watch in the background."""
        self._task = asyncio.create_task(self._run(), name="esx-watch")

    def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()

    @contextlib.contextmanager
    def sparing(self, connection: asyncpg.Connection) -> Iterator[None]:
        """Leave a connection alone whose user takes the time it likes between statements."""
        self._spared.add(connection)
        try:
            yield
        finally:
            self._spared.discard(connection)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._patience / _LOOKS)
            silent = self._silent()
            if silent:
                for connection in await self._waiting_in_vain(list(silent)):
                    if not connection.is_closed() and _progress(connection) == silent[connection]:
                        connection.terminate()

    def _silent(self) -> dict[asyncpg.Connection, tuple[int, int]]:
        """Return who has got no further since long, and how far."""
        now = asyncio.get_running_loop().time()
        before, self._seen = self._seen, {}
        for connection in self._lent:
            if connection.is_closed() or connection in self._spared:
                continue
            progress = _progress(connection)
            known, since = before.get(connection, (progress, now))
            self._seen[connection] = (progress, since if known == progress else now)
        return {
            connection: progress
            for connection, (progress, since) in self._seen.items()
            if now - since >= self._patience
        }

    async def _waiting_in_vain(self, silent: list[asyncpg.Connection]) -> list[asyncpg.Connection]:
        """Return those that PostgreSQL does nothing for; all if there is no answer at all."""
        asking = None
        self.asked += 1
        try:
            async with asyncio.timeout(self._patience):
                asking = await self._connector.open("watch")
                if self._connector.pooler is not None:
                    return []
                pids = {connection.get_server_pid(): connection for connection in silent}
                rows = await asking.fetch(_IDLE, list(pids))
        except (*DRIVER_ERRORS, OSError, TimeoutError) as error:
            # An answer, be it a refusal for want of connections, is no silence.
            return silent if is_connection_loss(error) and not isinstance(error, asyncpg.PostgresError) else []
        finally:
            if asking is not None:
                asking.terminate()
        # By the time of its start, as the address may lead to one server or another.
        return [pids[pid] for pid, started in rows if getattr(pids[pid], "server_started", None) == started]


def _progress(connection: asyncpg.Connection) -> tuple[int, int]:
    """Return what changes when a statement is begun, or when what it sends has left."""
    return connection._protocol.queries_count, connection._transport.get_write_buffer_size()  # type: ignore[attr-defined]
