"""Fills the tables of other event stores with many events, 20 in each stream, in turn."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from tests.layouts.foreign.fixtures import TABLES, TABLES_HERE, load

_PER_STREAM = 20
_UUID = "md5((n % {streams})::text)::uuid"
_NAME = "'account-' || n % {streams}"
_DATA = """'{{"amount": 12.50, "method": "card", "reference": "' || md5(n::text) || '"}}'"""
_STATE = (
    """'{{"timestamp":{{"_type_":"datetime_iso","_data_":"2026-11-28T20:41:50.966656+00:00"}},"amount":"""
    """{{"_type_":"decimal_str","_data_":"73.33"}},"reference":"' || md5(n::text) || '"}}'"""
)
_SERIES = "generate_series(0, {events} - 1) n"


@dataclass(frozen=True, slots=True)
class Larger:
    """How a fixture is filled, a stream of it, the start of the ids of some, and its table for asyncpg alone."""

    sql: str
    stream: str
    prefix: str
    alone: str
    """What asyncpg alone reads to read all events, in their order, after $1 and at most $2."""
    table: str | None = None
    tables: int = 1
    """How many tables are read for a row."""


_SOME_UUID = "a1d0c6e8-3f02-7327-d846-1063f4ac58a6"  # of number 42
LARGER = {
    "messagedb": Larger(
        "TRUNCATE message_store.messages RESTART IDENTITY;"
        "INSERT INTO message_store.messages (stream_name, position, type, data, metadata) "
        f"SELECT {_NAME}, n / {{streams}}, 'Deposited', ({_DATA})::jsonb, '{{{{}}}}' FROM {_SERIES}",
        "account-42",
        "account-4",
        "SELECT global_position, stream_name, position, type, data, metadata, time, id FROM message_store.messages "
        "WHERE global_position > $1 ORDER BY global_position LIMIT $2",
    ),
    "marten": Larger(
        "TRUNCATE mt_events, mt_streams; ALTER SEQUENCE mt_events_sequence RESTART;"
        "INSERT INTO mt_streams (id, type, version) SELECT md5(n::text)::uuid, 'account', 20 "
        "FROM generate_series(0, {streams} - 1) n;"
        "INSERT INTO mt_events (seq_id, id, stream_id, version, data, type) "
        f"SELECT nextval('mt_events_sequence'), gen_random_uuid(), {_UUID}, 1 + n / {{streams}}, "
        f"({_DATA})::jsonb, 'deposited' FROM {_SERIES}",
        _SOME_UUID,
        "a1",
        "SELECT seq_id, stream_id, version, type, data, headers, timestamp, id FROM mt_events "
        "WHERE seq_id > $1 ORDER BY seq_id LIMIT $2",
    ),
    "commanded": Larger(
        "DROP TABLE IF EXISTS filled;"
        f"CREATE UNLOGGED TABLE filled AS SELECT n, gen_random_uuid() AS id FROM {_SERIES};"
        "TRUNCATE events, stream_events, streams CASCADE;"
        "INSERT INTO streams (stream_id, stream_uuid, stream_version) VALUES (0, '$all', {events});"
        "INSERT INTO streams (stream_id, stream_uuid, stream_version) "
        "SELECT n + 1, 'account-' || n, 20 FROM generate_series(0, {streams} - 1) n;"
        "INSERT INTO events (event_id, event_type, data, created_at) "
        f"SELECT id, 'Elixir.Deposited', ({_DATA})::jsonb, now() FROM filled;"
        "INSERT INTO stream_events (event_id, stream_id, stream_version, original_stream_id, original_stream_version) "
        "SELECT id, s, CASE s WHEN 0 THEN n + 1 ELSE 1 + n / {streams} END, n % {streams} + 1, 1 + n / {streams} "
        "FROM filled CROSS JOIN LATERAL (VALUES (0), (n % {streams} + 1)) v (s);"
        "DROP TABLE filled",
        "account-42",
        "account-4",
        "SELECT r.stream_version, s.stream_uuid, r.original_stream_version, v.event_type, v.data, v.metadata, "
        "v.created_at, r.event_id FROM stream_events r JOIN events v USING (event_id) "
        "JOIN streams s ON s.stream_id = r.original_stream_id WHERE r.stream_id = 0 AND r.stream_version > $1 "
        "ORDER BY r.stream_version LIMIT $2",
        tables=4,
    ),
    "eventsourcing": Larger(
        "TRUNCATE shop_events RESTART IDENTITY;"
        "INSERT INTO shop_events (originator_id, originator_version, topic, state) "
        f"SELECT {_UUID}, 1 + n / {{streams}}, 'shopapp:Account.Deposited', convert_to({_STATE}, 'UTF8') "
        f"FROM {_SERIES}",
        _SOME_UUID,
        "a1",
        "SELECT notification_id, originator_id, originator_version, topic, state FROM shop_events "
        "WHERE notification_id > $1 ORDER BY notification_id LIMIT $2",
        TABLES["eventsourcing"],
    ),
    "rails_event_store": Larger(
        "TRUNCATE event_store_events, event_store_events_in_streams RESTART IDENTITY;"
        "INSERT INTO event_store_events (event_id, event_type, data, metadata, created_at) "
        f"SELECT gen_random_uuid(), 'Banking::Deposited', ({_DATA})::jsonb, '{{{{}}}}', now() FROM {_SERIES};"
        "INSERT INTO event_store_events_in_streams (stream, position, event_id, created_at) "
        "SELECT 'Account$' || (id - 1) % {streams}, (id - 1) / {streams}, event_id, created_at "
        "FROM event_store_events ORDER BY id",
        "Account$42",
        "Account$4",
        "SELECT e.id, l.stream, l.position, e.event_type, e.data, e.metadata, e.created_at, e.event_id "
        "FROM event_store_events e LEFT JOIN event_store_events_in_streams l USING (event_id) "
        "WHERE e.id > $1 ORDER BY e.id LIMIT $2",
        tables=16,  # the links of a stream with positions, of which each here has 20, are sorted
    ),
}


async def load_larger(connection: asyncpg.Connection, name: str, events: int) -> None:
    """Load a fixture, and put so many events in the place of its own."""
    await load(connection, name)
    await connection.execute(LARGER[name].sql.format(events=events, streams=events // _PER_STREAM), timeout=600)
    await connection.execute(f"VACUUM ANALYZE {await connection.fetchval(TABLES_HERE)}", timeout=600)
