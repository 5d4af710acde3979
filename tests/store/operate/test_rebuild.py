"""A read model made anew while the old one serves: the same rows at the end, or nothing has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from esx import (
    ConsumerState,
    Event,
    EventStore,
    NewEvent,
    ProjectionFailed,
    RebuildProgress,
    StoreFailed,
    UnknownConsumer,
)
from esx.errors import InvalidQuery
from tests.store.consume.test_projection import at, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.slow

MODEL = """
CREATE TABLE balances (account text PRIMARY KEY, balance numeric NOT NULL CHECK (balance >= 0));
CREATE TABLE movements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number serial, account text REFERENCES balances,
    amount numeric, twice numeric GENERATED ALWAYS AS (amount * 2) STORED
);
CREATE VIEW rich AS SELECT account FROM balances WHERE balance > 100;
CREATE TABLE other (global_seq bigint);
"""
BOTH = ["balances", "movements"]


async def book(connection: asyncpg.Connection, event: Event) -> None:
    amount = event.data["amount"]
    await connection.execute(
        "INSERT INTO balances AS b VALUES ($1, $2) "
        "ON CONFLICT (account) DO UPDATE SET balance = b.balance + excluded.balance",
        *(event.stream_id, amount),
    )
    await connection.execute("INSERT INTO movements (account, amount) VALUES ($1, $2)", event.stream_id, amount)


async def book_all(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
    for event in events:
        await book(connection, event)


@pytest_asyncio.fixture
async def model(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(MODEL)
    yield connection
    await connection.close()


async def deposit(store: EventStore, stream: str, *amounts: int) -> None:
    await store.append(stream, [NewEvent("Deposited", {"amount": amount}) for amount in amounts])


async def balances(connection: asyncpg.Connection) -> dict[str, int]:
    rows = await connection.fetch("SELECT account, balance FROM balances ORDER BY 1")
    return {row[0]: int(row[1]) for row in rows}


async def schemas(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'esx_rebuild%'")
    return [row[0] for row in rows]


async def project(store: EventStore, position: int) -> None:
    async with running(store.project("p", book, stream="account-*")) as task:
        await at(store, position, task)


@pytest.mark.parametrize("batches", [False, True])
async def test_wrong_rows_are_replaced_while_it_runs_and_what_is_on_the_tables_stays(
    store18: EventStore, model: asyncpg.Connection, batches: bool
) -> None:
    await deposit(store18, "account-1", 50, 70)
    await deposit(store18, "ledger-1", 1000)
    await deposit(store18, "account-2", 5)
    await model.execute("GRANT SELECT ON balances TO pg_monitor")
    async with running(store18.project("p", book, stream="account-*")) as task:
        await at(store18, 4, task)
        await model.execute(
            "UPDATE balances SET balance = 1; DELETE FROM movements; INSERT INTO balances VALUES ('x', 9)"
        )
        told: list[RebuildProgress] = []
        done = await store18.rebuild_projection(
            "p", book_all if batches else book, BOTH, batches=batches, on_progress=told.append
        )
        assert (done.position, done.handled) == (4, 3)
        assert done.rows == {"public.balances": 2, "public.movements": 3}
        assert {progress.phase for progress in told} == {"rebuilding", "swapping"}
        assert await balances(model) == {"account-1": 120, "account-2": 5}
        # The one that runs goes on, and identities and serials do not collide.
        await deposit(store18, "account-2", 200)
        await at(store18, 5, task)
    assert await balances(model) == {"account-1": 120, "account-2": 205}
    rows = await model.fetch("SELECT id, number, twice FROM movements ORDER BY id")
    assert [tuple(map(int, row)) for row in rows] == [(1, 1, 100), (2, 2, 140), (3, 3, 10), (4, 4, 400)]
    assert [row[0] for row in await model.fetch("SELECT account FROM rich ORDER BY 1")] == ["account-1", "account-2"]
    assert await model.fetchval("SELECT has_table_privilege('pg_monitor', 'balances', 'SELECT')")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await model.execute("DELETE FROM balances WHERE account = 'account-1'")
    assert await schemas(model) == []


async def test_readers_see_the_old_rows_until_the_swap(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    await model.execute("UPDATE balances SET balance = 7")
    seen: list[dict[str, int]] = []

    async def looking(connection: asyncpg.Connection, event: Event) -> None:
        await book(connection, event)
        seen.append(await balances(model))

    await store18.rebuild_projection("p", looking, BOTH)
    assert seen == [{"account-1": 7}]
    assert await balances(model) == {"account-1": 50}


async def test_what_comes_meanwhile_is_in_the_new_rows_too(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 1)
    async with running(store18.project("p", book, stream="account-*")) as task:
        await at(store18, 1, task)

        async def while_it_goes_on(connection: asyncpg.Connection, event: Event) -> None:
            await book(connection, event)
            if event.global_seq == 1:
                await deposit(store18, "account-1", 1, 1, 1)
                await at(store18, 4, task)

        assert (await store18.rebuild_projection("p", while_it_goes_on, BOTH)).position == 4
        await at(store18, 4, task)
    assert await balances(model) == {"account-1": 4}


async def test_what_is_written_elsewhere_ends_it_and_nothing_has_changed(
    store18: EventStore, model: asyncpg.Connection
) -> None:
    await model.execute("CREATE SEQUENCE lonely; INSERT INTO other VALUES (0)")
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    await model.execute("UPDATE balances SET balance = 7")
    writes = ""

    async def elsewhere(connection: asyncpg.Connection, event: Event) -> None:
        await book(connection, event)
        await connection.execute(writes)

    for writes, named in (
        ("INSERT INTO other VALUES (1)", "public.other"),
        ("UPDATE other SET global_seq = 1", "public.other"),
        ("TRUNCATE other", "public.other"),
        ("DELETE FROM public.movements", "public.movements"),
        ("SELECT nextval('lonely')", "public.lonely"),
    ):
        with pytest.raises(StoreFailed, match=f"writes to {named},"):
            await store18.rebuild_projection("p", elsewhere, BOTH)
        assert await balances(model) == {"account-1": 7}, writes
        assert [row[0] for row in await model.fetch("SELECT global_seq FROM other")] == [0], writes
        assert await model.fetchval("SELECT count(*) FROM movements") == 1, writes
        assert await schemas(model) == [], writes


async def test_what_a_swap_would_break_is_refused_by_name(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    trigger = (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
        "CREATE TRIGGER watch AFTER INSERT ON balances FOR EACH ROW EXECUTE FUNCTION f()"
    )
    cases: list[tuple[str, list[str], str, str]] = [
        (trigger, BOTH, "has trigger watch", "DROP FUNCTION f CASCADE"),
        ("", ["balances"], "is referenced by foreign key movements_account_fkey of public.movements", ""),
        ("CREATE TABLE child () INHERITS (other)", ["other"], "inheritance tree", "DROP TABLE child"),
        ("CREATE UNLOGGED TABLE quick (n int)", ["quick"], "is unlogged", ""),
        ("CREATE RULE r AS ON DELETE TO other DO INSTEAD NOTHING", ["other"], "has rules", "DROP RULE r ON other"),
        ("", ["nowhere"], "there is no table nowhere", ""),
        ("", ["rich"], "there is no table rich", ""),
        ("", ["other", "other"], "named twice", ""),
        ("", [], "name the tables", ""),
        ("CREATE SCHEMA s; CREATE TABLE s.t (n int)", ["other", "s.t"], "several schemas", ""),
    ]
    for made, tables, refused, undone in cases:
        if made:
            await model.execute(made)
        with pytest.raises(InvalidQuery, match=refused):
            await store18.rebuild_projection("p", book, tables)
        assert await balances(model) == {"account-1": 50}, refused
        assert await schemas(model) == [], refused
        if undone:
            await model.execute(undone)
    assert (await store18.rebuild_projection("p", book, BOTH)).handled == 1, "nothing of all that is left"


async def test_the_event_that_fails_is_named(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50, 60)
    await project(store18, 2)

    async def fails(connection: asyncpg.Connection, event: Event) -> None:
        if event.global_seq == 2:
            raise ValueError("no")

    with pytest.raises(ProjectionFailed, match="at event 2: the rebuild failed: ValueError: no"):
        await store18.rebuild_projection("p", fails, BOTH)
    assert await balances(model) == {"account-1": 110}


async def test_skipped_events_stay_out_and_parked_ones_are_handled(
    store18: EventStore, model: asyncpg.Connection
) -> None:
    await deposit(store18, "account-1", 50, 60)
    await deposit(store18, "account-2", 7)

    async def refuses(connection: asyncpg.Connection, event: Event) -> None:
        if event.global_seq in (1, 3):
            raise ValueError("no")
        await book(connection, event)

    async with running(store18.project("p", refuses, on_error="park")) as task:
        await at(store18, 3, task)
        await store18.skip_event("p", 1)
        await at(store18, 3, task)
    await store18.rebuild_projection("p", book, BOTH)
    assert await balances(model) == {"account-1": 60, "account-2": 7}
    assert [(each.global_seq, each.state) for each in await store18.put_aside("p")] == [(1, "skipped")]


async def test_two_at_once_are_one_too_many(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def waits(connection: asyncpg.Connection, event: Event) -> None:
        inside.set()
        await go_on.wait()
        await book(connection, event)

    first: asyncio.Task[Any] = asyncio.create_task(store18.rebuild_projection("p", waits, BOTH))
    await inside.wait()
    with pytest.raises(StoreFailed, match="is being rebuilt already"):
        await store18.rebuild_projection("p", book, BOTH)
    go_on.set()
    await first
    with pytest.raises(UnknownConsumer):
        await store18.rebuild_projection("nobody", book, BOTH)


async def test_a_filter_that_was_changed_on_the_way_is_refused(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    async with running(store18.project("p", book)) as task:
        await deposit(store18, "ledger-1", 1)
        await at(store18, 2, task)
    with pytest.raises(InvalidQuery, match="was changed at 1"):
        await store18.rebuild_projection("p", book, BOTH)


async def test_it_is_the_remedy_after_another_history(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50, 60, 70)
    await project(store18, 3)
    await model.execute("TRUNCATE events RESTART IDENTITY")
    await deposit(store18, "account-2", 5)
    assert (await store18.consumer("p")).state is ConsumerState.FAILED
    assert (await store18.rebuild_projection("p", book, BOTH)).position == 1
    assert await balances(model) == {"account-2": 5}
    async with running(store18.project("p", book, stream="account-*")) as task:
        await deposit(store18, "account-2", 5)
        await at(store18, 2, task)
    assert await balances(model) == {"account-2": 10}
