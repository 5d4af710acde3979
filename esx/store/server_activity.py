"""What a database is doing, as counters; their differences are rates. Cheap at any size of the store."""

import asyncio
import ipaddress
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from esx.layouts.layout import Layout
from esx.postgres.session import Session
from esx.postgres.values import fetch

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
class ServerActivity:
    """Counters of one moment.

    `wal_bytes` is the length of the server's write-ahead log, `commits` and `rollbacks` are those of the database, and
    `head` is the highest global_seq drawn. `waits` maps what sessions of one name wait for now, as PostgreSQL calls it
    (``Lock:tuple``, ``IO:WalSync``, ...), to the number of these sessions.
    """

    at: datetime
    wal_bytes: int
    commits: int
    rollbacks: int
    head: int
    waits: dict[str, int]


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a store is.

    `local` says that the connection does not leave this machine: a Unix socket or a loopback address. `data_directory`
    is PostgreSQL's, None if it may not be read; `server_version` is as PostgreSQL tells it.
    """

    local: bool
    database: str
    data_directory: str | None
    server_version: str


async def read_pressure(connection: asyncpg.Connection, layout: Layout, application_name: str) -> ServerActivity:
    """Read the counters; the waits are those of sessions called `application_name`."""
    row = await connection.fetchrow(_SAMPLE.format(head=layout.head()), application_name)
    assert row is not None
    return ServerActivity(row[0], row[1], row[2], row[3], row[4], dict(Counter(row[5])))


async def read_place(connection: Session) -> ServerPlace:
    """Return where the server of this connection is. A host name is local if all its addresses are."""
    row = await connection.fetchrow(
        "SELECT current_setting('server_version'), current_database()::text, "
        "CASE WHEN pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') "
        "THEN current_setting('data_directory') END"
    )
    assert row is not None
    return ServerPlace(await is_local(connection.dialled), row[1], row[2], row[0])


async def is_local(dialled: str) -> bool:
    """Return whether a connection to `dialled` stays on this machine: the directory of a socket, an address, a name."""
    if dialled.startswith("/"):
        return True
    try:
        peers = await asyncio.get_running_loop().getaddrinfo(dialled, None)
        return all(ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback for *_, peer in peers)
    except (OSError, ValueError):
        return False


async def other_databases(connection: asyncpg.Connection) -> list[str]:
    """Return the names of the other databases to which this user may connect, at most 200; no templates."""
    rows = await fetch(
        connection,
        "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate "
        "AND datname <> pg_catalog.current_database() AND pg_catalog.has_database_privilege(oid, 'CONNECT') "
        "ORDER BY datname LIMIT 200",
    )
    return [row[0] for row in rows]
