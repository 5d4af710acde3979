"""Stepping through a projection: which rows each event changes, breakpoints, and steps taken back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import Event, EventStore, NewEvent, ProjectionFailed, RowBreak, StepTaken
from esx.errors import InvalidQuery
from esx.store.operate.stepping import MOST_BACK
from tests.store.consume.test_projection import at, running
from tests.store.operate.test_rebuild import BOTH, MODEL, book, book_all, deposit, project

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def model(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(MODEL)
    yield connection
    await connection.close()


def balances_of(taken: StepTaken | None) -> list[tuple[int | None, int | None]]:
    """Return the balances before and after, of the rows of balances that changed."""
    assert taken is not None
    return [
        (
            None if change.before is None else json.loads(change.before)["balance"],
            None if change.after is None else json.loads(change.after)["balance"],
        )
        for change in taken.changes
        if change.table == "public.balances"
    ]


@pytest.mark.parametrize("batches", [False, True])
async def test_each_event_shows_its_rows_and_can_be_taken_back(
    store18: EventStore, model: asyncpg.Connection, batches: bool
) -> None:
    await deposit(store18, "account-1", 50, 60)
    await project(store18, 2)
    await deposit(store18, "account-1", 70)  # after the position
    handler = book_all if batches else book
    async with store18.step_projection("p", handler, BOTH, batches=batches) as stepper:
        first = await stepper.step()
        assert balances_of(first) == [(None, 50)]
        assert first is not None
        assert [change.table for change in first.changes] == ["public.balances", "public.movements"]
        assert balances_of(await stepper.step()) == [(50, 110)]
        assert await stepper.step() is None
        assert balances_of(await stepper.back()) == [(50, 110)]
        assert stepper.position == 1
        assert balances_of(await stepper.step()) == [(50, 110)]
        await stepper.back()
        await stepper.back()
        assert await stepper.back() is None
        assert balances_of(await stepper.step()) == [(None, 50)]
    # The read model that serves was never touched, and nothing stays.
    assert await model.fetchval("SELECT balance FROM balances") == 110
    assert await model.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'esx_step%'") == 0


async def test_breakpoints(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 1, 2)
    await deposit(store18, "account-2", 500)
    await store18.append("account-1", [NewEvent("Bonus", {"amount": 3})])
    await deposit(store18, "account-2", 4)
    await project(store18, 5)

    async def stops(**breaks: object) -> list[int]:
        async with store18.step_projection("p", book, BOTH) as stepper:
            found = []
            while (taken := await stepper.run_to(**breaks)) is not None:  # type: ignore[arg-type]
                found.append(taken.event.global_seq)
            assert stepper.position == 5
            return found

    assert await stops(event_type="Bon*") == [4]
    assert await stops(where="$.amount > 100") == [3]
    assert await stops(row=RowBreak.parse('balances:{"account": "account-2"}')) == [3, 5]
    assert await stops(row=RowBreak.parse('public.balances:{"balance": 6}'), event_type="Deposited") == [1, 2, 3, 4, 5]
    for wrong in ("balances", "balances:7", "balances:{}", ':{"a": 1}'):
        with pytest.raises(InvalidQuery, match="is no row"):
            RowBreak.parse(wrong)


async def test_a_breakpoint_is_met_where_an_earlier_match_is_not_the_projections(
    store18: EventStore, model: asyncpg.Connection
) -> None:
    for kind, amount in [("Deposited", 1), ("Quoted", 500), ("Deposited", 2), ("Deposited", 700)]:
        await store18.append("account-1", [NewEvent(kind, {"amount": amount})])
    async with running(store18.project("p", book, event_type="Deposited")) as task:
        await at(store18, 4, task)
    async with store18.step_projection("p", book, BOTH) as stepper:
        taken = await stepper.run_to(where="$.amount > 100")
        assert taken is not None
        assert taken.event.global_seq == 4


async def test_what_was_put_aside_is_passed(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", 50, 60)
    await deposit(store18, "account-2", 7)

    async def refuses(connection: asyncpg.Connection, event: Event) -> None:
        if event.global_seq == 1:
            raise ValueError("no")
        await book(connection, event)

    async with running(store18.project("p", refuses, on_error="skip")) as task:
        await at(store18, 3, task)
    async with store18.step_projection("p", refuses, BOTH) as stepper:
        numbers = []
        while (taken := await stepper.step()) is not None:
            numbers.append(taken.event.global_seq)
    assert numbers == [2, 3]


async def test_an_event_that_fails_changes_nothing_and_comes_again(
    store18: EventStore, model: asyncpg.Connection
) -> None:
    await deposit(store18, "account-1", 50, 60)
    await project(store18, 2)
    broken = True

    async def fails(connection: asyncpg.Connection, event: Event) -> None:
        await book(connection, event)
        if broken and event.global_seq == 2:
            raise ValueError("no")

    async with store18.step_projection("p", fails, BOTH) as stepper:
        await stepper.step()
        with pytest.raises(ProjectionFailed, match="at event 2: the step failed: ValueError: no"):
            await stepper.step()
        broken = False
        assert balances_of(await stepper.step()) == [(50, 110)]


async def test_no_more_than_fifty_steps_can_be_taken_back(store18: EventStore, model: asyncpg.Connection) -> None:
    await deposit(store18, "account-1", *[1] * (MOST_BACK + 3))
    await project(store18, MOST_BACK + 3)
    async with store18.step_projection("p", book, BOTH) as stepper:
        for _ in range(MOST_BACK + 2):
            await stepper.step()
        taken = 0
        while await stepper.back() is not None:
            taken += 1
        assert 0 < taken <= MOST_BACK
        assert balances_of(await stepper.step()) == [(MOST_BACK + 2 - taken, MOST_BACK + 3 - taken)]
