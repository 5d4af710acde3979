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
from asyncpg.protocol.protocol import PreparedStatementState

from esx.store.background import keep_running
from esx.store.driver import DRIVER_ERRORS, is_connection_loss

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from esx.store.connection import Connector

_LOOKS = 4  # in the time that a connection may be silent
# Half a request may have come: then PostgreSQL says that it is active, and waits for the rest. Only what COPY is given
# may take as long as it likes.
_AT_WORK = """
    (coalesce(a.state, '') NOT LIKE 'idle%'
     AND NOT (coalesce(a.wait_event = 'ClientRead', false) AND a.query NOT ILIKE 'copy%'))
"""
_IDLE = f"""
    SELECT pid, pg_postmaster_start_time(), pg_is_in_recovery(),
           NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = asked.pid AND {_AT_WORK})
    FROM unnest($1::int[]) AS asked (pid)
"""

# Looked at once more: a process id may have gone to somebody else by now.
_END = f"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity a
    WHERE pid = $1 AND application_name = $2 AND usename = current_user AND NOT {_AT_WORK}
"""


class Watch:
    """Ends those of the `lent` connections that are waited on for `patience` seconds and that nobody works for.

    Whoever waits on one of them then gets the error of a lost connection. That comes within three times `patience`, and
    costs those who do not wait nothing. The session that PostgreSQL holds is ended as well: in a transaction it would
    keep its locks for as long as its peer is silent. Behind a pooler PostgreSQL cannot be asked about a connection;
    there they are ended if the pooler does not answer a new one either.
    """

    def __init__(self, connector: Connector, lent: Collection[asyncpg.Connection], patience: float) -> None:
        self._connector = connector
        self._lent = lent
        self._patience = patience
        self._seen: dict[asyncpg.Connection, tuple[tuple[int, int], float]] = {}
        self._others: set[asyncpg.Connection] = set()
        self._task: asyncio.Task[None] | None = None
        self.asked = 0
        """How many times PostgreSQL was asked."""

    def start(self) -> None:
        """Watch in the background."""
        self._task = keep_running(self._run, "esx-watch")

    def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()

    @contextlib.contextmanager
    def including(self, connection: asyncpg.Connection) -> Iterator[None]:
        """Watch over a connection that is not one of those lent."""
        self._others.add(connection)
        try:
            yield
        finally:
            self._others.discard(connection)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._patience / _LOOKS)
            silent = self._silent()
            if silent:
                await self._end_those_in_vain(silent)

    def _silent(self) -> dict[asyncpg.Connection, tuple[int, int]]:
        """Return who has got no further since long, and how far."""
        now = asyncio.get_running_loop().time()
        before, self._seen = self._seen, {}
        for connection in (*self._lent, *self._others):
            # Between two statements its user may take the time it likes.
            if connection.is_closed() or not is_waiting(connection):
                continue
            progress = _progress(connection)
            known, since = before.get(connection, (progress, now))
            self._seen[connection] = (progress, since if known == progress else now)
        return {
            connection: progress
            for connection, (progress, since) in self._seen.items()
            if now - since >= self._patience
        }

    async def _end_those_in_vain(self, silent: dict[asyncpg.Connection, tuple[int, int]]) -> None:
        """End those that PostgreSQL does nothing for; all if there is no answer at all."""
        asking = None
        self.asked += 1
        try:
            async with asyncio.timeout(self._patience):
                asking = await self._connector.open("watch")
                if self._connector.pooler is not None:
                    return
                pids = {
                    connection.get_server_pid(): (connection, connection.get_settings().application_name)
                    for connection in silent
                    if not connection.is_closed()
                }
                for pid, started, recovering, idle in await asking.fetch(_IDLE, list(pids)):
                    connection, name = pids[pid]
                    # By the time of its start, as the address may lead to one server or another.
                    if getattr(connection, "server_started", None) != started:
                        # Where there is another primary now, nobody is left to ask about the one before. Of standbys
                        # there may be several behind one address.
                        if not recovering and getattr(connection, "standby", None) is False:
                            _terminate(connection, silent)
                    elif idle and _terminate(connection, silent):
                        # Where it cannot be ended, the others still are.
                        with contextlib.suppress(asyncpg.PostgresError):
                            await asking.execute(_END, pid, name)
        except (*DRIVER_ERRORS, OSError, TimeoutError) as error:
            # An answer, be it a refusal for want of connections, is no silence.
            if is_connection_loss(error) and not isinstance(error, asyncpg.PostgresError):
                for connection in silent:
                    _terminate(connection, silent)
        finally:
            if asking is not None:
                asking.terminate()


def _terminate(connection: asyncpg.Connection, silent: dict[asyncpg.Connection, tuple[int, int]]) -> bool:
    """Close a connection unless it has got on meanwhile; return whether it was closed."""
    if connection.is_closed() or not is_waiting(connection) or _progress(connection) != silent[connection]:
        return False
    connection.terminate()
    return True


def is_waiting(connection: asyncpg.Connection) -> bool:
    """Return whether an answer of PostgreSQL is waited for on an open connection.

    asyncpg keeps that to itself, but each of its operations begins by refusing to run beside another. This one goes no
    further: of a statement that is said to be in use it is refused in any case.
    """
    protocol = connection._protocol  # type: ignore[attr-defined]
    statement = PreparedStatementState("", "", protocol, asyncpg.Record, False)
    statement.attach()
    asked = protocol.close_statement(statement, None)
    try:
        asked.send(None)
    except asyncpg.InternalClientError:
        return False
    except asyncpg.InterfaceError:
        return True
    # It waits for a statement to be cancelled.
    asked.close()
    return True


def _progress(connection: asyncpg.Connection) -> tuple[int, int]:
    """Return what changes when a statement is begun, or when what it sends has left."""
    return connection._protocol.queries_count, connection._transport.get_write_buffer_size()  # type: ignore[attr-defined]
