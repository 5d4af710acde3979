"""An audit of a read model: it finds the rows that are not what the events make, and leaves no trace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import Event, EventStore, NewEvent, ProjectionFailed, StoreFailed
from esx.errors import InvalidQuery
from tests.store.consume.test_projection import at, running
from tests.store.operate.test_rebuild import BOTH, MODEL, book, book_all, deposit, project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow

IDENTITIES = ["id", "number"]


@pytest_asyncio.fixture
async def model(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(MODEL)
    yield connection
    await connection.close()


@pytest.mark.parametrize("batches", [False, True])
async def test_what_its_events_make_is_the_same(store18: EventStore, model: asyncpg.Connection, batches: bool) -> None:
    await deposit(store18, "account-1", 50, 60)
    await deposit(store18, "ledger-1", 1000)
    await deposit(store18, "account-2", 7)
    await project(store18, 4)
    await deposit(store18, "account-2", 7)  # after the position
    report = await store18.audit_projection("p", book_all if batches else book, BOTH, batches=batches)
    assert report.same
    assert (report.position, report.handled, report.differences) == (4, 3, ())
    assert report.rows == {"public.balances": 2, "public.movements": 3}


@pytest.mark.parametrize("batches", [False, True])
async def test_rows_that_differ_are_found_with_the_events_that_touched_them(
    store18: EventStore, model: asyncpg.Connection, batches: bool
) -> None:
    await deposit(store18, "account-1", 50, 60)
    await deposit(store18, "account-2", 7)
    await deposit(store18, "account-3", 8)
    await project(store18, 4)
    await model.execute(
        "UPDATE balances SET balance = 1 WHERE account = 'account-1'; "
        "DELETE FROM movements WHERE account = 'account-2'; DELETE FROM balances WHERE account = 'account-2'; "
        "INSERT INTO balances VALUES ('extra', 0)"
    )
    report = await store18.audit_projection(
        "p", book_all if batches else book, ["movements", "balances"], batches=batches
    )
    assert not report.same
    assert report.differing == 4
    found = {
        (each.table, json.loads(each.key or "")[0]): (
            None if each.kept is None else json.loads(each.kept).get("balance", "row"),
            None if each.made is None else json.loads(each.made).get("balance", "row"),
            each.events,
        )
        for each in report.differences
    }
    assert found == {
        ("public.balances", "account-1"): (1, 110, (1, 2)),
        ("public.balances", "account-2"): (None, 7, (3,)),
        ("public.balances", "extra"): (0, None, ()),
        ("public.movements", 3): (None, "row", (3,)),
    }
    # Nothing of it stays, and nothing was repaired.
    assert await model.fetchval("SELECT balance FROM balances WHERE account = 'account-1'") == 1
    assert await model.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'esx_audit%'") == 0
    assert await model.fetchval("SELECT max(id) FROM movements") == 4


async def test_columns_can_be_left_out(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50)
    await project(store18, 1)
    await model.execute("UPDATE movements SET id = DEFAULT, number = 99")
    assert (await store18.audit_projection("p", book, BOTH)).differing == 2
    assert (await store18.audit_projection("p", book, BOTH, ignored=IDENTITIES)).same
    await model.execute("INSERT INTO movements (account, amount) VALUES ('account-1', 50)")
    [extra] = (await store18.audit_projection("p", book, BOTH, ignored=IDENTITIES)).differences
    assert (extra.key, extra.made) == (None, None)
    with pytest.raises(InvalidQuery, match="none of the tables has a column nothing"):
        await store18.audit_projection("p", book, BOTH, ignored=["nothing"])


async def test_what_was_put_aside_is_left_out(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50, 60)
    await deposit(store18, "account-2", 7)

    async def refuses(connection: asyncpg.Connection, event: Event) -> None:
        if event.global_seq == 2:
            raise ValueError("no")
        await book(connection, event)

    async with running(store18.project("p", refuses, on_error="park")) as task:
        await at(store18, 3, task)
    # Identities are not made again: the batch that was rolled back has drawn some.
    report = await store18.audit_projection("p", book, BOTH, ignored=IDENTITIES)
    assert (report.same, report.left_out) == (True, 1)


async def test_what_it_cannot_audit_is_refused(store18: EventStore, model: asyncpg.Connection) -> None:
    await store18.append("account-1", [NewEvent("Deposited", {"amount": 5})])
    await project(store18, 1)

    async def names_the_schema(connection: asyncpg.Connection, event: Event) -> None:
        await book(connection, event)
        await connection.fetch("SELECT * FROM public.balances")

    async def writes_elsewhere(connection: asyncpg.Connection, event: Event) -> None:
        await connection.execute("INSERT INTO other VALUES (1)")

    async def fails(connection: asyncpg.Connection, event: Event) -> None:
        raise ValueError("no")

    with pytest.raises(StoreFailed, match=r"reads (public\.)?balances by its schema"):
        await store18.audit_projection("p", names_the_schema, BOTH)
    with pytest.raises(StoreFailed, match=r"writes to public\.other"):
        await store18.audit_projection("p", writes_elsewhere, BOTH)
    with pytest.raises(ProjectionFailed, match="at event 1: the audit failed: ValueError: no"):
        await store18.audit_projection("p", fails, BOTH)
    # Triggers and keys of others do not matter, as nothing is swapped.
    await model.execute("CREATE RULE r AS ON DELETE TO movements DO INSTEAD NOTHING")
    assert (await store18.audit_projection("p", book, BOTH)).same
