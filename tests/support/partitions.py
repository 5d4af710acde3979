"""Tables of events that are kept in parts, in place of the one of schema.sql; `init` adds the rest of it."""

from __future__ import annotations

import asyncpg

from esx import EventStore

COLUMNS = """
    global_seq BIGSERIAL, stream_id TEXT COLLATE "C" NOT NULL, stream_seq BIGINT NOT NULL, event_type TEXT NOT NULL,
    data JSONB NOT NULL, metadata JSONB, created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    event_id UUID NOT NULL DEFAULT gen_random_uuid()
"""
HASH = (
    f"CREATE TABLE events ({COLUMNS}, UNIQUE (stream_id, stream_seq)) PARTITION BY HASH (stream_id);"
    + "".join(
        f"CREATE TABLE events_{n} PARTITION OF events FOR VALUES WITH (MODULUS 3, REMAINDER {n});" for n in range(3)
    )
    + "CREATE INDEX ON events (global_seq)"
)
"""A stream is in one partition, and the parent's unique constraint spans all of them."""
LISTED = (
    f"CREATE TABLE events ({COLUMNS}) PARTITION BY LIST (split_part(stream_id, '-', 1));"
    "CREATE TABLE events_order PARTITION OF events FOR VALUES IN ('order');"
    "CREATE TABLE events_rest PARTITION OF events DEFAULT;"
    "ALTER TABLE events_order ADD UNIQUE (stream_id, stream_seq);"
    "ALTER TABLE events_rest ADD UNIQUE (stream_id, stream_seq);"
    "CREATE INDEX ON events (global_seq)"
)
"""By an expression: the parent can have no unique constraint, each partition has its own."""
RANGED = (
    f"CREATE TABLE events ({COLUMNS}, PRIMARY KEY (global_seq)) PARTITION BY RANGE (global_seq);"
    "CREATE TABLE events_low PARTITION OF events FOR VALUES FROM (MINVALUE) TO (1000);"
    "CREATE TABLE events_high PARTITION OF events FOR VALUES FROM (1000) TO (MAXVALUE);"
    "ALTER TABLE events_low ADD UNIQUE (stream_id, stream_seq);"
    "ALTER TABLE events_high ADD UNIQUE (stream_id, stream_seq)"
)
"""By number: a stream is in several partitions, and no constraint spans them."""
NESTED = (
    f"CREATE TABLE events ({COLUMNS}, UNIQUE (stream_id, stream_seq)) PARTITION BY RANGE (stream_id);"
    "CREATE TABLE events_all PARTITION OF events FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"
    " PARTITION BY HASH (stream_id);"
    "CREATE TABLE events_leaf PARTITION OF events_all FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
    "CREATE INDEX ON events (global_seq)"
)
KINDS = {"hash": HASH, "list": LISTED, "range": RANGED, "nested": NESTED}


async def make(dsn: str, sql: str) -> None:
    """Make the table by `sql` in an empty database, and all else that belongs to a store."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(sql)
    await connection.close()
    async with EventStore.connect(dsn) as store:
        await store.init()
