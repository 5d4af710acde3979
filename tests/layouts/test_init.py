"""schema.sql: applied once, twice, by psql, by several at once, and to a classic table."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from esx import EventStore, NewEvent

if TYPE_CHECKING:
    from esx.embedded import EmbeddedServer

_SCHEMA = Path(__file__).parents[2] / "schema.sql"


async def test_init_says_what_it_made_and_repeats_without_change(empty_dsn: str) -> None:
    async with EventStore.connect(empty_dsn) as store:
        made = await store.init()
        assert {"created table events", "created trigger events_doorbell"} <= set(made)
        await store.append("s", [NewEvent("T")])
        assert await store.init() == []
        assert await store.version("s") == 0


async def test_two_inits_at_once(empty_dsn: str) -> None:
    async with EventStore.connect(empty_dsn) as one, EventStore.connect(empty_dsn) as two:
        made = await asyncio.gather(one.init(), two.init())
        assert sorted(map(bool, made)) == [False, True]


async def test_repeating_init_waits_for_nobody(empty_dsn: str) -> None:
    async with EventStore.connect(empty_dsn) as store:
        await store.init()
        reader, writer = await asyncpg.connect(empty_dsn), await asyncpg.connect(empty_dsn)
        async with reader.transaction(), writer.transaction():
            await reader.fetchval("SELECT count(*) FROM events")
            await writer.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '1')"
            )
            async with asyncio.timeout(120):
                assert await store.init() == []
        await reader.close()
        await writer.close()


async def test_a_classic_table_is_completed_and_keeps_its_events(empty_dsn: str) -> None:
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(
        "CREATE TABLE events (global_seq BIGSERIAL PRIMARY KEY, stream_id TEXT NOT NULL, stream_seq BIGINT NOT NULL, "
        "event_type TEXT NOT NULL, data JSONB NOT NULL, metadata JSONB, created_at TIMESTAMPTZ DEFAULT now(), "
        "UNIQUE (stream_id, stream_seq));"
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')"
    )
    await connection.close()
    async with EventStore.connect(empty_dsn) as store:
        assert (await store.append("s", [NewEvent("T")], expected=0)).version == 1
        made = await store.init()
        assert "changed table events" in made
        events = [event async for event in store.read("s")]
        assert len({event.event_id for event in events}) == 2
        assert (await store.append("s", [NewEvent("T")], expected=1)).version == 2


async def test_psql_applies_it_twice(empty_dsn: str, server: EmbeddedServer) -> None:
    for _ in range(2):
        subprocess.run(
            [server.bin_dir / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", _SCHEMA, empty_dsn],
            check=True,
            capture_output=True,
        )
    async with EventStore.connect(empty_dsn) as store:
        assert await store.init() == []


async def test_a_table_that_was_made_a_moment_ago_is_found(empty_dsn: str) -> None:
    async with EventStore.connect(empty_dsn, read_only=True, max_connections=1) as reader:
        assert not await reader.has_schema()
        async with EventStore.connect(empty_dsn) as store:
            await store.init()
        assert await reader.has_schema()
