"""The layouts that the suite holds for. A new one is one entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from esx import EventStore
from tests.support.partitions import COLUMNS, HASH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from esx.model import Event

_ODD = '"{tenant} %s $1"."It\'s ""{here}"" 100%"'
"""A name with all that a query's text could be made of it by mistake."""
_ONE = "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
_MANY = (
    "SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::jsonb[], $6::jsonb[], "
    "$7::timestamptz[], $8::uuid[])"
)
_BASE = '"{tenant} %s $1".rows'


class Layout(NamedTuple):
    """How a store is made and filled.

    `make` are the statements that make the tables of events, None for those of `esx init`. `table` is what events are
    put into, in the columns of schema.sql, unless `insert` says how. `store` is the name by which it is read.
    """

    make: str | None = None
    table: str = "events"
    store: str | None = None
    insert: str = (
        "INSERT INTO {table} (global_seq, stream_id, stream_seq, event_type, data, metadata, created_at, event_id) "
        f"{_ONE}"
    )

    async def create(self, dsn: str, connection: asyncpg.Connection) -> None:
        """Make the tables."""
        if self.make is not None:
            await connection.execute(self.make)
        if self.store is None:
            async with EventStore.connect(dsn) as store:
                await store.init()

    async def fill(self, connection: asyncpg.Connection, events: Sequence[Event]) -> None:
        """Put the events there, as their writers did, and let PostgreSQL take its statistics."""
        insert = self.insert.replace("{table}", self.table).replace(_ONE, _MANY)
        await connection.execute(insert, *map(list, zip(*events, strict=True)))
        await connection.execute("ANALYZE")


LAYOUTS = {
    "schema.sql": Layout(),
    "partitioned": Layout(HASH),
    "named": Layout(
        f'CREATE SCHEMA "{{tenant}} %s $1"; CREATE TABLE {_ODD} ({COLUMNS}, PRIMARY KEY (global_seq),'
        "UNIQUE (stream_id, stream_seq))",
        table=_ODD,
        store=_ODD,
    ),
    "view": Layout(
        f"""
        CREATE SCHEMA "{{tenant}} %s $1";
        CREATE TABLE {_BASE} (
            number BIGSERIAL PRIMARY KEY, stream TEXT COLLATE "C" NOT NULL, version BIGINT NOT NULL, kind TEXT NOT NULL,
            body JSONB NOT NULL, about JSONB, stored_at TIMESTAMPTZ NOT NULL, id UUID NOT NULL UNIQUE,
            UNIQUE (stream, version));
        CREATE VIEW {_ODD} AS
        SELECT number AS global_seq, stream AS stream_id, version AS stream_seq, kind AS event_type, body AS data,
               about AS metadata, stored_at AS created_at, id AS event_id
        FROM {_BASE}
        """,
        table=_BASE,
        store=_ODD,
        insert=f"INSERT INTO {{table}} (number, stream, version, kind, body, about, stored_at, id) {_ONE}",
    ),
}
