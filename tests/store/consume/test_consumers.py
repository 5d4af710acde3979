"""A checkpoint belongs to one history: what stops a projection, what lets it go on, and what older versions do."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import EventStore, HistoryChanged, NewEvent, ProjectionFailed, SchemaMissing, StoreFailed, UnknownProjection
from esx.doctor.finding import Severity
from esx.layouts.layout import Layout
from esx.store.bulk.erase import Mark
from esx.store.consume.checkpoints import CheckpointRow
from esx.store.feed.comparison import DifferenceKind
from esx.store.feed.history import history_at
from tests.cli.support import esx
from tests.store.consume.test_projection import at, fill, handled, note, read, read18, running, status, until
from tests.support.roles import new_role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from esx import Event
    from esx.embedded import EmbeddedServer

pytestmark = pytest.mark.slow

__all__ = ["read", "read18"]  # fixtures

_DEADLINE = 120.0
SCHEMA_1 = Path(__file__).with_name("schema_1.sql").read_text()
SCHEMA_2 = Path(__file__).with_name("schema_2.sql").read_text()


async def project_to(store: EventStore, position: int, name: str = "p", stream: str | None = None) -> None:
    """Let a projection come to a position, and stop it."""
    async with running(store.project(name, note, stream=stream)) as task:
        await at(store, position, task, name=name)


async def stopped(store: EventStore, name: str = "p") -> HistoryChanged:
    """Run a projection that is to end with HistoryChanged."""
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(HistoryChanged) as changed:
            await store.project(name, note)
    assert changed.value.projection == name
    assert f"HistoryChanged: projection {name} is at" in ((await status(store, name)).last_error or "")
    return changed.value


async def history(read: asyncpg.Connection, name: str = "p") -> dict[str, object]:
    text = await read.fetchval("SELECT history::text FROM projections WHERE name = $1", name)
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


async def keeps(read: asyncpg.Connection, count: int) -> bool:
    """Return whether so many events are known of, up to where the projection is."""
    kept = await read.fetchval("SELECT history::text FROM projections WHERE name = 'p'")
    return kept is not None and json.loads(kept)["count"] == count


# -- another history ------------------------------------------------------------------------------------------


@pytest.mark.one_older
@pytest.mark.parametrize("count", [0, 3, 20])
async def test_a_truncated_table_ends_it(store: EventStore, read: asyncpg.Connection, dsn: str, count: int) -> None:
    await fill(store, 10)
    await project_to(store, 10)
    await read.execute("TRUNCATE events RESTART IDENTITY")
    if count:
        await fill(store, count)
    changed = await stopped(store)
    assert (changed.position, changed.head, changed.erased) == (10, count, ())
    assert await handled(read) == list(range(1, 11))
    known = await status(store)
    assert known.difference is not None
    assert (known.difference.kind, known.beyond) == (DifferenceKind.CHANGED, max(10 - count, 0))
    shown = esx("health", "-d", dsn).stdout
    assert f"p: at 10, {f'{10 - count} beyond the head' if count < 10 else f'{count - 10} behind'}" in shown
    assert "another history: " in shown
    [figures] = json.loads(esx("health", "--json", "-d", dsn).stdout)["projections"]
    assert (figures["history"]["kind"], figures["beyond_head"]) == ("changed", max(10 - count, 0))
    # Nothing goes on by itself, and what the doctor says rebuilds.
    assert (await stopped(store)).position == 10
    [finding] = [f for f in await store.doctor() if f.check == "projections" and f.severity is Severity.ERROR]
    assert "SKIPS" in finding.message or "skips nothing" in finding.message
    [remedy] = finding.remedy
    assert remedy.startswith("/* REBUILDS")
    async with read.transaction():
        await read.execute("DELETE FROM handled")
        await read.fetch(remedy)
    await project_to(store, count)
    assert await handled(read) == list(range(1, count + 1))


async def test_a_truncated_table_ends_one_that_runs(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 10)
    projecting = asyncio.create_task(store18.project("p", note))
    await at(store18, 10, projecting)
    await read18.execute("TRUNCATE events RESTART IDENTITY")
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(HistoryChanged, match="beyond the head"):
            await projecting


@pytest.mark.one_older
@pytest.mark.parametrize("later", [2, 7])
async def test_an_older_dump_ends_it(
    dsn: str, server: EmbeddedServer, store: EventStore, read: asyncpg.Connection, later: int
) -> None:
    await fill(store, 5)
    dump = subprocess.run(
        [server.bin_dir / "pg_dump", "--table=events", dsn], check=True, capture_output=True, text=True
    ).stdout
    await fill(store, 5)
    await project_to(store, 10)
    await read.execute("DROP TABLE events CASCADE")
    subprocess.run(
        [server.bin_dir / "psql", "-q", "-v", "ON_ERROR_STOP=1", dsn],
        check=True,
        capture_output=True,
        input=dump,
        text=True,
    )
    async with EventStore.connect(dsn) as again:
        await fill(again, later)
        changed = await stopped(again)
    assert (changed.head, changed.erased) == (5 + later, ())


async def test_a_position_set_beyond_the_head_ends_it(store18: EventStore, read18: asyncpg.Connection) -> None:
    """Nothing is known of its history, but that it cannot be there."""
    await fill(store18, 6)
    await read18.execute("INSERT INTO projections (name, position) VALUES ('p', 100)")
    changed = await stopped(store18)
    assert (changed.position, changed.head) == (100, 6)


async def test_a_history_that_cannot_be_read_ends_it(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 2)
    await project_to(store18, 2)
    await read18.execute("""UPDATE projections SET history = '{"position": true}'""")
    assert "cannot be read" in (await stopped(store18)).reason


# -- erased events --------------------------------------------------------------------------------------------


async def test_erased_events_are_asked_about(store: EventStore, read: asyncpg.Connection) -> None:
    await fill(store, 30)
    await project_to(store, 30)
    await read.execute("DELETE FROM events WHERE global_seq IN (3, 20, 30)")
    changed = await stopped(store)
    assert (changed.position, changed.head, changed.erased) == (30, 30, (20, 30))
    assert "3 of the 30 events between 1 and 30 are gone" in changed.reason
    [finding] = [f for f in await store.doctor() if f.check == "projections" and f.severity is Severity.ERROR]
    assert "accept_history('p')" in finding.message
    await store.accept_history("p")
    assert (await status(store)).last_error is None
    assert (await status(store)).difference is None
    await fill(store, 2)
    await project_to(store, 32)
    assert await handled(read) == list(range(1, 33))


async def test_an_event_that_the_filter_passed_over_is_missed_too(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await store18.append("account-1", [NewEvent("T")])
    await fill(store18, 30)
    await project_to(store18, 31, stream="account-*")
    assert (await history(read18))["count"] == 31
    await read18.execute("DELETE FROM events WHERE global_seq = 17")
    assert "1 of the 31 events" in (await stopped(store18)).reason


async def test_what_was_handled_before_a_failure_is_known(store18: EventStore, read18: asyncpg.Connection) -> None:
    async def fails(connection: asyncpg.Connection, event: Event) -> None:
        if event.global_seq == 4:
            raise ValueError("4")
        await note(connection, event)

    await fill(store18, 10)
    with pytest.raises(ProjectionFailed):
        await store18.project("p", fails)
    known = await history(read18)
    assert isinstance(known["marks"], list)
    assert (known["position"], known["count"], [mark[0] for mark in known["marks"]]) == (3, 3, [1, 2, 3])
    await read18.execute("DELETE FROM events WHERE global_seq = 2")
    assert (await stopped(store18)).erased == (2,)


async def test_nothing_is_accepted_beyond_the_head(store18: EventStore, dsn18: str) -> None:
    await fill(store18, 10)
    connection = await asyncpg.connect(dsn18)
    await connection.execute("INSERT INTO projections (name, position, last_error) VALUES ('p', 11, 'x')")
    with pytest.raises(HistoryChanged, match="beyond the head"):
        await store18.accept_history("p")
    assert (await status(store18)).last_error == "x"
    with pytest.raises(UnknownProjection):
        await store18.accept_history("nobody's")
    await connection.execute("DROP VIEW projections; CREATE VIEW projections AS SELECT name, position FROM consumers")
    with pytest.raises(SchemaMissing, match="esx init"):
        await store18.accept_history("p")
    await connection.close()


async def test_what_esx_erased_itself_stops_nothing(store: EventStore, read: asyncpg.Connection) -> None:
    """Behind one that has handled it, and under one that is handling it."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
        entered.set()
        await leave.wait()

    async def load() -> None:
        for stream in ("load-r-1", "other", "load-r-2"):
            await store.append(stream, [NewEvent("T", {}, {"run_id": "r"}) for _ in range(7)])

    await load()
    await project_to(store, 21)
    await load()
    async with running(store.project_batches("slow", slow)) as task:
        await entered.wait()
        assert await store.delete_marked("load-r-", Mark("run_id", "r")) == 28
        leave.set()
        await at(store, 35, task, name="slow")  # the last that is left
    assert [known.difference for known in await store.projections()] == [None, None]
    await fill(store, 3)
    for name in ("p", "slow"):
        await project_to(store, 45, name)
    await read.execute("DELETE FROM events WHERE global_seq = 30")
    assert (await stopped(store)).erased == (30,)


async def test_who_may_not_note_what_is_erased_may_still_erase(
    dsn18: str, store18: EventStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store18.append("load-r-1", [NewEvent("T", {}, {"run_id": "r"}) for _ in range(3)])
    async with new_role(dsn18) as role:
        await role.grant("SELECT, DELETE ON events")
        async with EventStore.connect(role.dsn(dsn18)) as theirs:
            assert await theirs.delete_marked("load-r-", Mark("run_id", "r")) == 3


# -- moving the checkpoint ------------------------------------------------------------------------------------


async def test_it_moves_only_from_where_it_was_left(store18: EventStore, dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    row = CheckpointRow(Layout(), "p")
    await row.register(connection)
    assert await row.advance(connection, 0, await history_at(connection, Layout(), 3))
    for old in (0, 2, 4):
        assert not await row.advance(connection, old, await history_at(connection, Layout(), 9))
    assert (await status(store18)).position == 3
    await connection.close()


async def test_a_reset_while_the_filter_passes_events_over_is_kept(
    store18: EventStore, read18: asyncpg.Connection, sql18: asyncpg.Connection
) -> None:
    """The checkpoint is set back in the moment in which there is something to move it on for."""
    await store18.append("account-1", [NewEvent("T")])
    async with running(store18.project("p", note, stream="account-*")) as task:
        await at(store18, 1, task)
        async with sql18.transaction():
            await sql18.execute("UPDATE projections SET position = 0, history = NULL")
            await sql18.execute(
                "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ('s', 0, 'T', '1')"
            )
        await at(store18, 2, task)
    assert await handled(read18) == [1, 1]


async def test_what_is_known_is_kept_with_each_step(store: EventStore, read: asyncpg.Connection) -> None:
    await fill(store, 40)
    await project_to(store, 40)
    known = await history(read)
    assert (known["position"], known["low"], known["count"]) == (40, 0, 40)
    assert known["system"] == await read.fetchval("SELECT system_identifier FROM pg_control_system()")
    await store.reset_projection("p", to=7)
    assert await read.fetchval("SELECT history FROM projections") is None
    await store.pause_projection("p")
    await store.resume_projection("p")
    await project_to(store, 40)
    assert (await history(read))["position"] == 40


# -- version 1 of the schema ----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def old(empty_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a store that an older esx made."""
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(SCHEMA_1 + "CREATE TABLE handled (global_seq bigint);")
    yield connection
    await connection.close()


async def test_a_store_of_version_1_goes_on_as_before(
    empty_dsn: str, old: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with EventStore.connect(empty_dsn) as store:
        await fill(store, 5)
        await project_to(store, 5)
        assert "run `esx init`" in caplog.text
        await store.reset_projection("p", to=3)
        await store.pause_projection("p")
        assert (await status(store)).paused
        await store.resume_projection("p")
        await project_to(store, 5)
        assert await handled(old) == [1, 2, 3, 4, 4, 5, 5]
        findings = {finding.check: finding for finding in await store.doctor() if finding.severity.wrong}
        assert "consumers" in findings["tables"].message
        assert findings["tables"].remedy == ("esx init",)
        await old.execute("UPDATE projections SET position = 9")
        assert (await stopped(store)).head == 5
        [finding] = [f for f in await store.doctor() if f.check == "projections" and f.severity is Severity.ERROR]
        await old.fetch(*finding.remedy)
        assert (await status(store)).position == 0
        await store.delete_projection("p")


async def test_init_keeps_rows_rights_and_locks(empty_dsn: str, old: asyncpg.Connection) -> None:
    async with EventStore.connect(empty_dsn) as store, new_role(empty_dsn) as reader, new_role(empty_dsn) as runner:
        await fill(store, 5)
        await old.execute("INSERT INTO projections (name, position, paused, last_error) VALUES ('q', 3, true, 'x')")
        await reader.grant("SELECT ON events, projections")
        await runner.grant("SELECT ON events", "SELECT, INSERT, UPDATE ON projections")
        async with running(store.project("p", note)) as task:
            await at(store, 5, task)
            before = await old.fetch("SELECT * FROM projections ORDER BY name")
            # A batch that is being handled makes it wait, so it is idle here.
            made = await store.init()
            assert "renamed table projections to consumers" in made
            assert "created view projections" in made
            assert [tuple(row)[:6] for row in await old.fetch("SELECT * FROM projections ORDER BY name")] == [
                tuple(row) for row in before
            ]
            # The lock that it took on the table of old is seen on that of now.
            assert (await status(store)).active
            await fill(store, 1)
            await at(store, 6, task)
        assert await store.init() == []
        assert (await status(store, "q")).last_error == "x"
        async with EventStore.connect(reader.dsn(empty_dsn)) as theirs:
            assert len(await theirs.projections()) == 2
            with pytest.raises(StoreFailed, match="permission denied"):
                await theirs.pause_projection("p")
        async with EventStore.connect(runner.dsn(empty_dsn)) as theirs:
            await theirs.resume_projection("q")
            await theirs.accept_history("q")
        # Begins with what is there now, and knows it from then on.
        async with running(store.project("p", note)) as task:
            await until(lambda: keeps(old, 6), task)


async def test_version_2_gets_its_new_columns_around_a_projection_that_runs(empty_dsn: str) -> None:
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute(SCHEMA_2 + "CREATE TABLE handled (global_seq bigint);")
    await connection.execute("INSERT INTO consumers (name, position, paused) VALUES ('q', 3, true)")
    await connection.execute("INSERT INTO parked_events VALUES ('q', 2, 's', 'T', 'why')")
    async with EventStore.connect(empty_dsn) as store, new_role(empty_dsn) as runner:
        await fill(store, 5)
        await runner.grant("SELECT ON events", "SELECT, INSERT, UPDATE ON projections")
        [older] = [f for f in await store.doctor() if "the schema has version 2" in f.message]
        assert older.remedy == ("esx init",)
        async with running(store.project("p", note)) as task:
            await at(store, 5, task)
            assert {"changed table consumers", "changed view projections", "changed table parked_events"} <= set(
                await store.init()
            )
            assert (await status(store)).active
            await fill(store, 1)
            await at(store, 6, task)
        assert await store.init() == []
        assert not [f for f in await store.doctor() if "the schema has version 2" in f.message]
        async with EventStore.connect(runner.dsn(empty_dsn)) as theirs:
            await theirs.resume_projection("q")
    [row] = await connection.fetch(
        "SELECT p.state, v.start, v.filter FROM parked_events p, projections v WHERE name = 'q'"
    )
    assert tuple(row) == ("parked", 0, None)
    # An esx of version 2 leaves it as it is.
    with pytest.raises(asyncpg.RaiseError, match="knows it up to 2"):
        await connection.execute(SCHEMA_2)
    await connection.close()


async def test_two_inits_at_once_migrate_once(empty_dsn: str, old: asyncpg.Connection) -> None:
    await old.execute("INSERT INTO projections (name, position) VALUES ('p', 3)")
    async with EventStore.connect(empty_dsn) as one, EventStore.connect(empty_dsn) as two:
        made = await asyncio.gather(one.init(), two.init())
        assert sorted(map(bool, made)) == [False, True]
        assert await old.fetchval("SELECT position FROM consumers") == 3


# How an instance of an older esx takes its lock.
_OLD_LOCK = "SELECT pg_try_advisory_lock((1702066288 # 'projections'::regclass::oid::int), $1)"


async def test_an_older_esx_goes_on_on_the_new_schema(store: EventStore, dsn: str, sql: asyncpg.Connection) -> None:
    await fill(store, 8)
    await sql.execute(SCHEMA_1)  # its `esx init`
    assert await store.init() == []
    await sql.execute("INSERT INTO projections (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", "p")
    await sql.execute("INSERT INTO projections (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", "p")
    row = await sql.fetchrow("SELECT id, position, paused FROM projections WHERE name = $1", "p")
    assert row is not None
    assert tuple(row)[1:] == (0, False)
    assert await sql.fetchval(_OLD_LOCK, row["id"])
    locked = (
        "SELECT pg_current_xact_id()::text FROM projections WHERE name = $1 AND position = $2 AND NOT paused FOR UPDATE"
    )
    moved = (
        "UPDATE projections SET position = $3, last_error = NULL, updated_at = now() WHERE name = $1 AND "
        "position = $2 AND NOT paused AND ($4::text IS NULL OR $4 = pg_current_xact_id()::text) RETURNING true"
    )
    async with sql.transaction():
        transaction = await sql.fetchval(locked, "p", 0)
        assert transaction is not None
        # The row is locked for everybody, whichever version they are.
        other = await asyncpg.connect(dsn)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await other.execute("SELECT FROM consumers WHERE name = 'p' FOR UPDATE NOWAIT")
        await other.close()
        assert await sql.fetchval(moved, "p", 0, 4, transaction)
    await sql.execute("UPDATE projections SET last_error = $3 WHERE name = $1 AND position = $2", "p", 4, "x")
    assert await sql.fetchval("UPDATE projections SET paused = $2 WHERE name = $1 RETURNING true", "p", False)
    # Then this version, which knows nothing yet of what the older one has handled.
    await sql.execute("CREATE TABLE handled (global_seq bigint)")
    await project_to(store, 8)
    assert await handled(sql) == [5, 6, 7, 8]
    # And the older one again: what is known then is of an earlier position, and still true.
    await fill(store, 4)
    assert await sql.fetchval(moved, "p", 8, 10, None)
    await project_to(store, 12)
    assert await handled(sql) == [5, 6, 7, 8, 11, 12]
    await fill(store, 2)
    assert await sql.fetchval(moved, "p", 12, 14, None)
    await sql.execute("DELETE FROM events WHERE global_seq = 12")
    assert (await stopped(store)).erased == (12,)
    assert await sql.fetchval("DELETE FROM projections WHERE name = $1 RETURNING true", "p")
    assert await store.projections() == []


async def test_what_is_no_projection_is_not_shown_as_one(store18: EventStore, dsn18: str) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute("INSERT INTO consumers (name, kind) VALUES ('kafka', 'relay')")
    assert await store18.projections() == []
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(ProjectionFailed, match="another kind"):
            await store18.project("kafka", note)
    await connection.close()


async def test_a_newer_schema_is_left_alone(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute("UPDATE esx_schema SET version = 4; DROP FUNCTION esx_lock_stream(text)")
    with pytest.raises(StoreFailed, match=r"version 4.*nothing was changed") as refused:
        await store18.init()
    assert "\n" not in str(refused.value)
    assert await sql18.fetchval("SELECT to_regprocedure('esx_lock_stream(text)')") is None
    done = esx("init", "-d", dsn18)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            "DROP TABLE consumers CASCADE; CREATE TABLE consumers (id int)",
            "table consumers has no",
        ),
        (
            "DROP TABLE consumers CASCADE; CREATE TABLE projections (name text, position bigint, paused int)",
            "table projections has no column id, last_error, updated_at",
        ),
    ],
)
async def test_a_table_of_somebody_elses_is_not_taken(
    store18: EventStore, dsn18: str, theirs: str, message: str
) -> None:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(theirs)
    with pytest.raises(StoreFailed, match=message):
        await store18.init()
    await connection.execute("DROP TABLE IF EXISTS consumers; CREATE TABLE IF NOT EXISTS projections (film text)")
    if "projections (" not in theirs:
        await store18.init()
        assert await connection.fetchval("SELECT count(*) FROM consumers") == 0
    await connection.close()


async def test_init_gives_up_rather_than_make_everybody_wait(empty_dsn: str, old: asyncpg.Connection) -> None:
    async with EventStore.connect(empty_dsn) as store:
        reader = await asyncpg.connect(empty_dsn)
        async with reader.transaction(), asyncio.timeout(_DEADLINE):
            await reader.fetch("SELECT FROM projections")
            with pytest.raises(StoreFailed, match="is busy"):
                await store.init(lock_timeout=0.2)
        await reader.close()
        assert await old.fetchval("SELECT to_regclass('consumers')") is None
        assert "renamed table projections to consumers" in await store.init()


async def test_a_projection_that_runs_is_migrated_around(empty_dsn: str, old: asyncpg.Connection) -> None:
    """It goes on with what it found when it began, and takes up its history when it begins again."""
    async with EventStore.connect(empty_dsn) as store:
        await fill(store, 3)
        async with running(store.project("p", note)) as task:
            await at(store, 3, task)
            await store.init()
            await fill(store, 3)
            await at(store, 6, task)
            assert await old.fetchval("SELECT history FROM projections") is None
            await old.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'esx projection' "
                "AND datname = current_database()"
            )

            await until(lambda: keeps(old, 6), task)
    assert await handled(old) == [1, 2, 3, 4, 5, 6]
