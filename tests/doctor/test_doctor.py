"""The doctor: each thing broken in a fresh database is found, and its remedy mends it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from esx import EventStore, NewEvent
from esx.doctor import Thresholds, activity, index_facts, indexes, projections, scan, server
from esx.doctor.finding import Finding, Severity
from esx.doctor.target import Examined
from esx.layouts.init import schema_sql
from esx.store.consume.report import ProjectionStatus
from tests.conftest import Servers
from tests.support.oddities import database
from tests.support.prepared import prepare_append, preparing_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.support.roles import Role

OK, INFO, WARNING, ERROR = Severity.OK, Severity.INFO, Severity.WARNING, Severity.ERROR
_ADD_UNIQUE = "ALTER TABLE events ADD CONSTRAINT events_stream_id_stream_seq_key UNIQUE (stream_id, stream_seq);"
_DROP_UNIQUE = "ALTER TABLE events DROP CONSTRAINT events_stream_id_stream_seq_key"
_INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'T', '{}')"
_NOTIFIER = """
    CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('all', NEW.stream_id); RETURN NULL; END $$;
    CREATE TRIGGER shouts AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION shout()
"""
_UNDOES = "/* UNDOES what it has not committed */ "
# The servers of the tests run without it, for speed.
_TESTS_ONLY = {"fsync"}


async def examine(dsn: str, *, full: bool = False, **thresholds: Any) -> list[Finding]:
    """Let the doctor look, from a session that may not write."""
    async with EventStore.connect(dsn, read_only=True) as store:
        findings = await store.doctor(full=full, thresholds=Thresholds(**thresholds))
    assert not [step for finding in findings for step in finding.remedy if _UNTOLD.search(step)]
    return findings


# What a remedy does to events without a word of warning before it.
_UNTOLD = re.compile(
    r"^(?!/\* [A-Z]+).*\b(DELETE FROM|TRUNCATE|UPDATE events|UPDATE projections SET position|ROLLBACK PREPARED)"
)


async def found(dsn: str, check: str, *, full: bool = False, **thresholds: Any) -> list[Finding]:
    return [finding for finding in await examine(dsn, full=full, **thresholds) if finding.check == check]


async def one(dsn: str, check: str, *, full: bool = False, **thresholds: Any) -> Finding:
    [finding] = await found(dsn, check, full=full, **thresholds)
    return finding


async def sound(dsn: str, *checks: str, full: bool = False) -> bool:
    """Return whether the doctor finds, in one look, nothing by each of these checks."""
    about = [(finding.check, finding.severity) for finding in await examine(dsn, full=full) if finding.check in checks]
    return sorted(about) == sorted((check, OK) for check in checks)


async def run(dsn: str, finding: Finding) -> list[asyncpg.Record]:
    """Do what the remedy says, and return what its last statement returned."""
    rows: list[asyncpg.Record] = []
    assert finding.remedy
    for step in finding.remedy:
        if step == "esx init":
            async with EventStore.connect(dsn) as store:
                await store.init()
            continue
        assert step.endswith(";")
        connection = await asyncpg.connect(dsn)
        try:
            rows = await connection.fetch(step)
        finally:
            await connection.close()
    return rows


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    return {f.check: f for f in findings if f.severity.wrong and f.check not in _TESTS_ONLY}


async def test_a_fresh_store_is_healthy(dsn: str) -> None:
    findings = await examine(dsn, full=True)
    assert wrong(findings) == {}
    assert {finding.check for finding in findings if finding.severity is INFO} <= {"idle-in-transaction", "checksums"}
    assert all(finding.message and "\n" not in finding.message for finding in findings)


async def test_a_store_in_use_is_healthy(dsn: str, store: EventStore) -> None:
    for n in range(5):
        await store.append(f"s-{n}", [NewEvent("T", {"n": n}) for _ in range(n + 1)])
    assert wrong(await examine(dsn, full=True)) == {}
    assert "15 events of 5 streams" in (await one(dsn, "stream-seq", full=True)).message


BROKEN = {
    "created_at nullable": (
        "ALTER TABLE events ALTER COLUMN created_at DROP NOT NULL",
        "not-null", WARNING, "ALTER TABLE events ALTER COLUMN created_at SET NOT NULL;",
    ),
    "created_at without default": (
        "ALTER TABLE events ALTER COLUMN created_at DROP DEFAULT",
        "not-null", WARNING, "ALTER TABLE events ALTER COLUMN created_at SET DEFAULT now();",
    ),
    "no event_id": ("ALTER TABLE events DROP COLUMN event_id", "event-id", WARNING, "esx init"),
    "no metadata": (
        "ALTER TABLE events DROP COLUMN metadata", "columns", ERROR,
        "ALTER TABLE events ADD COLUMN metadata jsonb;",
    ),
    "data is json": (
        "ALTER TABLE events ALTER COLUMN data TYPE json", "columns", ERROR,
        "ALTER TABLE events ALTER COLUMN data TYPE jsonb USING data::jsonb;",
    ),
    "created_at without zone": (
        "ALTER TABLE events ALTER COLUMN created_at TYPE timestamp", "columns", ERROR,
        "ALTER TABLE events ALTER COLUMN created_at TYPE timestamp with time zone USING created_at AT TIME ZONE 'UTC';",
    ),
    "global_seq is integer": (
        "ALTER TABLE events ALTER COLUMN global_seq TYPE integer", "columns", WARNING,
        "ALTER TABLE events ALTER COLUMN global_seq TYPE bigint;",
    ),
    "unlogged": (
        "ALTER TABLE events SET UNLOGGED", "unlogged", ERROR, "ALTER TABLE events SET LOGGED;",
    ),
    "linguistic collation": (
        'ALTER TABLE events ALTER COLUMN stream_id TYPE text COLLATE "default"', "collation", INFO,
        'ALTER TABLE events ALTER COLUMN stream_id TYPE text COLLATE "C";',
    ),
    "no unique constraint": (_DROP_UNIQUE, "unique-stream-seq", ERROR, _ADD_UNIQUE),
    "unique by an index only": (
        f"{_DROP_UNIQUE}; CREATE UNIQUE INDEX places ON events (stream_id, stream_seq)", "unique-stream-seq", ERROR,
        "ALTER TABLE events ADD CONSTRAINT events_stream_id_stream_seq_key UNIQUE USING INDEX places;",
    ),
    "deferrable": (
        f"{_DROP_UNIQUE}; ALTER TABLE events ADD CONSTRAINT later UNIQUE (stream_id, stream_seq) DEFERRABLE",
        "unique-stream-seq", WARNING, "ALTER TABLE events DROP CONSTRAINT later;", _ADD_UNIQUE,
    ),
    "no primary key": (
        "ALTER TABLE events DROP CONSTRAINT events_pkey", "primary-key", ERROR,
        "ALTER TABLE events ADD PRIMARY KEY (global_seq);",
    ),
    "unique instead of primary": (
        "ALTER TABLE events DROP CONSTRAINT events_pkey; CREATE UNIQUE INDEX own ON events (global_seq)",
        "primary-key", WARNING, "ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY USING INDEX own;",
    ),
    "another primary key": (
        "ALTER TABLE events DROP CONSTRAINT events_pkey; ALTER TABLE events ADD PRIMARY KEY (event_id)",
        "primary-key", ERROR, "CREATE UNIQUE INDEX CONCURRENTLY events_global_seq_key ON events (global_seq);",
    ),
    "index repeats the unique one": (
        "CREATE INDEX mine ON events (stream_id, stream_seq)", "redundant-index", WARNING,
        "DROP INDEX CONCURRENTLY mine;",
    ),
    "index on the left part": (
        "CREATE INDEX mine ON events (stream_id)", "redundant-index", WARNING, "DROP INDEX CONCURRENTLY mine;",
    ),
    "index repeats the primary key": (
        "CREATE INDEX mine ON events (global_seq)", "redundant-index", WARNING, "DROP INDEX CONCURRENTLY mine;",
    ),
    "constraint repeats the primary key": (
        "ALTER TABLE events ADD CONSTRAINT mine UNIQUE (global_seq)", "redundant-index", WARNING,
        "ALTER TABLE events DROP CONSTRAINT mine;",
    ),
    "index twice": (
        "CREATE INDEX mine ON events (event_type); CREATE INDEX again ON events (event_type)", "redundant-index",
        WARNING, "DROP INDEX CONCURRENTLY again;",
    ),
    "index twice, once backwards": (
        "CREATE INDEX mine ON events (event_type, created_at); "
        "CREATE INDEX again ON events (event_type DESC, created_at DESC)", "redundant-index",
        WARNING, "DROP INDEX CONCURRENTLY again;",
    ),
    "copy of the correlation index": (
        "DROP INDEX events_correlation_id_idx; "
        + "; ".join(
            f"CREATE INDEX {name} ON events ((metadata ->> 'correlation_id'), global_seq) "
            "WHERE (metadata ->> 'correlation_id') IS NOT NULL"
            for name in ("mine", "events_correlation_id_idx")
        ),
        "redundant-index", WARNING, "DROP INDEX CONCURRENTLY mine;",
    ),
    "index twice by another method": (
        "CREATE INDEX mine ON events USING gin (data jsonb_path_ops); "
        "CREATE INDEX again ON events USING gin (data jsonb_path_ops)", "redundant-index",
        WARNING, "DROP INDEX CONCURRENTLY again;",
    ),
    "index on the left part of another": (
        "CREATE INDEX mine ON events (event_type) WHERE event_type <> 'T'; "
        "CREATE INDEX longer ON events (event_type, global_seq) WHERE event_type <> 'T'", "redundant-index",
        WARNING, "DROP INDEX CONCURRENTLY mine;",
    ),
    "index twice, once unique": (
        "CREATE INDEX mine ON events (event_id); CREATE UNIQUE INDEX again ON events (event_id)", "redundant-index",
        WARNING, "DROP INDEX CONCURRENTLY mine;",
    ),
    "no correlation index": (
        "DROP INDEX events_correlation_id_idx", "correlation-index", INFO,
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS events_correlation_id_idx ON events "
        "((metadata ->> 'correlation_id'), global_seq) WHERE (metadata ->> 'correlation_id') IS NOT NULL;",
    ),
    "cache": (
        "ALTER SEQUENCE events_global_seq_seq CACHE 20", "sequence-cache", ERROR,
        "ALTER SEQUENCE events_global_seq_seq CACHE 1;",
    ),
    "cycle": (
        "ALTER SEQUENCE events_global_seq_seq CYCLE", "sequence-order", ERROR,
        "ALTER SEQUENCE events_global_seq_seq NO CYCLE;",
    ),
    "steps": (
        "ALTER SEQUENCE events_global_seq_seq INCREMENT BY 10", "sequence-order", WARNING,
        "ALTER SEQUENCE events_global_seq_seq INCREMENT BY 1;",
    ),
    "downwards": (
        "ALTER SEQUENCE events_global_seq_seq INCREMENT BY -1", "sequence-order", ERROR,
        "ALTER SEQUENCE events_global_seq_seq INCREMENT BY 1;",
    ),
    "behind": (
        "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES (7, 's', 0, 'T', '{}')",
        "sequence-position", ERROR,
        "SELECT setval('events_global_seq_seq', (SELECT greatest(max(global_seq), 0) + 1 FROM events), false);",
    ),
    "below the start of the feed": (
        "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES (0, 's', 0, 'T', '{}')",
        "global-seq", ERROR,
        "/* MOVES events */ UPDATE events e SET global_seq = moved.number FROM (SELECT global_seq, "
        "nextval('events_global_seq_seq') AS number FROM (SELECT global_seq FROM events WHERE global_seq < 1 "
        "ORDER BY global_seq) early) moved "
        "WHERE e.global_seq = moved.global_seq;",
    ),
    "starts below the feed": (
        "ALTER SEQUENCE events_global_seq_seq MINVALUE -9 RESTART WITH -5; "
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}')",
        "sequence-position", ERROR,
        "SELECT setval('events_global_seq_seq', (SELECT greatest(max(global_seq), 0) + 1 FROM events), false);",
    ),
    "nearly at its end": (
        "ALTER SEQUENCE events_global_seq_seq AS integer; SELECT setval('events_global_seq_seq', 2000000000)",
        "sequence-room", WARNING, "ALTER SEQUENCE events_global_seq_seq AS bigint MAXVALUE 9223372036854775807;",
    ),
    "no default": (
        "ALTER TABLE events ALTER COLUMN global_seq DROP DEFAULT", "sequence-default", ERROR,
        "ALTER TABLE events ALTER COLUMN global_seq SET DEFAULT nextval('events_global_seq_seq');",
    ),
    "default computed": (
        "ALTER TABLE events ALTER COLUMN global_seq SET DEFAULT nextval('events_global_seq_seq') * 2",
        "sequence-default", ERROR,
        "ALTER TABLE events ALTER COLUMN global_seq SET DEFAULT nextval('events_global_seq_seq');",
    ),
    "no sequence": (
        "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}'); "
        "ALTER TABLE events ALTER COLUMN global_seq DROP DEFAULT; DROP SEQUENCE events_global_seq_seq",
        "sequence-default", ERROR,
        "CREATE SEQUENCE events_global_seq_seq OWNED BY events.global_seq;",
        "SELECT setval('events_global_seq_seq', (SELECT greatest(max(global_seq), 0) + 1 FROM events), false);",
        "ALTER TABLE events ALTER COLUMN global_seq SET DEFAULT nextval('events_global_seq_seq');",
    ),
    "no trigger": ("DROP TRIGGER events_doorbell ON events", "doorbell", WARNING, "esx init"),
    "trigger disabled": (
        "ALTER TABLE events DISABLE TRIGGER events_doorbell", "doorbell", WARNING,
        "ALTER TABLE events ENABLE TRIGGER events_doorbell;",
    ),
    "trigger for replicas only": (
        "ALTER TABLE events ENABLE REPLICA TRIGGER events_doorbell", "doorbell", WARNING,
        "ALTER TABLE events ENABLE TRIGGER events_doorbell;",
    ),
    "trigger of another kind": (
        "CREATE OR REPLACE TRIGGER events_doorbell AFTER INSERT OR UPDATE ON events "
        "FOR EACH ROW EXECUTE FUNCTION esx_ring_doorbell()", "doorbell", WARNING, "esx init",
    ),
    "trigger with another function of that name": (
        "CREATE SCHEMA theirs; CREATE FUNCTION theirs.esx_ring_doorbell() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RETURN NULL; END'; CREATE OR REPLACE TRIGGER events_doorbell AFTER INSERT ON events "
        "FOR EACH ROW EXECUTE FUNCTION theirs.esx_ring_doorbell()", "doorbell", WARNING, "esx init",
    ),
    "trigger without its function": (
        "CREATE SCHEMA theirs; ALTER FUNCTION esx_ring_doorbell() SET SCHEMA theirs", "doorbell", WARNING, "esx init",
    ),
    "function changed": (
        "CREATE OR REPLACE FUNCTION esx_ring_doorbell() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM pg_notify('new_events', ''); RETURN NULL; END$$", "functions", WARNING, "esx init",
    ),
    "function missing": ("DROP FUNCTION esx_lock_stream(text)", "functions", WARNING, "esx init"),
    "table missing": ("DROP TABLE stream_locks", "tables", WARNING, "esx init"),
    "consumers without id": (
        "ALTER TABLE consumers DROP COLUMN id CASCADE; INSERT INTO consumers (name) VALUES ('a'), ('b')", "projections",
        WARNING, "ALTER TABLE consumers ADD COLUMN id INT NOT NULL GENERATED ALWAYS AS IDENTITY;", "esx init",
    ),
    "consumers without much": (
        "DROP VIEW projections; ALTER TABLE consumers DROP COLUMN updated_at, DROP COLUMN paused, "
        "DROP COLUMN last_error, DROP COLUMN kind, DROP COLUMN history; INSERT INTO consumers (name) VALUES ('a')",
        "projections", WARNING,
        "ALTER TABLE consumers ADD COLUMN paused BOOLEAN NOT NULL DEFAULT false, ADD COLUMN last_error TEXT, "
        "ADD COLUMN updated_at TIMESTAMPTZ NOT NULL DEFAULT now(), ADD COLUMN kind TEXT NOT NULL DEFAULT 'projection' "
        "CHECK (kind IN ('projection', 'relay')), ADD COLUMN history JSONB;", "esx init",
    ),
    "consumers without position": (
        "ALTER TABLE consumers DROP COLUMN position CASCADE; CREATE VIEW consumers_old AS SELECT 1", "projections",
        WARNING, "ALTER TABLE consumers RENAME TO consumers_old2;", "esx init",
    ),
    "consumers of another kind": (
        "DROP VIEW projections; ALTER TABLE consumers DROP CONSTRAINT consumers_position_check; "
        "ALTER TABLE consumers ALTER position DROP DEFAULT, ALTER position TYPE text; "
        "CREATE VIEW projections AS SELECT * FROM consumers", "projections", WARNING,
        "DROP VIEW projections;", "ALTER TABLE consumers RENAME TO consumers_old;", "esx init",
    ),
    "no view of projections": ("DROP VIEW projections", "projections", WARNING, "esx init"),
    "another trigger notifies by a function of that name": (
        "CREATE SCHEMA theirs; "
        + _NOTIFIER.replace("shout()", "theirs.esx_ring_doorbell()"), "other-triggers", INFO,
        "ALTER TABLE events DISABLE TRIGGER shouts;",
    ),
    "another trigger notifies": (
        _NOTIFIER, "other-triggers", INFO, "ALTER TABLE events DISABLE TRIGGER shouts;",
    ),
}  # fmt: skip


PARTS = (
    {"not-null", "event-id", "columns", "unlogged", "collation"},
    {"unique-stream-seq", "primary-key", "redundant-index", "correlation-index", "global-seq"},
    {"sequence-cache", "sequence-order", "sequence-position", "sequence-room", "sequence-default"},
    {"doorbell", "functions", "tables"},
    {"projections"},
    {"other-triggers"},
)
"""The checks of each part of a store: a fault of one part hides none of another."""
ALONE = "no metadata"
"""Where an event cannot be read, nothing else is examined."""
_OF_PARTS = [[name for name, case in BROKEN.items() if case[1] in part and name != ALONE] for part in PARTS]
TOGETHER = [[ALONE], *([name for name in names if name is not None] for names in zip_longest(*_OF_PARTS))]
"""What is broken in one store: one thing in each part."""


async def test_none_of_what_can_be_broken_is_so_at_first(dsn: str) -> None:
    """The next test begins with such a store, each time."""
    checks = {str(case[1]) for case in BROKEN.values()}
    assert sorted(name for names in TOGETHER for name in names) == sorted(BROKEN)
    findings = [finding for finding in await examine(dsn) if finding.check in checks]
    assert sorted(finding.check for finding in findings) == sorted(checks)
    assert {finding.severity for finding in findings} == {OK}


@pytest.mark.slow
@pytest.mark.parametrize("names", TOGETHER, ids=", ".join)
async def test_what_is_broken_is_found_and_mended(names: list[str], dsn: str, sql: asyncpg.Connection) -> None:
    broken = {name: BROKEN[name] for name in names}
    for breaking, *_ in broken.values():
        await sql.execute(str(breaking))
    async with EventStore.connect(dsn, read_only=True) as reading:
        findings = await reading.doctor()
        for name, (_, check, severity, *remedy) in broken.items():
            about = [each for each in findings if each.check == check]
            assert [(each.severity, list(each.remedy)) for each in about] == [(severity, remedy)], name
            assert not [step for each in about for step in each.remedy if _UNTOLD.search(step)], name
        # Those of projections first, without which `esx init` mends nothing.
        for finding in sorted(findings, key=lambda each: each.check != "projections"):
            if finding.check in [case[1] for case in broken.values()]:
                await run(dsn, finding)
        findings = await reading.doctor()
        for name, (_, check, *_) in broken.items():
            assert [each.severity for each in findings if each.check == check] == [OK], name


@pytest.mark.slow
async def test_no_table(empty_dsn: str) -> None:
    assert list(wrong(await examine(empty_dsn, full=True))) == ["table"]
    finding = await one(empty_dsn, "table")
    assert (finding.severity, finding.remedy) == (ERROR, ("esx init",))
    await run(empty_dsn, finding)
    assert wrong(await examine(empty_dsn, full=True)) == {}


async def test_a_table_that_is_not_ours(empty_dsn18: str) -> None:
    connection = await asyncpg.connect(empty_dsn18)
    await connection.execute("CREATE TABLE events (id int, name text)")
    finding = await one(empty_dsn18, "columns", full=True)
    assert "stream_seq" in finding.message
    assert finding.remedy == ("CREATE DATABASE esx;", "esx init -d esx")
    await connection.execute("DROP TABLE events; CREATE VIEW events AS SELECT 1 AS global_seq")
    await connection.close()
    assert "a view" in (await one(empty_dsn18, "table")).message


@pytest.mark.slow
async def test_the_classic_table(empty_dsn: str) -> None:
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(
        "CREATE TABLE events (global_seq BIGSERIAL PRIMARY KEY, stream_id TEXT NOT NULL, stream_seq BIGINT NOT NULL, "
        "event_type TEXT NOT NULL, data JSONB NOT NULL, metadata JSONB, created_at TIMESTAMPTZ DEFAULT now(), "
        "UNIQUE (stream_id, stream_seq));"
        "CREATE INDEX idx_stream ON events (stream_id, stream_seq); CREATE INDEX idx_global ON events (global_seq)"
    )
    await connection.close()
    findings = await examine(empty_dsn, full=True)
    assert set(wrong(findings)) == {"not-null", "event-id", "redundant-index", "doorbell", "functions", "tables"}
    for finding in findings:
        if finding.remedy and finding.check not in _TESTS_ONLY | {"checksums"}:
            await run(empty_dsn, finding)
    assert wrong(await examine(empty_dsn, full=True)) == {}


@pytest.mark.slow
async def test_an_identity_column_is_as_good_as_a_default(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        "ALTER TABLE events ALTER COLUMN global_seq DROP DEFAULT; DROP SEQUENCE events_global_seq_seq; "
        "ALTER TABLE events ALTER COLUMN global_seq ADD GENERATED BY DEFAULT AS IDENTITY (CACHE 5)"
    )
    await connection.close()
    assert set(wrong(await examine(dsn18))) == {"sequence-cache"}
    await run(dsn18, await one(dsn18, "sequence-cache"))
    assert wrong(await examine(dsn18)) == {}


@pytest.mark.slow
async def test_a_primary_key_of_the_stream_is_no_unique_constraint(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        f"{_DROP_UNIQUE}; ALTER TABLE events DROP CONSTRAINT events_pkey; "
        "ALTER TABLE events ADD PRIMARY KEY (stream_id, stream_seq); CREATE INDEX own ON events (global_seq)"
    )
    await connection.close()
    finding = await one(dsn18, "unique-stream-seq")
    assert finding.remedy == (_ADD_UNIQUE,)
    primary = await one(dsn18, "primary-key")
    assert primary.severity is INFO
    await run(dsn18, finding)
    assert (await one(dsn18, "unique-stream-seq")).severity is OK


async def test_what_looks_redundant_but_is_not(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(
        "CREATE INDEX i1 ON events (stream_id) WHERE event_type = 'Opened';"
        "CREATE INDEX i2 ON events (stream_id text_pattern_ops);"
        'CREATE INDEX i3 ON events (stream_id COLLATE "POSIX", stream_seq);'
        "CREATE INDEX i4 ON events (stream_id, stream_seq) INCLUDE (event_type);"
        "CREATE INDEX i5 ON events (lower(stream_id));"
        "CREATE INDEX i6 ON events (stream_seq);"
        "CREATE UNIQUE INDEX i7 ON events (event_id);"
        "CREATE INDEX i8 ON events (event_type);"
        "CREATE INDEX i9 ON events USING hash (event_type);"
        'CREATE INDEX i10 ON events (event_type COLLATE "POSIX");'
        "CREATE INDEX i11 ON events (event_type, created_at) WHERE stream_seq = 0;"
        "CREATE INDEX i12 ON events (created_at, event_type);"
        "CREATE INDEX i13 ON events (created_at, event_type DESC);"
        "CREATE INDEX i14 ON events USING gin (data);"
        "CREATE INDEX i15 ON events USING gin (data jsonb_path_ops);"
        "CREATE INDEX i16 ON events USING brin (created_at);"
        "CREATE INDEX i17 ON events USING brin (created_at) WITH (pages_per_range = 7);"
        "CREATE INDEX i18 ON events (event_id, event_type)"
    )
    assert (await one(dsn, "redundant-index")).severity is OK


@pytest.mark.slow
async def test_what_repeats_another_but_is_needed(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        "CREATE UNIQUE INDEX older ON events (event_id); CREATE UNIQUE INDEX newer ON events (event_id);"
        "ALTER TABLE events REPLICA IDENTITY USING INDEX newer"
    )
    assert (await one(dsn18, "redundant-index")).remedy == ("DROP INDEX CONCURRENTLY older;",)
    await connection.execute("DROP INDEX newer; CREATE TABLE mine (event_id uuid REFERENCES events (event_id))")
    await connection.execute("CREATE UNIQUE INDEX newer ON events (event_id)")
    assert (await one(dsn18, "redundant-index")).remedy == ("DROP INDEX CONCURRENTLY newer;",)
    await connection.execute("CREATE INDEX newest ON events (event_type); CREATE INDEX of_all ON events (event_type)")
    await connection.close()
    assert [finding.remedy for finding in await found(dsn18, "redundant-index")] == [
        ("DROP INDEX CONCURRENTLY newer;",),
        ("DROP INDEX CONCURRENTLY of_all;",),
    ]


@pytest.mark.slow
async def test_an_invalid_index(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(_INSERT, "a", 0)
    await sql.execute(_INSERT, "b", 0)
    with pytest.raises(asyncpg.UniqueViolationError):
        await sql.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON events (event_type)")
    finding = await one(dsn, "invalid-index")
    assert (finding.severity, finding.remedy) == (WARNING, ("REINDEX INDEX CONCURRENTLY broken;",))
    with pytest.raises(asyncpg.UniqueViolationError):
        await run(dsn, finding)
    left = await found(dsn, "invalid-index")
    assert {finding.remedy for finding in left} == {
        ("REINDEX INDEX CONCURRENTLY broken;",),
        ("DROP INDEX CONCURRENTLY broken_ccnew;",),
    }
    await sql.execute("UPDATE events SET event_type = stream_id")
    for finding in left:
        await run(dsn, finding)
    assert (await one(dsn, "invalid-index")).severity is OK
    known = await index_facts.read_indexes(sql, Examined())
    building = replace(known, found=[replace(known.found[0], valid=False, building=True)])
    assert {finding.severity for finding in indexes.invalid(building)} == {INFO}


async def test_a_large_collated_table_is_a_warning(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute('ALTER TABLE events ALTER COLUMN stream_id TYPE text COLLATE "default"; ANALYZE events')
    await connection.close()
    assert (await one(dsn18, "collation", many_events=0)).severity is WARNING


@pytest.mark.slow
async def test_never_analysed(dsn: str, store: EventStore) -> None:
    await store.append("s", [NewEvent("T")])
    finding = await one(dsn, "statistics", large_bytes=0)
    assert (finding.severity, finding.remedy) == (WARNING, ("ANALYZE events;",))
    await run(dsn, finding)
    assert (await one(dsn, "statistics", large_bytes=0)).severity is OK


# -- what goes on ---------------------------------------------------------------------------------------------


@pytest.fixture
async def writer(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """An open transaction that has appended."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "batch\x1b[31m"})
    await connection.execute("BEGIN")
    await connection.execute(_INSERT, "held", 0)
    yield connection
    connection.terminate()


async def gone(dsn: str, check: str) -> None:
    """Return once the check finds nothing wrong: a session ends a moment after it was told to."""
    async with asyncio.timeout(120):
        while (await one(dsn, check)).severity is not OK:
            pass


@pytest.mark.slow
async def test_an_open_writer(dsn: str, writer: asyncpg.Connection) -> None:
    assert "1 open writers" in (await one(dsn, "open-writers")).message
    finding = await one(dsn, "open-writers", writer_warning=0.0)
    pid = writer.get_server_pid()
    assert (finding.severity, finding.remedy) == (WARNING, (f"{_UNDOES}SELECT pg_terminate_backend({pid});",))
    assert all(part in finding.message for part in (f"pid {pid}", "batch", "postgres", "idle in transaction", "feed"))
    assert "\x1b" not in finding.message
    assert (await one(dsn, "open-writers", writer_warning=0.0, writer_error=0.0)).severity is ERROR
    await run(dsn, finding)
    await gone(dsn, "open-writers")


@pytest.mark.slow
async def test_a_locked_table(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("BEGIN; LOCK TABLE events")
    findings = wrong(await examine(dsn, full=True, writer_warning=0.0))
    assert set(findings) == {"table", "table-lock"}
    assert "in time" in findings["table"].message
    assert [row["mode"] for row in await run(dsn, findings["table"])] == ["AccessExclusiveLock"]
    await run(dsn, findings["table-lock"])
    await gone(dsn, "table-lock")
    assert wrong(await examine(dsn)) == {}


async def test_a_long_transaction(dsn: str, sql: asyncpg.Connection) -> None:
    async with sql.transaction(isolation="repeatable_read"):
        await sql.execute("SELECT 1")
        pid = sql.get_server_pid()
        long = await found(dsn, "long-transactions", long=0.0)
        about = [finding for finding in long if f"pid {pid} " in finding.message]
        assert [(f.severity, f.remedy) for f in about] == [(INFO, (f"{_UNDOES}SELECT pg_terminate_backend({pid});",))]


@pytest.mark.slow
@pytest.mark.parametrize("version", [16, 18])
async def test_a_prepared_transaction_is_named_and_ended(version: int) -> None:
    async with preparing_server(version) as server:
        await prepare_append(server.dsn, "it''s")
        for restarted in (False, True):
            if restarted:
                server.restart()
            assert (await one(server.dsn, "open-writers")).message.startswith("1 open writers, none")
            finding = await one(server.dsn, "open-writers", writer_warning=0.0)
            assert "prepared" not in (await one(server.dsn, "long-transactions", long=0.0)).message
            assert (finding.severity, finding.remedy) == (
                WARNING,
                ("/* UNDOES what it has written */ ROLLBACK PREPARED 'it''s';",),
            )
            assert finding.message.startswith("prepared transaction it's (postgres, open for ")
            assert finding.message.endswith(" has written to events and holds the feed until it ends")
        await run(server.dsn, finding)
        assert (await one(server.dsn, "open-writers")).message.startswith("0 open writers, none")
        connection = await asyncpg.connect(server.dsn)
        await connection.execute("BEGIN; LOCK TABLE events; INSERT INTO stream_locks VALUES ('s')")
        await connection.execute("PREPARE TRANSACTION 'lock'")
        await connection.close()
        finding = await one(server.dsn, "table-lock", writer_warning=0.0)
        assert finding.remedy == ("/* UNDOES what it has written */ ROLLBACK PREPARED 'lock';",)
        await run(server.dsn, finding)
        assert (await one(server.dsn, "table-lock")).severity is OK


@pytest.mark.parametrize(("used", "severity"), [(0.1, OK), (0.11, WARNING), (0.51, ERROR)])
def test_the_queue_of_notifications(used: float, severity: Severity) -> None:
    oldest = activity.OpenTransaction(7, None, 4000.0, "idle in transaction", "psql", "me")
    [finding] = activity.notifications(activity.Activity(queue=used, oldest=oldest))
    assert finding.severity is severity
    if severity is not OK:
        assert "pid 7" in finding.message
        assert finding.remedy == (f"{_UNDOES}SELECT pg_terminate_backend(7);",)
        [nameless] = activity.notifications(activity.Activity(queue=used))
        assert nameless.remedy


def test_writers_that_are_not_shown_are_no_error() -> None:
    hidden = activity.OpenTransaction(7, None, None, None, None, "me")
    [finding] = activity.writers(activity.Activity(writers=[hidden], user="Some one"))
    assert (finding.severity, finding.remedy) == (INFO, ('GRANT pg_read_all_stats TO "Some one";',))
    prepared = activity.OpenTransaction(None, "gid", None, None, None, "me")
    [finding] = activity.writers(activity.Activity(writers=[hidden, prepared], user="me"))
    assert finding.message.startswith("1 open writers")


# -- projections ----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_projection_beyond_the_head(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await store.append("s", [NewEvent("T")])
    await sql.execute("INSERT INTO projections (name, position) VALUES ($1, 5)", "it's \x1b[31m\nme")
    finding = (await found(dsn, "projections"))[0]
    assert finding.severity is ERROR
    assert "\x1b" not in finding.message
    await run(dsn, finding)
    assert (await one(dsn, "projections")).severity is OK


@pytest.mark.slow
async def test_a_projection_that_failed_or_is_paused(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await store.append("s", [NewEvent("T"), NewEvent("T")])
    await sql.execute("INSERT INTO projections (name, position, last_error) VALUES ('p', 1, 'no such account')")
    failed = (await found(dsn, "projections"))[0]
    assert (failed.severity, failed.remedy) == (ERROR, ("esx read '$all' --from 2 --limit 1",))
    assert "no such account" in failed.message
    await sql.execute("UPDATE projections SET last_error = NULL, paused = true")
    paused = (await found(dsn, "projections"))[0]
    assert paused.severity is INFO
    assert "1 event behind" in paused.message
    await run(dsn, paused)
    assert (await one(dsn, "projections")).severity is OK


@pytest.mark.slow
async def test_a_projection_that_nobody_runs(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await store.append("s", [NewEvent("T")])
    await sql.execute("INSERT INTO projections (name) VALUES ('p')")
    assert (await one(dsn, "projections")).severity is OK
    await sql.execute("UPDATE events SET created_at = now() - interval '1 h'")
    assert (await one(dsn, "projections")).severity is OK
    await sql.execute("UPDATE projections SET updated_at = now() - interval '1 h'")
    finding = (await found(dsn, "projections"))[0]
    assert finding.severity is WARNING
    assert "no program runs it" in finding.message


def test_a_projection_held_by_a_writer_names_it() -> None:
    from esx.store.feed.batch import Writer

    now = datetime.now(UTC)
    status = ProjectionStatus(
        name="p", position=1, head=9, lag=5, lag_seconds=900.0, paused=False, owner=None,
        held_by=(Writer("3/7", 4711, now, "active", "psql"),), last_error=None, updated_at=now - timedelta(hours=1),
    )  # fmt: skip
    finding, _ = projections.progress(projections.ProjectionFacts((status,), now))
    assert (finding.severity, finding.remedy) == (WARNING, ("SELECT pg_terminate_backend(4711);",))


# -- the server -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bad", "check", "severity"),
    [
        ("synchronous_commit", "off", "synchronous-commit", INFO),
        ("track_activities", "off", "track-activities", WARNING),
        ("default_transaction_isolation", "serializable", "isolation", WARNING),
    ],
)
@pytest.mark.parametrize("scope", ["DATABASE {database}", "ROLE {role} IN DATABASE {database}", "ROLE {role}"])
async def test_settings_are_mended_where_they_were_made(
    name: str, bad: str, check: str, severity: Severity, scope: str, dsn18: str, role: Role
) -> None:
    connection = await asyncpg.connect(dsn18)
    database = await connection.fetchval("SELECT current_database()")
    where = scope.format(database=database, role=role.name)
    await connection.execute(f"ALTER {where} SET {name} = '{bad}'; GRANT SELECT ON events TO {role.name}")
    theirs = role.dsn(dsn18)
    finding = await one(theirs, check)
    assert finding.severity is severity
    assert finding.remedy[0].startswith(f"ALTER {where} SET {name} = ")
    await connection.execute(finding.remedy[0])
    await connection.close()
    assert (await one(theirs, check)).severity is OK


@pytest.mark.slow
async def test_forgotten_transactions(dsn18: str) -> None:
    finding = await one(dsn18, "idle-in-transaction")
    assert finding.severity is INFO
    await run(dsn18, finding)
    assert (await one(dsn18, "idle-in-transaction")).severity is OK


async def test_fsync_off(dsn: str) -> None:
    finding = await one(dsn, "fsync")
    assert finding.severity is ERROR
    assert finding.remedy == ("ALTER SYSTEM SET fsync = on;", "SELECT pg_reload_conf();")


_SERVER = server.ServerFacts(
    version=18, today=date(2026, 1, 1), database="Own", user="me", may_select=True, may_insert=True, may_draw=True,
    settings={
        name: server.Setting(value, "configuration file")
        for name, value in {
            "autovacuum": "on", "data_checksums": "on", "data_directory": "/pg data",
            "default_transaction_isolation": "read committed", "fsync": "on", "full_page_writes": "on",
            "idle_in_transaction_session_timeout": "300000", "max_connections": "100",
            "superuser_reserved_connections": "3", "synchronous_commit": "on", "track_activities": "on",
        }.items()
    },
)  # fmt: skip


def _with(**values: str) -> server.ServerFacts:
    changed = {name: server.Setting(value, "configuration file") for name, value in values.items()}
    return replace(_SERVER, settings={**_SERVER.settings, **changed})


@pytest.mark.parametrize(
    ("check", "facts", "severity", "remedy"),
    [
        (server.settings, _with(fsync="off"), ERROR, "ALTER SYSTEM SET fsync = on;"),
        (server.settings, _with(full_page_writes="off"), WARNING, "ALTER SYSTEM SET full_page_writes = on;"),
        (server.settings, _with(autovacuum="off"), WARNING, "ALTER SYSTEM SET autovacuum = on;"),
        (server.checksums, _with(data_checksums="off"), INFO, "pg_checksums --enable -D '/pg data'"),
        (server.connections, replace(_SERVER, connections=90), WARNING, "ALTER SYSTEM SET max_connections = 200;"),
        (server.standby, replace(_SERVER, recovering=True), INFO, None),
        (server.version, replace(_SERVER, version=13), WARNING, "see https://"),
        (server.version, replace(_SERVER, version=14, today=date(2027, 1, 1)), INFO, "see https://"),
        (server.rights, replace(_SERVER, may_insert=False), INFO, "GRANT INSERT ON events TO me;"),
        (server.visibility, replace(_SERVER, may_see_all=False), INFO, "GRANT pg_read_all_stats TO me;"),
    ],
)
def test_what_a_test_cannot_do_to_its_server(
    check: Callable[[server.ServerFacts], Iterator[Finding]],
    facts: server.ServerFacts,
    severity: Severity,
    remedy: str | None,
) -> None:
    assert {finding.severity for finding in check(_SERVER)} == {OK}
    [finding] = [finding for finding in check(facts) if finding.severity is not OK]
    assert finding.severity is severity
    assert finding.remedy[0].startswith(remedy) if remedy else finding.remedy == ()


@pytest.mark.slow
async def test_a_user_without_rights(dsn18: str, role: Role) -> None:
    theirs = role.dsn(dsn18)
    rights = await one(theirs, "rights")
    assert rights.severity is ERROR
    assert "nothing can be shown" in rights.message
    assert len(rights.remedy) == 4
    assert [*wrong(await examine(theirs))] == [*wrong(await examine(theirs, full=True))] == ["rights"]
    checks = ("rights", "rights-activity", "sequence-position", "projections")
    mended = [finding for finding in await examine(theirs) if finding.check in checks]
    assert sorted(finding.check for finding in mended) == sorted(checks)
    for finding in sorted(mended, key=lambda each: checks.index(each.check)):
        await run(dsn18, finding)
    assert await sound(theirs, *checks)


@pytest.mark.slow
async def test_a_writer_needs_the_rights_to_lock(dsn18: str, role: Role) -> None:
    await role.grant("SELECT, INSERT ON events", "USAGE ON SEQUENCE events_global_seq_seq", "SELECT ON stream_locks")
    rights = await one(role.dsn(dsn18), "rights")
    assert (rights.severity, rights.remedy) == (INFO, (f"GRANT INSERT, UPDATE ON stream_locks TO {role.name};",))
    assert rights.message.endswith(" may not: INSERT stream_locks, UPDATE stream_locks")
    await run(dsn18, rights)
    assert (await one(role.dsn(dsn18), "rights")).severity is OK
    async with EventStore.connect(role.dsn(dsn18)) as store, store.lock_stream("s") as stream:
        await stream.append([NewEvent("T")])
    connection = await asyncpg.connect(dsn18)
    await connection.execute("DROP TABLE stream_locks")
    await connection.close()
    assert (await one(role.dsn(dsn18), "rights")).severity is OK


@pytest.mark.slow
async def test_policies_that_hide_events(dsn18: str, role: Role) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(f"ALTER TABLE events ENABLE ROW LEVEL SECURITY; GRANT SELECT ON events TO {role.name}")
    await connection.close()
    superuser = await one(dsn18, "row-security")
    assert (superuser.severity, superuser.remedy) == (INFO, ())
    assert "bypasses" in superuser.message
    finding = await one(role.dsn(dsn18), "row-security")
    assert finding.severity is WARNING
    await run(dsn18, finding)
    assert (await one(role.dsn(dsn18), "row-security")).severity is OK


# -- every event ----------------------------------------------------------------------------------------------

FAULTS = {
    "hole": ("DELETE FROM events WHERE stream_id = 'b' AND stream_seq = 2", "stream-seq", ERROR, "b after 1"),
    "start": ("DELETE FROM events WHERE stream_id = 'b' AND stream_seq = 0", "stream-seq", WARNING, "b@1"),
    "negative": (
        "UPDATE events SET stream_seq = -1 WHERE stream_id = 'b' AND stream_seq = 0", "stream-seq", ERROR, "b@-1",
    ),
    "inverted": (
        "UPDATE events SET global_seq = 1000 WHERE stream_id = 'b' AND stream_seq = 1", "stream-order", ERROR, "b@2",
    ),
    "no type": ("UPDATE events SET event_type = '' WHERE stream_id = 'b'", "names", WARNING, "b@0, b@1, b@2, ..."),
    "no stream id": ("UPDATE events SET stream_id = '' WHERE stream_id = 'b'", "names", WARNING, "@0, @1, @2, ..."),
    "reserved": ("UPDATE events SET stream_id = '$b' WHERE stream_id = 'b'", "names", WARNING, "$b@0"),
    "same id": (
        "UPDATE events SET event_id = gen_random_uuid(); "
        "UPDATE events SET event_id = '3f0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11' WHERE stream_id = 'b'",
        "event-id-twice", WARNING, "3f0b1c9e-52a7-4c39-a6f3-0e5f4a0f9c11",
    ),
    "infinite": (
        "UPDATE events SET created_at = 'infinity' WHERE stream_id = 'b' AND stream_seq = 1",
        "created-at", ERROR, "b@1",
    ),
    "null": (
        "ALTER TABLE events ALTER COLUMN created_at DROP NOT NULL; "
        "UPDATE events SET created_at = NULL WHERE global_seq = 1", "created-at", ERROR, "a@0",
    ),
    "future": (
        "UPDATE events SET created_at = now() + interval '2 years' WHERE stream_id = 'b' AND stream_seq = 1",
        "created-at", WARNING, "b@1",
    ),
}  # fmt: skip


PAGES = (1, 2, 3, 50_000)


async def _streams_of_four(store: EventStore, sql: asyncpg.Connection, *, unique: bool) -> None:
    for stream in ("a", "b", "c"):
        await store.append(stream, [NewEvent("T") for _ in range(4)])
    if not unique:
        await sql.execute(_DROP_UNIQUE)


@pytest.mark.slow
@pytest.mark.parametrize("unique", [True, False])
async def test_events_without_fault(unique: bool, dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    """The next test begins with such a store, each time."""
    await _streams_of_four(store18, sql18, unique=unique)
    async with EventStore.connect(dsn18, read_only=True) as reading:
        for page in PAGES:
            findings = await reading.doctor(full=True, thresholds=Thresholds(page=page))
            assert set(wrong(findings)) == (set() if unique else {"unique-stream-seq"})


@pytest.mark.slow
@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS.keys())
async def test_events_at_fault(
    case: tuple[str, str, Severity, str], unique: bool, dsn18: str, store18: EventStore, sql18: asyncpg.Connection
) -> None:
    breaking, check, severity, named = case
    await _streams_of_four(store18, sql18, unique=unique)
    async with EventStore.connect(dsn18, read_only=True) as reading:

        async def looked(page: int) -> list[Finding]:
            findings = await reading.doctor(full=True, thresholds=Thresholds(page=page))
            return [finding for finding in findings if finding.check == check]

        await sql18.execute(breaking)
        for page in PAGES:
            at_fault = [finding for finding in await looked(page) if finding.severity.wrong]
            assert severity in {finding.severity for finding in at_fault}
            [finding] = [finding for finding in at_fault if finding.severity is severity and named in finding.message]
            assert not [step for step in finding.remedy if _UNTOLD.search(step)]
        rows = await run(dsn18, finding)
        if "UPDATE" in finding.remedy[0]:
            assert [each.severity for each in await looked(2)] == [OK]
        else:
            assert rows  # it shows which events these are


@pytest.mark.slow
async def test_places_that_are_taken_twice(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute(_DROP_UNIQUE)
    assert (await one(dsn, "stream-seq-twice", full=True)).severity is OK
    for _ in range(2):
        await sql.execute(_INSERT, "a", 0)
    finding = await one(dsn, "stream-seq-twice", full=True)
    assert finding.severity is ERROR
    assert "a@0" in finding.message
    assert [list(row) for row in await run(dsn, finding)] == [["a", 0, [1, 2]]]
    assert "2 events of 1 stream" in (await one(dsn, "stream-seq", full=True)).message
    await sql.execute(_INSERT, "a", 2)
    hole = await one(dsn, "stream-seq", full=True)
    assert hole.severity is ERROR
    assert "1 hole in the numbers of streams, where events were deleted or lost: a after 0" in hole.message
    assert (await one(dsn, "stream-order", full=True)).severity is OK


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize("without", ["nothing", "primary key", "sequence"])
async def test_events_below_the_start_of_the_feed(dsn: str, sql: asyncpg.Connection, without: str) -> None:
    async with EventStore.connect(dsn) as store:
        await store.append("new", [NewEvent("T")])
    for seq in (0, 1, 2):
        await sql.execute(
            "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) "
            "VALUES ($1, 'old', $2, 'T', '{}')",
            -30 + 10 * seq,
            seq,
        )
    if without == "primary key":
        await sql.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
        assert await found(dsn, "global-seq") == []  # looking for it would scan the table
    if without == "sequence":
        await sql.execute(
            "ALTER TABLE events ALTER COLUMN global_seq DROP DEFAULT; DROP SEQUENCE events_global_seq_seq"
        )
    finding = await one(dsn, "global-seq", full=True)
    assert finding.severity is ERROR
    assert "events has numbers from -30" in finding.message
    rows = await run(dsn, finding)
    if without == "sequence":
        assert [row["global_seq"] for row in rows] == [-30, -20, -10]
        return
    assert await sound(dsn, "global-seq", "stream-order", full=True)
    async with EventStore.connect(dsn) as store:
        feed = await store.feed()
        places = [(e.stream_id, e.stream_seq) async for batch in feed.to_safe_position() for e in batch.events]
    assert places == [("new", 0), ("old", 0), ("old", 1), ("old", 2)]


@pytest.mark.slow
async def test_numbers_that_are_taken_twice(dsn: str, sql: asyncpg.Connection) -> None:
    assert await found(dsn, "global-seq-twice", full=True) == []
    await sql.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
    assert (await one(dsn, "global-seq-twice", full=True)).severity is OK
    for stream in ("a", "b"):
        await sql.execute(
            "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES (5, $1, 0, 'T', '{}')",
            stream,
        )
    finding = await one(dsn, "global-seq-twice", full=True)
    assert finding.severity is ERROR
    assert finding.message.endswith("e.g. 5")
    assert [(row[0], sorted(row[1])) for row in await run(dsn, finding)] == [(5, ["a@0", "b@0"])]


async def test_where_event_ids_are_unique_they_are_not_counted(dsn18: str, store18: EventStore) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("CREATE UNIQUE INDEX own ON events (event_id)")
    await connection.close()
    assert await found(dsn18, "event-id-twice", full=True) == []


async def test_a_page_is_read_by_the_index(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    for stream in ("a", "b", "c"):
        await store.append(stream, [NewEvent("T") for _ in range(400)])
    await sql.execute("ANALYZE events")
    async with sql.transaction():
        await sql.execute(scan.BY_INDEX)
        plan = await sql.fetchval(f"EXPLAIN (FORMAT JSON) {scan.page_sql('events')}", "a", 5, 100, True)
    assert "events_stream_id_stream_seq_key" in plan
    assert "Sort" not in plan.replace("Sorted", "")
    assert "Seq Scan" not in plan


async def test_progress_and_cancelling(store: EventStore) -> None:
    await store.append("a", [NewEvent("T") for _ in range(10)])
    said: list[str] = []
    await store.doctor(full=True, on_progress=said.append, thresholds=Thresholds(page=4))
    assert [text.split()[0] for text in said] == ["4", "8", "10", "looking"]
    task: asyncio.Task[list[Finding]] | None = None

    def cancel(_text: str) -> None:
        assert task is not None
        task.cancel()

    task = asyncio.create_task(store.doctor(full=True, on_progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.version("a") == 9


# -- hostile names --------------------------------------------------------------------------------------------


async def test_hostile_names_are_shown_and_quoted(dsn: str, sql: asyncpg.Connection) -> None:
    name = 'x"; DROP TABLE events; --\x1b[31m\n\u202e'
    quoted = '"' + name.replace('"', '""') + '"'
    await sql.execute(f"CREATE INDEX {quoted} ON events (stream_id)")
    await sql.execute(_NOTIFIER.replace("TRIGGER shouts", f"TRIGGER {quoted}"))
    await sql.execute(_INSERT, name, 3)
    await sql.execute(_INSERT, name * 30, 3)
    findings = await examine(dsn, full=True)
    text = "".join(finding.message for finding in findings)
    assert not any(char in text for char in "\x1b\n\u202e")
    for finding in findings:
        if finding.check in ("redundant-index", "other-triggers", "stream-seq"):
            await run(dsn, finding)
    assert await sound(dsn, "redundant-index", "other-triggers")
    assert json.loads(findings[0].to_json())["check"] == findings[0].check


@pytest.mark.slow
async def test_a_hostile_sequence_name(dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute('ALTER SEQUENCE events_global_seq_seq RENAME TO "it\'s ""mine"""')
    await connection.execute('ALTER SEQUENCE "it\'s ""mine""" CACHE 5 CYCLE')
    await connection.execute(
        "INSERT INTO events (global_seq, stream_id, stream_seq, event_type, data) VALUES (7, 's', 0, 'T', '{}')"
    )
    await connection.close()
    for check in ("sequence-cache", "sequence-order", "sequence-position"):
        finding = await one(dsn18, check)
        assert finding.severity is ERROR
        await run(dsn18, finding)
    assert wrong(await examine(dsn18)) == {}


def test_schema_sql_is_understood() -> None:
    from esx.doctor.objects import expected

    assert len(expected().functions) == schema_sql().count("CREATE OR REPLACE FUNCTION")
    assert len(expected().tables) == schema_sql().count("CREATE TABLE")
    assert schema_sql().count("CREATE OR REPLACE TRIGGER") == 1
    assert [*projections.expected()] == [
        *("name", "id", "position", "paused", "last_error", "updated_at", "kind", "history"),
        *("error_seq", "failed_at", "rate", "host", "pid", "since", "backend", "seen_at", "start", "filter"),
    ]


@pytest.mark.one_older
@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "bytea_output = escape",
        "DateStyle = 'German'",
        "IntervalStyle = sql_standard",
        "extra_float_digits = -15",
        "search_path = pg_catalog, public",
    ],
)
async def test_it_says_the_same_whatever_a_session_is_set_to(
    dsn: str, sql: asyncpg.Connection, store: EventStore, setting: str
) -> None:
    """Such as how names and strings are spelled: by that it would take columns for others, and have them altered."""

    async def told() -> list[tuple[str, Severity, tuple[str, ...]]]:
        return [(each.check, each.severity, each.remedy) for each in await examine(dsn, full=True)]

    await store.append("s", [NewEvent("T"), NewEvent("T")])
    await sql.execute("CREATE INDEX mine ON events (stream_id); ALTER TABLE events ADD CHECK (stream_seq >= 0)")
    before = await told()
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE {name} SET {setting}")
    assert await told() == before


@pytest.mark.slow
async def test_a_unique_index_of_somebody_else_is_told(dsn18: str, sql18: asyncpg.Connection) -> None:
    assert (await one(dsn18, "other-unique-indexes")).severity is OK
    await sql18.execute("CREATE UNIQUE INDEX once ON events ((data ->> 'order'))")
    finding = await one(dsn18, "other-unique-indexes")
    assert (finding.severity, finding.remedy) == (INFO, ())
    assert "index once keeps" in finding.message


@pytest.mark.parametrize(("encoding", "severity"), [("LATIN1", INFO), ("SQL_ASCII", WARNING)])
async def test_an_encoding_that_lacks_characters_is_told(servers: Servers, encoding: str, severity: Severity) -> None:
    async with database(await servers.get(18), encoding) as dsn:
        finding = await one(dsn, "encoding")
        assert finding.severity is severity
        assert encoding in finding.message
