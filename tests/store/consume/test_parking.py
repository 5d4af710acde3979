"""Events that a projection cannot handle: parked with what follows them in their stream, tried again, or skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import ConsumerState, Event, EventStore, NewEvent, NotFound, ProjectionFailed, StoreFailed
from esx.errors import InvalidQuery
from esx.store.consume.put_aside import MOST_WAITING
from tests.store.consume.test_projection import at, running, until
from tests.support.roles import new_role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.slow


class Broken:
    """A handler that fails at events of type Bad, until it is mended."""

    def __init__(self) -> None:
        self.mended = False

    async def one(self, connection: asyncpg.Connection, event: Event) -> None:
        if event.event_type == "Bad" and not self.mended:
            raise ValueError("bad")
        await connection.execute("INSERT INTO handled (global_seq, stream) VALUES ($1, $2)", *event[:2])

    async def many(self, connection: asyncpg.Connection, events: Sequence[Event]) -> None:
        for event in events:
            await self.one(connection, event)


@pytest_asyncio.fixture
async def model(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn18)
    await connection.execute(
        "CREATE TABLE handled (place int GENERATED ALWAYS AS IDENTITY, global_seq bigint, stream text)"
    )
    yield connection
    await connection.close()


async def handled(connection: asyncpg.Connection, stream: str) -> list[int]:
    rows = await connection.fetch("SELECT global_seq FROM handled WHERE stream = $1 ORDER BY place", stream)
    return [row[0] for row in rows]


async def aside(store: EventStore) -> list[tuple[int, str, int]]:
    return [(each.global_seq, each.state, each.attempts) for each in await store.put_aside("p")]


async def bad_story(store: EventStore) -> None:
    await store.append("a", [NewEvent("T"), NewEvent("Bad"), NewEvent("T")])  # 1 to 3
    await store.append("b", [NewEvent("T")])  # 4


@pytest.mark.parametrize("batch", [1, 500])
async def test_an_event_is_parked_with_what_follows_it_in_its_stream(
    store18: EventStore, model: asyncpg.Connection, batch: int
) -> None:
    await bad_story(store18)
    broken = Broken()
    async with running(store18.project_batches("p", broken.many, batch=batch, on_error="park")) as task:
        await at(store18, 4, task)
        assert await aside(store18) == [(2, "parked", 1), (3, "parked", 0)]
        assert (await handled(model, "a"), await handled(model, "b")) == ([1], [4])
        report = await store18.consumer("p")
        assert (report.state, report.parked, report.last_error) == (ConsumerState.PARKED, 2, None)
        # What comes later has to wait too.
        await store18.append("a", [NewEvent("T")])
        await store18.append("b", [NewEvent("T")])
        await at(store18, 6, task)
        assert await aside(store18) == [(2, "parked", 1), (3, "parked", 0), (5, "parked", 0)]
        # Tried again in vain, and then with success, without a restart.
        assert await store18.retry_events("p") == 3

        async def parked_again() -> bool:
            return await aside(store18) == [(2, "parked", 2), (3, "parked", 0), (5, "parked", 0)]

        await until(parked_again, task)
        broken.mended = True
        await store18.retry_events("p", 5)

        async def nothing_waits() -> bool:
            return await aside(store18) == []

        await until(nothing_waits, task)
        await store18.append("a", [NewEvent("T")])
        await at(store18, 7, task)
    assert (await handled(model, "a"), await handled(model, "b")) == ([1, 2, 3, 5, 7], [4, 6])
    with pytest.raises(NotFound):
        await store18.retry_events("p")


async def test_skipping_a_parked_event_lets_its_stream_go_on(store18: EventStore, model: asyncpg.Connection) -> None:
    await bad_story(store18)
    async with running(store18.project("p", Broken().one, on_error="park")) as task:
        await at(store18, 4, task)
        found = await store18.skippable("p", 2)
        assert (found.parked, found.waiting) == (True, 1)
        await store18.skip_event("p", 2)

        async def only_the_skipped() -> bool:
            return await aside(store18) == [(2, "skipped", 1)]

        await until(only_the_skipped, task)
        await store18.append("a", [NewEvent("T")])
        await at(store18, 5, task)
        assert (await store18.consumer("p")).state is ConsumerState.ACTIVE
    assert await handled(model, "a") == [1, 3, 5]


async def test_what_is_parked_waits_for_the_next_program_too(store18: EventStore, model: asyncpg.Connection) -> None:
    await bad_story(store18)
    broken = Broken()
    async with running(store18.project("p", broken.one, on_error="park")) as task:
        await at(store18, 4, task)
    broken.mended = True
    await store18.append("a", [NewEvent("T")])
    # Whatever it does on errors, it does not handle the later events before the parked ones.
    async with running(store18.project("p", broken.one)) as task:
        await at(store18, 5, task)
        assert await handled(model, "a") == [1]
        await store18.retry_events("p")

        async def all_handled() -> bool:
            return await handled(model, "a") == [1, 2, 3, 5]

        await until(all_handled, task)


async def test_skip_leaves_events_out_and_keeps_a_record(store18: EventStore, model: asyncpg.Connection) -> None:
    await bad_story(store18)
    async with running(store18.project("p", Broken().one, on_error="skip")) as task:
        await at(store18, 4, task)
        assert await aside(store18) == [(2, "skipped", 1)]
        assert (await store18.consumer("p")).state is ConsumerState.ACTIVE
    assert (await handled(model, "a"), await handled(model, "b")) == ([1, 3], [4])


async def test_a_parked_event_that_is_gone_says_so(store18: EventStore, model: asyncpg.Connection) -> None:
    await bad_story(store18)
    async with running(store18.project("p", Broken().one, on_error="park")) as task:
        await at(store18, 4, task)
        await model.execute("DELETE FROM events WHERE global_seq = 2")
        await store18.retry_events("p")

        async def told() -> bool:
            return "no longer in the store" in (await store18.put_aside("p"))[0].error

        await until(told, task)


async def test_too_many_parked_events_stop_it(store18: EventStore, model: asyncpg.Connection) -> None:
    """A handler that fails at everything does not move the whole store into one table."""
    await store18.append("a", [NewEvent("Bad")])
    async with running(store18.project("p", Broken().one, on_error="park")) as task:
        await at(store18, 1, task)
    await model.execute(
        "INSERT INTO parked_events (consumer, global_seq, stream_id, event_type, error) "
        f"SELECT 'p', n + 10, 'a', 'T', '-' FROM generate_series(1, {MOST_WAITING - 1}) n"
    )
    await store18.append("a", [NewEvent("T")])
    with pytest.raises(ProjectionFailed, match="10,000 events are parked"):
        await store18.project("p", Broken().one, on_error="park")
    report = await store18.consumer("p")
    assert (report.position, report.error_seq, report.state) == (1, 2, ConsumerState.FAILED)


async def test_a_reset_forgets_what_will_be_handled_again(store18: EventStore, model: asyncpg.Connection) -> None:
    await bad_story(store18)
    broken = Broken()
    async with running(store18.project("p", broken.one, on_error="park")) as task:
        await at(store18, 4, task)
    broken.mended = True
    await store18.reset_consumer("p", to=2)
    assert await aside(store18) == [(2, "parked", 1)]
    await store18.reset_consumer("p", truncate=["handled"])
    assert await aside(store18) == []
    async with running(store18.project("p", broken.one)) as task:
        await at(store18, 4, task)
    assert await handled(model, "a") == [1, 2, 3]


async def test_who_may_not_park_is_told_at_the_start(store18: EventStore, dsn18: str) -> None:
    async with new_role(dsn18) as role:
        await role.grant("SELECT ON events", "SELECT, INSERT, UPDATE ON projections")
        async with EventStore.connect(role.dsn(dsn18)) as theirs:
            with pytest.raises(StoreFailed, match="parked_events"):
                await theirs.project("p", Broken().one, on_error="park")
    with pytest.raises(InvalidQuery, match="use stop, park or skip"):
        await store18.project("p", Broken().one, on_error="ignore")  # type: ignore[arg-type]
