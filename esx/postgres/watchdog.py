"""Finds connections that will never get an answer, and ends them.

TCP notices a peer that is gone. It does not notice a peer that stays connected and passes nothing on, such as a proxy
that hangs, and a client cannot tell that from a query that takes long or waits for a lock. So esx asks PostgreSQL, over
another connection, whether it works for the silent one.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterator

import asyncpg

from esx.postgres.background import keep_running
from esx.postgres.connection import Connector
from esx.postgres.driver_errors import DRIVER_ERRORS, is_connection_loss
from esx.postgres.driver_internals import progress
from esx.postgres.session import Session

Silent = dict[Session, tuple[int, int]]
"""The silent connections, each with its progress when it was looked at last."""


_LOOKS = 4  # during the time for which a connection may be silent
_ELSEWHERE = 8
"""After so many looks in a row that reached other servers, the address no longer leads to the connection's server."""
# When half a request has arrived, PostgreSQL reports active and waits for the client. Only the input of a COPY may take
# any time.
_AT_WORK = """
    (coalesce(a.state, '') NOT LIKE 'idle%'
     AND NOT (coalesce(a.wait_event = 'ClientRead', false) AND a.query NOT ILIKE 'copy%'))
"""
_IDLE = f"""
    SELECT pid, pg_postmaster_start_time(), pg_is_in_recovery(),
           NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = asked.pid AND {_AT_WORK})
    FROM unnest($1::int[]) AS asked (pid)
"""

# It checks again, because another session may have the process id by now.
_END = f"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity a
    WHERE pid = $1 AND application_name = $2 AND usename = current_user AND NOT {_AT_WORK}
"""


class Watchdog:
    """Ends `lent` connections that have waited for `patience` seconds while PostgreSQL does nothing for them.

    Their users get the error of a lost connection, within three times `patience`. PostgreSQL's session is ended too:
    with an open transaction it would keep its locks as long as its peer is silent. Behind a pooler PostgreSQL cannot be
    asked about a connection; there connections are ended if the pooler does not answer a new one either.

    If eight looks in a row reach other servers, the connection is ended. With several standbys behind one address this
    can end a query that takes longer than that.
    """

    def __init__(self, connector: Connector, lent: Collection[Session], patience: float) -> None:
        self._connector = connector
        self._lent = lent
        self._patience = patience
        self._seen: dict[Session, tuple[tuple[int, int], float]] = {}
        self._not_met: dict[Session, int] = {}
        """How many looks in a row reached another server than that of a silent connection."""
        self._others: set[Session] = set()
        self._task: asyncio.Task[None] | None = None
        self.asked = 0
        """How often PostgreSQL was asked."""

    def start(self) -> None:
        """Watch in the background."""
        self._task = keep_running(self._run, "esx-watchdog")

    def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()

    @contextlib.contextmanager
    def including(self, connection: Session) -> Iterator[None]:
        """Watch also over this connection, which is not one of `lent`, for the length of a ``with``."""
        self._others.add(connection)
        try:
            yield
        finally:
            self._others.discard(connection)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._patience / _LOOKS)
            silent = self.silent()
            if silent:
                await self.end_those_in_vain(silent)

    def silent(self) -> Silent:
        """Return the connections that have made no progress for `patience` seconds."""
        now = asyncio.get_running_loop().time()
        before, self._seen = self._seen, {}
        for connection in (*self._lent, *self._others):
            # Without a statement there is nothing to wait for.
            if connection.is_closed() or (so_far := progress(connection)) is None:
                continue
            known, since = before.get(connection, (so_far, now))
            self._seen[connection] = (so_far, since if known == so_far else now)
        return {
            connection: so_far for connection, (so_far, since) in self._seen.items() if now - since >= self._patience
        }

    async def end_those_in_vain(self, silent: Silent) -> None:
        """End the silent connections for which PostgreSQL does nothing; all of them if there is no answer at all."""
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
                before, self._not_met = self._not_met, {}
                for pid, started, recovering, idle in await asking.fetch(_IDLE, list(pids)):
                    connection, name = pids[pid]
                    # The time of its start identifies a server, as the address may lead to several.
                    if connection.server_started != started:
                        # A primary that was replaced cannot be asked any more. Of several standbys behind one address,
                        # one of the next looks reaches the right one.
                        self._not_met[connection] = times = before.get(connection, 0) + 1
                        replaced = not recovering and connection.standby is False
                        if replaced or times >= _ELSEWHERE:
                            _terminate(connection, silent)
                    elif idle and _terminate(connection, silent):
                        # If it cannot be ended, go on with the others.
                        with contextlib.suppress(asyncpg.PostgresError):
                            await asking.execute(_END, pid, name)
        except (*DRIVER_ERRORS, OSError, TimeoutError) as error:
            # A refusal, for example for lack of connections, is an answer too.
            if is_connection_loss(error) and not isinstance(error, asyncpg.PostgresError):
                for connection in silent:
                    _terminate(connection, silent)
        finally:
            if asking is not None:
                asking.terminate()


def _terminate(connection: Session, silent: Silent) -> bool:
    """Close a connection unless it has made progress meanwhile; return whether it was closed."""
    if connection.is_closed() or progress(connection) != silent[connection]:
        return False
    connection.terminate()
    return True
