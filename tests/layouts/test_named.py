"""A store of another name, in another schema: named by the user, found in the catalogs, and quoted from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from esx import EventStore, NewEvent, SchemaMissing, StoreFailed, StoreNotNamed, Strategy, StreamAppend
from esx.doctor.finding import Severity
from esx.store.bulk.erase import Mark
from tests.support.partitions import COLUMNS, HASH, make

if TYPE_CHECKING:
    from esx.doctor.finding import Finding

_ODD = '"Tenant; DROP TABLE events"."It\'s ""here"""'
_MADE = (
    'CREATE SCHEMA "Tenant; DROP TABLE events";'
    f"CREATE TABLE {_ODD} ({COLUMNS}, PRIMARY KEY (global_seq), UNIQUE (stream_id, stream_seq))"
)


def wrong(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.severity.wrong} - {"fsync", "statistics"}


async def test_a_table_of_any_name_is_a_store_of_its_own(dsn: str, store: EventStore, sql: asyncpg.Connection) -> None:
    await sql.execute(_MADE)
    await store.append("s", [NewEvent("InEvents")] * 3)
    async with EventStore.connect(dsn, store=_ODD) as named:
        await named.append("s", [NewEvent("T", {"a": 1}, metadata={"run": "7"})])
        assert [event.event_type async for event in named.read_all()] == ["T"]
        assert (await named.health()).head == 1
        feed = await named.feed()
        assert [e.global_seq async for batch in feed.to_safe_position() for e in batch.events] == [1]
        lines = b"".join([piece async for piece in await named.export()])
        assert await named.delete_marked("s", Mark("run", "7")) == 1
        assert (await named.import_ndjson([lines])).stored == 1
        assert await named.version("s") == 0
        assert [stream.stream_id async for stream in named.streams()] == ["s"]
    assert await store.version("s") == 2


async def test_what_is_found_by_its_plain_name_belongs_to_events(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    """The lock's function reads events, and so do the checkpoints: for another table both would be wrong."""
    await sql.execute(_MADE)
    await store.append("s", [NewEvent("T")] * 5)

    async def handle(*_: object) -> None:
        raise AssertionError

    async with EventStore.connect(dsn, store=_ODD) as named:
        with pytest.raises(StoreFailed, match="row-level locking"):
            await named.append("s", [NewEvent("T")], strategy=Strategy.ROW_LOCK)
        with pytest.raises(StoreFailed, match="search_path"):
            await named.project("p", handle)
        await sql.execute("INSERT INTO projections (name, position) VALUES ('p', 3)")
        assert await named.projections() == []
        with pytest.raises(StoreFailed, match="leave the store's name out"):
            await named.init()
    async with EventStore.connect(dsn, store="public.events") as same:
        assert (await same.append("s", [NewEvent("T")], strategy=Strategy.ROW_LOCK)).version == 5
        assert [status.name for status in await same.projections()] == ["p"]


@pytest.mark.slow
async def test_the_doctor_examines_and_mends_the_table_that_is_named(
    dsn: str, store: EventStore, sql: asyncpg.Connection
) -> None:
    await sql.execute(_MADE)
    async with EventStore.connect(dsn, store=_ODD) as named:
        await named.append("s", [NewEvent("T")])
        found = {finding.check: finding for finding in await named.doctor(full=True)}
        assert wrong(list(found.values())) == {"doorbell"}
        await sql.execute(found["doorbell"].remedy[0])
        await sql.execute(
            f"INSERT INTO {_ODD} (global_seq, stream_id, stream_seq, event_type, data) VALUES (7, 't', 0, 'T', '{{}}')"
        )
        await sql.execute(f"ALTER TABLE {_ODD} ALTER COLUMN created_at DROP NOT NULL")
        found = {finding.check: finding for finding in await named.doctor(full=True)}
        assert wrong(list(found.values())) == {"sequence-position", "not-null"}
        for check in ("sequence-position", "not-null"):
            for step in found[check].remedy:
                await sql.execute(step)
        assert wrong(await named.doctor(full=True)) == set()
    assert wrong(await store.doctor(full=True)) == set()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.events", "no table or view nowhere.events"),
        ("Events2", "quote capitals"),
        ("events_pkey", "neither a table nor a view"),
        ("events_global_seq_seq", "neither a table nor a view"),
        ("a b c", "table"),
        ("x.y.z.w", "write it as SQL does"),
        ("other_db.public.events", "write it as SQL does"),
        ('"', "table"),
        ("stream_locks", "has no column global_seq"),
    ],
)
async def test_a_name_of_nothing_is_refused_in_one_line(name: str, reason: str, dsn18: str) -> None:
    async with EventStore.connect(dsn18, store=name) as named:
        with pytest.raises(SchemaMissing, match=reason) as refused:
            await named.head()
        assert "\n" not in str(refused.value)
        assert Severity.ERROR in {finding.severity for finding in await named.doctor()}


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
async def test_a_view_that_is_merely_found_is_not_read(kind: str, empty_dsn: str) -> None:
    """Not one row, whatever is asked: its owner's code would run."""
    admin = await asyncpg.connect(empty_dsn)
    await admin.execute(
        f"CREATE SCHEMA real; CREATE TABLE real.events ({COLUMNS}); CREATE TABLE ran (); "
        "CREATE FUNCTION run() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran DEFAULT VALUES; "
        "RETURN true; END $$;"
        "INSERT INTO real.events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '{}');"
        f"CREATE {kind} events AS SELECT * FROM real.events WHERE run(); TRUNCATE public.ran"
    )
    async with EventStore.connect(empty_dsn) as store:
        for asking in (
            store.head(),
            store.health(),
            store.feed(),
            store.append("s", [NewEvent("T")]),
            store.has_schema(),
            store.version("s"),
            anext(aiter(store.read_all())),
        ):
            with pytest.raises(StoreNotNamed) as refused:
                await asking
        said = str(refused.value)
        assert "\n" not in said
        assert f"public.events is a {kind.lower()} of user postgres" in said
        assert "--store public.events" in said
        with pytest.raises(StoreFailed, match="something else than a table"):
            await store.init()
        findings = await store.doctor(full=True)
        [table] = [finding for finding in findings if finding.check == "table"]
        assert table.severity is Severity.ERROR
        assert table.remedy == ("esx doctor --store public.events",)
        assert not any("CREATE DATABASE" in step for finding in findings for step in finding.remedy)
    assert await admin.fetchval("SELECT count(*) FROM ran") == 0
    await admin.close()


async def test_nothing_is_appended_through_a_view(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("CREATE VIEW shown AS SELECT * FROM events")
    async with EventStore.connect(dsn, store="shown") as store:
        assert "user postgres" in (await store.warning() or "")
        locking = store.lock_stream("s")
        for asking in (
            store.append("s", [NewEvent("T")]),
            store.append("s", [NewEvent("T")], strategy=Strategy.ROW_LOCK),
            store.append_to_streams([StreamAppend("s", [NewEvent("T")])]),
            locking.__aenter__(),
            store.import_ndjson([b'{"stream_id": "s", "event_type": "T", "data": {}}']),
            store.import_events([]),
            store.delete_marked("s", Mark("run", "7")),
        ):
            with pytest.raises(StoreFailed, match=r"public\.shown is a view: esx appends to tables only"):
                await asking
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


@pytest.mark.parametrize("table", ["plain", "hash"])
async def test_the_doctor_examines_the_table_behind_a_view(table: str, empty_dsn: str) -> None:
    await make(empty_dsn, HASH if table == "hash" else "SELECT 1")
    admin = await asyncpg.connect(empty_dsn)
    await admin.execute("CREATE VIEW shown AS SELECT * FROM events")
    async with EventStore.connect(empty_dsn, store="shown") as store:
        assert wrong(await store.doctor(full=True)) == set()
        await admin.execute("ALTER SEQUENCE events_global_seq_seq CACHE 20")
        assert wrong(await store.doctor()) == {"sequence-cache"}
        await admin.execute("CREATE OR REPLACE VIEW shown AS SELECT * FROM events WHERE random() < 2")
    async with EventStore.connect(empty_dsn, store="shown") as store:
        assert wrong(await store.doctor()) == {"order"}
    await admin.close()
