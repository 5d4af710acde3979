"""What holds for every kind of store: of its owner's code, of users with few rights, and of writers that pause."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from esx import EventStore, InvalidQuery, OrderUnknown, OwnerNotTrusted
from esx.layouts.category import column_category
from esx.layouts.detection import detect_layout
from esx.layouts.foreign.kinds import KINDS
from esx.layouts.foreign.opening import learn
from esx.layouts.foreign.recognition import FoundStore, heads, read_tables, recognise
from esx.layouts.foreign.tables import StoreTables
from esx.layouts.trust import check_owners
from tests.layouts.foreign.fixtures import NAMES, TABLES, load
from tests.layouts.foreign.made import MADE
from tests.layouts.foreign.test_recognition import KINDS as CALLED
from tests.support.connections import connected
from tests.support.hostile import hostile_database
from tests.support.roles import new_role

if TYPE_CHECKING:
    import asyncpg

    from esx.layouts.layout import Layout
    from tests.conftest import Servers

_FIXTURES = {CALLED.get(name, name): name for name in reversed(NAMES)}
"""A fixture for each kind that has one."""
EACH = [kind.name for kind in KINDS]
_DRAW_APART = ("axon5", "axon_jdbc", "axon_jpa", "marten")
"""The kinds whose tools draw a number by a statement of its own."""


async def _fill(connection: asyncpg.Connection, kind: str, *, analyze: bool = True) -> None:
    if kind in MADE:
        await connection.execute(MADE[kind])
    else:
        await load(connection, _FIXTURES[kind], analyze=analyze)


async def _make(connection: asyncpg.Connection, kind: str) -> FoundStore:
    await _fill(connection, kind)
    table = TABLES.get(_FIXTURES.get(kind, kind))
    stores = heads(recognise(await read_tables(connection)))
    [found] = [each for each in stores if table in (None, each.table.quoted)]
    assert found.kind.name == kind
    return found


def _read(found: FoundStore) -> dict[str, frozenset[str]]:
    """Return the columns that reading needs, by the tables."""
    table, kind = found.table, found.kind
    assert kind.reading is not None
    if kind.parts is not None:
        parts = {part.quoted: frozenset(kind.parts.has) for part in found.parts}
        return {table.quoted: frozenset(kind.has), **parts}
    reading = kind.reading(StoreTables(table, found.beside))
    # Without the column of the category, what ids begin with takes its place.
    needed = reading.needed | frozenset(re.findall(r"\bc\.(\w+)", reading.category or ""))
    return {
        table.quoted: needed & table.columns.keys(),
        **{other.quoted: frozenset(kind.beside[name]) for name, other in found.beside.items() if kind.beside[name]},
    }


async def _in_plans(connection: asyncpg.Connection, layout: Layout) -> set[str]:
    """Return the tables that PostgreSQL reads for events and for names, those of partitions as the whole."""
    layout = await learn(connection, layout)
    found: set[tuple[str, str]] = set()

    def note(node: dict[str, Any]) -> None:
        if node.get("Schema", "pg_catalog") != "pg_catalog":
            found.add((node["Schema"], node["Relation Name"]))

    sources = {layout.table, layout.numbers, layout.within_stream, layout.names, layout.linked}
    if layout.category is not None:
        sources.add(f"(SELECT {column_category(layout, repr('x'))})")
    for source in sources:
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON, VERBOSE) SELECT * FROM {source} e")
        json.loads(plan, object_hook=note)
    rows = await connection.fetch(
        "SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN unnest($1::text[], $2::text[]) f (schema, name) "
        "ON (n.nspname, c.relname) = (f.schema, f.name)",
        *zip(*found, strict=True),
    )
    return {row[0] for row in rows}


@pytest.mark.parametrize("kind", EACH)
async def test_code_in_any_table_that_is_read_is_found_before_it_runs(kind: str, empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, new_role(empty_dsn18) as owner:
        found = await _make(connection, kind)
        await connection.execute("SET search_path = ''")
        layout = await detect_layout(connection, found.table.quoted)
        tables = {each.quoted for each in (found.table, *found.beside.values(), *found.parts)}
        assert await _in_plans(connection, layout) <= tables
        await check_owners(connection, layout)
        await connection.execute(
            "CREATE FUNCTION public.hers(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
            f"ALTER FUNCTION public.hers OWNER TO {owner.name}"
        )
        for table in tables:
            await connection.execute(f"CREATE INDEX planted ON {table} ((public.hers('x')))")
            with pytest.raises(OwnerNotTrusted, match="--trust-owner"):
                await check_owners(connection, await detect_layout(connection, found.table.quoted))
            await connection.execute(f"DROP INDEX {table.rpartition('.')[0]}.planted")


async def _seen(dsn: str, table: str) -> list[Any]:
    """Read in the ways that a store has."""
    async with EventStore.connect(dsn, store=table) as store:
        streams = [stream async for stream in store.streams()]
        seen: list[Any] = [streams, [finding.check for finding in await store.doctor()]]
        for stream in streams[:3]:
            seen.append([event async for event in store.read(stream.stream_id)])
            seen.append(await store.preview_page(stream.stream_id))
        try:
            seen.append([category async for category in store.categories()])
        except InvalidQuery as error:
            seen.append(str(error))
        health = await store.health()
        seen.append((health.head, health.events.count))
        if health.numbered:
            seen += [await store.read_all_page(), await store.preview_all_page(backwards=True)]
            seen.append(bool((await store.trail(health.last)).nodes))
        try:
            feed = await store.feed()
        except OrderUnknown as error:
            seen.append(str(error))
        else:
            seen.append([event async for batch in feed.to_safe_position() for event in batch.events])
        return seen


@pytest.mark.slow
async def test_what_is_planted_in_the_search_path_is_found_for_no_kind(servers: Servers) -> None:
    async with hostile_database(await servers.get(18)) as hostile:
        for kind in EACH:
            await hostile.admin.execute(f"CREATE SCHEMA in_{kind}; SET search_path = in_{kind}")
            await _fill(hostile.admin, kind, analyze=False)
        found = heads(recognise(await read_tables(hostile.admin)))
        tables = {each.kind.name: each.table.quoted for each in found}
        assert tables.keys() >= set(EACH)
        await hostile.plant_everywhere()
        for kind in EACH:
            assert (await _seen(hostile.dsn, tables[kind]))[2:], kind
            assert not hostile.sprung, kind


@pytest.mark.parametrize("kind", EACH)
async def test_the_right_to_read_the_columns_that_are_needed_is_enough(kind: str, empty_dsn18: str) -> None:
    async with connected(empty_dsn18) as connection, new_role(empty_dsn18) as role:
        found = await _make(connection, kind)
        await role.grant(f"USAGE ON SCHEMA {found.table.quoted.rpartition('.')[0]}")
        for table, columns in _read(found).items():
            await role.grant(f"SELECT ({', '.join(sorted(columns))}) ON {table}")
        for row in await connection.fetch("SELECT oid FROM pg_largeobject_metadata"):
            await role.grant(f"SELECT ON LARGE OBJECT {row[0]}")
        seen = await _seen(role.dsn(empty_dsn18), found.table.quoted)
        all_of_it = await _seen(empty_dsn18, found.table.quoted)
        assert seen[0] == all_of_it[0]
        assert seen[2:] == all_of_it[2:]


class _Writer:
    """Appends rows like the last one, whatever the kind of store."""

    def __init__(self, connection: asyncpg.Connection, layout: Layout, row: dict[str, Any], fresh: list[str]) -> None:
        self.connection = connection
        self._layout = layout
        self._row = row
        self._fresh = fresh

    async def insert(self, number: int) -> None:
        """Insert a row with that number, and ids of its own."""
        layout, new = self._layout, str(uuid4())
        row = {**self._row, **dict.fromkeys(self._fresh, new), layout.stored("global_seq"): number}
        version = layout.stored("stream_seq")
        if version and version != layout.stored("global_seq"):
            row[version] = 10_000 + number
        await self._put(layout.called, row)
        if "original_stream_id" in row:  # of commanded, which has the rest of an event elsewhere
            events = "SELECT to_jsonb(e) FROM events e LIMIT 1"
            await self._put("events", {**json.loads(await self.connection.fetchval(events)), "event_id": new})

    async def _put(self, table: str, row: dict[str, Any]) -> None:
        await self.connection.execute(
            f"INSERT INTO {table} OVERRIDING SYSTEM VALUE "
            f"SELECT * FROM jsonb_populate_record(NULL::{table}, $1::jsonb)",
            json.dumps(row),
        )


async def _writers(connections: list[asyncpg.Connection], layout: Layout) -> list[_Writer]:
    number = layout.stored("global_seq")
    reader = connections[0]
    row = json.loads(await reader.fetchval(f"SELECT to_jsonb(r) FROM {layout.called} r ORDER BY {number} DESC LIMIT 1"))
    unique = await reader.fetch(
        "SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_index i JOIN pg_attribute a "
        "ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) WHERE i.indrelid = $1 AND i.indisunique "
        "GROUP BY i.indexrelid",
        layout.base,
    )
    numbered = {number, layout.stored("stream_seq")}
    fresh = [
        next(each for each in columns if len(columns) == 1 or each in ("event_id", "message_id"))
        for (columns,) in unique
        if not numbered & set(columns)
    ]
    for connection in connections:
        await connection.execute("SET session_replication_role = replica")  # without foreign keys and triggers
    return [_Writer(connection, layout, row, fresh) for connection in connections]


@pytest.mark.parametrize("kind", EACH)
async def test_the_feed_waits_for_writers_that_pause_and_passes_those_that_roll_back(
    kind: str, empty_dsn18: str
) -> None:
    async with connected(empty_dsn18) as slow, connected(empty_dsn18) as fast:
        found = await _make(slow, kind)
        layout = await detect_layout(slow, found.table.quoted)
        async with EventStore.connect(empty_dsn18, store=found.table.quoted) as store:
            if layout.disordered is not None:
                with pytest.raises(OrderUnknown):
                    await store.feed()
                return
            writer, other = await _writers([slow, fast], layout)
            first = await store.head() + 1
            feed = await store.feed(after=first - 1)

            async def given() -> list[int]:
                return [e.global_seq async for batch in feed.to_safe_position(patience=0.05) for e in batch.events]

            begun = slow.transaction()
            await begun.start()
            await writer.insert(first)
            await other.insert(first + 1)
            assert await given() == []
            await begun.rollback()
            assert await given() == [first + 1]
            assert feed.dead == 1
            async with slow.transaction():
                if kind in _DRAW_APART:  # it has a number, and has inserted nothing yet
                    await slow.fetchval(f"SELECT nextval({layout.base_sequence}::regclass)")
                else:
                    await writer.insert(first + 2)
                await other.insert(first + 3)
                assert await given() == []
                if kind in _DRAW_APART:
                    await writer.insert(first + 2)
            assert await given() == [first + 2, first + 3]
            assert (feed.missed, feed.late) == (0, 1)
