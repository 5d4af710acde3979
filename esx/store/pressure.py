"""What a database is doing at the moment, in counters whose differences tell rates; cheap at any size."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    from esx.store.layout import Layout

_SAMPLE = """
SELECT clock_timestamp(),
       CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END::bigint,
       d.xact_commit, d.xact_rollback, {head},
       ARRAY(SELECT a.wait_event_type || ':' || a.wait_event FROM pg_stat_activity a
             WHERE a.datid = d.datid AND a.application_name = $1 AND a.state <> 'idle' AND a.pid <> pg_backend_pid()
               AND a.wait_event IS NOT NULL)
FROM pg_stat_database d WHERE d.datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Counters of one moment.

    `wal_bytes` is how far the server's write-ahead log has come, `commits` and `rollbacks` are the database's, and
    `head` is the highest global_seq handed out. `waits` maps what sessions of one name wait for just now, as
    PostgreSQL calls it (``Lock:tuple``, ``IO:WalSync``, ...), to how many do.
    """

    at: datetime
    wal_bytes: int
    commits: int
    rollbacks: int
    head: int
    waits: dict[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is.

    `local` says that the connection does not leave this machine: a Unix socket or a loopback address. `data_directory`
    is PostgreSQL's, None if it may not be read; `server_version` is as PostgreSQL tells it.
    """

    local: bool
    database: str
    data_directory: str | None
    server_version: str


async def read_pressure(connection: asyncpg.Connection, layout: Layout, application_name: str) -> Pressure:
    """Read the counters; the waits are those of sessions called `application_name`."""
    row = await connection.fetchrow(_SAMPLE.format(head=layout.head()), application_name)
    assert row is not None
    waits: dict[str, int] = {}
    for wait in row[5]:
        waits[wait] = waits.get(wait, 0) + 1
    return Pressure(row[0], row[1], row[2], row[3], row[4], waits)


async def read_place(connection: asyncpg.Connection) -> Place:
    """Tell where the server of this connection is."""
    row = await connection.fetchrow(
        "SELECT current_setting('server_version'), current_database()::text, "
        "CASE WHEN pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') "
        "THEN current_setting('data_directory') END"
    )
    assert row is not None
    transport = getattr(connection, "_transport", None)
    return Place(is_local(transport and transport.get_extra_info("peername")), row[1], row[2], row[0])


def is_local(peer: object) -> bool:
    """Tell a Unix socket, whose peer has a path or no name at all, from an address, a tuple that begins with the IP."""
    if not isinstance(peer, tuple):
        return isinstance(peer, str | bytes)
    try:
        return ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback
    except ValueError:
        return False
