"""Projections: each event handled exactly once, also where something dies, and a lag that tells the truth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from esx import (
    Event,
    EventStore,
    JsonText,
    NewEvent,
    ProjectionFailed,
    ProjectionStatus,
    SchemaMissing,
    StoreUnavailable,
    UnknownProjection,
)
from esx.errors import InvalidQuery, StoreFailed
from esx.postgres.connection import Connector
from esx.postgres.pooler import Pooler
from tests.store.feed.test_feed import moody_writers
from tests.support.connections import connected
from tests.support.proxy import proxied
from tests.support.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow

_DEADLINE = 120.0
_INSERT = "INSERT INTO events (stream_id, stream_seq, event_type, data) VALUES ($1, $2, 'T', '{}') RETURNING global_seq"
_KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = $1"
)
_PROJECTION = "esx projection"

# What the README shows, but for the address: all amounts stay exact, since PostgreSQL reads them from the JSON.
EXAMPLE = """
import asyncio

import asyncpg

from esx import Event, EventStore

SIGN = {"Deposited": 1, "Withdrawn": -1}


async def balances(connection: asyncpg.Connection, event: Event) -> None:
    if event.event_type in SIGN:
        await connection.execute(
            "INSERT INTO balances AS b VALUES ($1, $2 * ($3::jsonb ->> 'amount')::numeric) "
            "ON CONFLICT (account) DO UPDATE SET balance = b.balance + excluded.balance",
            event.stream_id,
            SIGN[event.event_type],
            event.data_json,
        )


async def main() -> None:
    async with EventStore.connect("postgresql://me@localhost/shop") as store:
        await store.project("balances", balances, stream="account-*")  # catches up, then follows


asyncio.run(main())
"""

# Handles events one by one and kills itself at event $3, after writing and before the commit.
SUICIDE = """
import asyncio, os, signal, sys
from esx import EventStore

dsn, batch, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

async def handle(connection, event):
    await connection.execute("INSERT INTO handled VALUES ($1)", event.global_seq)
    if event.global_seq == last:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with EventStore.connect(dsn) as store:
        await store.project("p", handle, batch=batch)

asyncio.run(main())
"""


@pytest_asyncio.fixture
async def read(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A bare connection with a read model that, on purpose, does not object to handling an event twice."""
    async with read_model(dsn) as connection:
        yield connection


@pytest_asyncio.fixture
async def read18(dsn18: str) -> AsyncIterator[asyncpg.Connection]:
    async with read_model(dsn18) as connection:
        yield connection


@contextlib.asynccontextmanager
async def read_model(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(dsn) as connection:
        await connection.execute("CREATE TABLE handled (global_seq bigint)")
        yield connection


async def note(connection: asyncpg.Connection, event: Event) -> None:
    await connection.execute("INSERT INTO handled VALUES ($1)", event.global_seq)


async def note_all(connection: asyncpg.Connection, events: Sequence[Event]) -> None:
    await connection.executemany("INSERT INTO handled VALUES ($1)", [(event.global_seq,) for event in events])


@contextlib.asynccontextmanager
async def running(projecting: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a projection in the background; it is to be running still at the end."""
    task = asyncio.ensure_future(projecting)
    try:
        yield task
        if task.done() and not task.cancelled():
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]], *tasks: asyncio.Task[None]) -> None:
    """Look until it is so: soon at first, and then less often, as to look takes the time of what is looked at."""
    pause = 0.005
    async with asyncio.timeout(_DEADLINE):
        while not await condition():
            for task in tasks:
                if task.done():
                    await task
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)


async def handled(read: asyncpg.Connection) -> list[int]:
    return [row[0] for row in await read.fetch("SELECT global_seq FROM handled ORDER BY 1")]


async def status(store: EventStore, name: str = "p") -> ProjectionStatus:
    [found] = [projection for projection in await store.projections() if projection.name == name]
    return found


async def at(store: EventStore, position: int, *tasks: asyncio.Task[None], name: str = "p") -> None:
    """Wait until the checkpoint is there."""

    async def there() -> bool:
        try:
            known = await store.projections()
        except StoreUnavailable:  # the test kills connections
            return False
        return any(projection.name == name and projection.position == position for projection in known)

    await until(there, *tasks)


async def fill(store: EventStore, count: int, stream: str = "s") -> None:
    await store.append(stream, [NewEvent("T", {"n": n}) for n in range(count)])


# -- once, and in order ---------------------------------------------------------------------------------------


async def test_it_catches_up_and_then_follows(store: EventStore, read: asyncpg.Connection) -> None:
    order: list[int] = []

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        order.append(event.global_seq)
        await note(connection, event)

    await fill(store, 20)
    for batch, head in ((1, 20), (7, 25), (500, 30)):
        order.clear()
        await read.execute("DELETE FROM handled")
        async with running(store.project(f"p{batch}", handle, batch=batch)) as task:
            await at(store, head, task, name=f"p{batch}")
            await fill(store, 5)
            await at(store, head + 5, task, name=f"p{batch}")
        assert order == await handled(read) == list(range(1, head + 6)), batch


async def test_a_batch_is_one_transaction(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 40)
    async with running(store18.project_batches("p", note_all, batch=16)) as task:
        await at(store18, 40, task)
    sizes = await read18.fetch("SELECT count(*) FROM handled GROUP BY xmin::text ORDER BY 1")
    assert [row[0] for row in sizes] == [8, 16, 16]


async def test_it_goes_on_where_it_was_left(store18: EventStore, read18: asyncpg.Connection) -> None:
    for total in (10, 20):
        await fill(store18, 10)
        async with running(store18.project("p", note)) as task:
            await at(store18, total, task)
    assert await handled(read18) == list(range(1, 21))


async def test_balances_under_moody_writers_equal_a_fold_over_all_events(
    dsn: str, store: EventStore, read: asyncpg.Connection
) -> None:
    """Events become visible out of order, connections die, the active instance changes: the sums are right."""
    await read.execute("CREATE TABLE balances (account text PRIMARY KEY, balance bigint NOT NULL)")

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await connection.execute(
            "INSERT INTO balances AS b VALUES ($1, $2) "
            "ON CONFLICT (account) DO UPDATE SET balance = b.balance + excluded.balance",
            event.stream_id.split("-")[1],
            event.global_seq,
        )

    async with (
        EventStore.connect(dsn) as other,
        running(store.project("p", handle, batch=10)) as one,
        running(other.project("p", handle, batch=10)) as two,
    ):
        writing = asyncio.create_task(moody_writers(dsn))
        killed = 0
        while not writing.done():
            killed += len(await read.fetch(_KILL, _PROJECTION))
            await asyncio.sleep(0.05)
        last = await store.append("last-0", [NewEvent("Last")])
        await at(store, last.global_seq, one, two)
    assert killed
    expected: Counter[str] = Counter()
    numbers: set[int] = set()
    async for event in store.read_all():
        expected[event.stream_id.split("-")[1]] += event.global_seq
        numbers.add(event.global_seq)
    assert numbers == await writing | {last.global_seq}
    assert {row[0]: row[1] for row in await read.fetch("SELECT account, balance FROM balances")} == expected


# -- where something dies -------------------------------------------------------------------------------------


async def run_script(source: str, *arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", source, *map(str, arguments))


async def test_kill_9_in_the_handler(dsn18: str, store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 20)
    for at_event, batch in ((5, 1), (13, 4), (16, 500)):
        process = await run_script(SUICIDE, dsn18, batch, at_event)
        assert await asyncio.wait_for(process.wait(), _DEADLINE) == -signal.SIGKILL
        assert (await status(store18)).position < at_event
        assert await handled(read18) == list(range(1, (await status(store18)).position + 1))
    async with running(store18.project("p", note)) as task:
        await at(store18, 20, task)
    assert await handled(read18) == list(range(1, 21))


async def test_kill_9_between_handling_and_checkpoint(
    dsn18: str, store18: EventStore, read18: asyncpg.Connection, sql18: asyncpg.Connection
) -> None:
    """All is written, and the checkpoint about to move: a trigger holds it there while the process is killed."""
    await sql18.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.position >= 6 THEN PERFORM pg_advisory_xact_lock(1); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER hold BEFORE UPDATE ON consumers FOR EACH ROW EXECUTE FUNCTION hold();"
        "SELECT pg_advisory_lock(1)"
    )
    await fill(store18, 10)
    process = await run_script(SUICIDE, dsn18, 3, 0)
    try:
        await until(lambda: _waits_for(read18, "advisory"))
    finally:
        process.kill()
        await process.wait()
    await sql18.fetch(_KILL, _PROJECTION)  # else the update would still be done
    await sql18.execute("SELECT pg_advisory_unlock(1)")
    async with running(store18.project("p", note)) as task:
        await at(store18, 10, task)
    assert await handled(read18) == list(range(1, 11))


async def test_killed_connections_lose_and_repeat_nothing(
    store18: EventStore, read18: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed while it handles, in the session of the projection and in those of the feed."""
    attempts: Counter[int] = Counter()

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await note(connection, event)
        attempts[event.global_seq] += 1
        if event.global_seq % 10 == 4 and attempts[event.global_seq] == 1:
            await read18.fetch("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await read18.fetch(_KILL, "esx")

    await fill(store18, 40)
    async with running(store18.project("p", handle, batch=6)) as task:
        await at(store18, 40, task)
        assert (await status(store18)).last_error is None
    assert await handled(read18) == list(range(1, 41))
    assert max(attempts.values()) > 1
    assert "tries again" in caplog.text


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not committed"])
async def test_a_commit_of_unknown_outcome(
    dsn18: str, store18: EventStore, read18: asyncpg.Connection, tmp_path: Path, committed: bool
) -> None:
    """The connection breaks around COMMIT: what became of it is found in the checkpoint."""
    ours: set[int] = set()

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        ours.add(connection.get_server_pid())
        await note(connection, event)

    await fill(store18, 10)
    async with proxied(dsn18, tmp_path) as (proxy, address), EventStore.connect(address) as projecting:
        proxy.about, proxy.cut = b"COMMIT", "before the reply" if committed else "before the request"
        async with running(projecting.project("p", handle)) as task:
            await at(store18, 10, task)
            await fill(store18, 1)
            await at(store18, 11, task)
        assert proxy.losses == 1
    assert len(ours) == 2, "it was the projection's connection that was lost"
    assert await handled(read18) == list(range(1, 12))


async def test_cancelling_is_prompt_and_leaves_no_half_batch(store18: EventStore, read18: asyncpg.Connection) -> None:
    entered = asyncio.Event()

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await note(connection, event)
        if event.global_seq == 8:
            entered.set()
            await connection.execute("SELECT pg_sleep(3600)")

    await fill(store18, 10)
    async with running(store18.project("p", handle, batch=5)) as task:
        await entered.wait()
        # PostgreSQL drops a request to cancel that comes before the statement.
        await until(lambda: _sleeps(read18), task)
        task.cancel()
        async with asyncio.timeout(120):
            await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert await handled(read18) == [1, 2, 3, 4, 5]
    assert (await status(store18)).position == 5
    async with running(store18.project("p", note)) as task:
        await at(store18, 10, task)
    assert await handled(read18) == list(range(1, 11))


async def test_closing_the_store_ends_it(dsn18: str) -> None:
    async with EventStore.connect(dsn18) as store:
        projecting = asyncio.create_task(store.project("p", note))
        await at(store, 0, projecting)
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(StoreUnavailable, match="closed"):
            await projecting


# -- one at a time --------------------------------------------------------------------------------------------


async def test_the_second_of_a_name_waits_and_takes_over(
    dsn18: str, store18: EventStore, read18: asyncpg.Connection
) -> None:
    calls: list[str] = []

    def handler(name: str) -> Callable[[asyncpg.Connection, Event], Awaitable[None]]:
        async def handle(connection: asyncpg.Connection, event: Event) -> None:
            calls.append(name)
            await note(connection, event)

        return handle

    async with (
        EventStore.connect(dsn18, application_name="second") as other,
        running(store18.project("p", handler("first"))) as first,
    ):
        await fill(store18, 1)
        await at(store18, 1, first)
        async with running(other.project("p", handler("second"))) as second:
            await until(lambda: _connected(read18, "second projection"), second)
            for n in range(10):
                await fill(store18, 1)
                await at(store18, n + 2, first, second)
            assert calls == ["first"] * 11
            assert await _owner(store18) == _PROJECTION
            first.cancel()
            await fill(store18, 1)
            await at(store18, 12, second)
            assert calls == ["first"] * 11 + ["second"]
            assert await _owner(store18) == "second projection"
    await until(lambda: _inactive(store18))
    assert await handled(read18) == list(range(1, 13))


async def _connected(read: asyncpg.Connection, name: str) -> bool:
    return bool(await read.fetch("SELECT 1 FROM pg_stat_activity WHERE application_name = $1", name))


async def _owner(store: EventStore) -> str | None:
    owner = (await status(store)).owner
    return None if owner is None else owner.application


async def _inactive(store: EventStore) -> bool:
    return not (await status(store)).active


async def test_takeover_from_a_process_that_was_killed(
    dsn18: str, store18: EventStore, read18: asyncpg.Connection
) -> None:
    await fill(store18, 3)
    process = await run_script(SUICIDE, dsn18, 1, 0)
    try:
        await at(store18, 3)
        mine: list[int] = []

        async def handle(connection: asyncpg.Connection, event: Event) -> None:
            mine.append(event.global_seq)
            await note(connection, event)

        async with running(store18.project("p", handle)) as task:
            await until(lambda: _connected_times(read18, 2), task)
            await fill(store18, 3)
            await at(store18, 6, task)
            assert mine == []
            os.kill(process.pid, signal.SIGKILL)
            await fill(store18, 3)
            await at(store18, 9, task)
            assert mine == [7, 8, 9]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert await handled(read18) == list(range(1, 10))


async def _connected_times(read: asyncpg.Connection, times: int) -> bool:
    sessions = await read.fetch(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1", _PROJECTION
    )
    return len(sessions) == times


async def test_a_zombie_cannot_commit(dsn18: str, store18: EventStore, read18: asyncpg.Connection) -> None:
    """It sleeps in its handler while its session is ended and another takes over; then it wakes up."""
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def sleepy(connection: asyncpg.Connection, event: Event) -> None:
        await note(connection, event)
        if event.global_seq == 2 and not wake.is_set():
            asleep.set()
            await wake.wait()

    await fill(store18, 3)
    async with (
        EventStore.connect(dsn18, application_name="other") as other,
        running(store18.project("p", sleepy)) as zombie,
    ):
        await asleep.wait()
        async with running(other.project("p", note)) as successor:
            await read18.fetch(_KILL, _PROJECTION)
            await at(store18, 3, successor)
            wake.set()
            await fill(store18, 3)
            await at(store18, 6, successor, zombie)
    assert await handled(read18) == list(range(1, 7))


async def test_without_the_lock_the_checkpoint_alone_keeps_two_from_handling_twice(
    dsn: str, read: asyncpg.Connection
) -> None:
    """As behind PgBouncer in transaction mode, where a session's lock means nothing."""
    connectors = [Connector(dsn, "esx") for _ in range(2)]
    for connector in connectors:
        connector.pooler = Pooler(certain=True)
    calls: list[tuple[str, int]] = []

    def handler(name: str) -> Callable[[asyncpg.Connection, Event], Awaitable[None]]:
        async def handle(connection: asyncpg.Connection, event: Event) -> None:
            calls.append((name, event.global_seq))
            await note(connection, event)

        return handle

    async with contextlib.AsyncExitStack() as stack:
        store, other = [await stack.enter_async_context(await open_store(connector)) for connector in connectors]
        one = await stack.enter_async_context(running(store.project("p", handler("one"), batch=3)))
        two = await stack.enter_async_context(running(other.project("p", handler("two"), batch=5)))
        for n in range(1, 13):
            await fill(store, 10)
            await at(store, n * 10, one, two)
        assert not (await status(store)).active
    assert await handled(read) == list(range(1, 121))
    assert [number for _, number in calls] == list(range(1, 121))
    assert {name for name, _ in calls} == {"one", "two"}


async def test_a_stricter_default_isolation_changes_nothing(
    dsn: str, store: EventStore, read: asyncpg.Connection
) -> None:
    """Under serializable, waiting for the session that moved the checkpoint would end in a failure to serialize."""
    name = await read.fetchval("SELECT current_database()")
    await read.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    levels: list[str] = []

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        levels.append(await connection.fetchval("SHOW transaction_isolation"))
        await note(connection, event)

    async with EventStore.connect(dsn) as strict, running(strict.project("p", handle, batch=2)) as projection:
        await at(strict, 0, projection)
        for n in range(1, 6):
            await fill(store, 4)
            await strict.pause_projection("p")
            await strict.resume_projection("p")
            await at(strict, 4 * n, projection)
    assert await handled(read) == list(range(1, 21))
    assert levels == ["read committed"] * 20


async def test_two_projections_of_different_names_are_independent(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await fill(store18, 3)
    async with running(store18.project("p", note)) as one, running(store18.project("q", note)) as two:
        await at(store18, 3, one, two)
        await at(store18, 3, one, two, name="q")
        assert [(status.name, status.active) for status in await store18.projections()] == [("p", True), ("q", True)]
    assert await handled(read18) == [1, 1, 2, 2, 3, 3]


# -- handlers that fail ---------------------------------------------------------------------------------------


async def test_a_handler_that_raises_stops_it_at_that_event(store18: EventStore, read18: asyncpg.Connection) -> None:
    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await note(connection, event)
        if event.global_seq == 8:
            raise ValueError("no\nsuch\x00account")

    await fill(store18, 10)
    for name, batch in (("one", 1), ("three", 3), ("all", 500)):
        async with asyncio.timeout(_DEADLINE):
            with pytest.raises(ProjectionFailed) as failed:
                await store18.project(name, handle, batch=batch)
        assert (failed.value.name, failed.value.global_seq) == (name, 8)
        assert isinstance(failed.value.__cause__, ValueError)
        assert str(failed.value) == f"projection {name} stopped at event 8: ValueError: no"
        assert pickle.loads(pickle.dumps(failed.value)).global_seq == 8
        stopped = await status(store18, name)
        assert (stopped.position, stopped.lag, stopped.last_error) == (7, 3, "ValueError: no"), name
        assert await handled(read18) == list(range(1, 8)), name
        async with running(store18.project(name, note)) as task:  # repaired
            await at(store18, 10, task, name=name)
            assert (await status(store18, name)).last_error is None
        assert await handled(read18) == list(range(1, 11)), name
        await read18.execute("DELETE FROM handled")


async def test_a_handler_that_lost_some_other_connection_stops_it_too(store18: EventStore) -> None:
    """Whether it was the projection's own is asked of that one, not told from the error."""
    await fill(store18, 1)
    errors: tuple[type[Exception], ...] = (
        TimeoutError, ConnectionResetError, StoreUnavailable, asyncpg.InterfaceError,
    )  # fmt: skip
    for error in errors:

        async def handle(connection: asyncpg.Connection, event: Event, error: type[Exception] = error) -> None:
            raise error("connection is closed")

        async with asyncio.timeout(_DEADLINE):
            with pytest.raises(ProjectionFailed) as failed:
                await store18.project(error.__name__, handle)
        assert isinstance(failed.value.__cause__, error)


async def test_a_batch_handler_that_raises_stops_at_the_culprit_too(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await read18.execute("ALTER TABLE handled ADD CHECK (global_seq <> 8)")
    await fill(store18, 10)
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(ProjectionFailed) as failed:
            await store18.project_batches("p", note_all)
    assert failed.value.global_seq == 8
    assert isinstance(failed.value.__cause__, asyncpg.CheckViolationError)
    assert await handled(read18) == list(range(1, 8))


async def test_what_fails_once_in_a_batch_and_not_alone_goes_through(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    failures = 0

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        nonlocal failures
        await note(connection, event)
        if event.global_seq == 4 and not failures:
            failures += 1
            raise TimeoutError("something else, far away")  # of the kind that a lost connection raises too

    await fill(store18, 5)
    async with running(store18.project("p", handle)) as task:
        await at(store18, 5, task)
    assert failures == 1
    assert await handled(read18) == [1, 2, 3, 4, 5]


async def test_a_constraint_checked_at_commit_fails_like_any_other(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await read18.execute(
        "CREATE TABLE allowed (global_seq bigint PRIMARY KEY); INSERT INTO allowed VALUES (1), (2), (4);"
        "ALTER TABLE handled ADD FOREIGN KEY (global_seq) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED"
    )
    await fill(store18, 4)
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(ProjectionFailed) as failed:
            await store18.project("p", note)
    assert failed.value.global_seq == 3
    assert isinstance(failed.value.__cause__, asyncpg.ForeignKeyViolationError)
    assert (await status(store18)).position == 2
    assert await handled(read18) == [1, 2]


async def test_a_handler_that_swallows_an_error_of_postgresql_is_told(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    """PostgreSQL would answer its COMMIT with a rollback, and say no more."""

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await note(connection, event)
        if event.global_seq == 2:
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute("SELECT 1 / 0")

    await fill(store18, 3)
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(ProjectionFailed, match="after an error of PostgreSQL") as failed:
            await store18.project("p", handle)
    assert failed.value.global_seq == 2
    assert await handled(read18) == [1]


async def test_a_handler_may_fail_inside_a_savepoint(store18: EventStore, read18: asyncpg.Connection) -> None:
    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await note(connection, event)
        with contextlib.suppress(asyncpg.PostgresError):
            async with connection.transaction():
                await connection.execute("SELECT 1 / 0")

    await fill(store18, 3)
    async with running(store18.project("p", handle)) as task:
        await at(store18, 3, task)
    assert await handled(read18) == [1, 2, 3]


async def test_a_handler_that_ends_the_transaction_is_told(store18: EventStore) -> None:
    await fill(store18, 1)
    for statement in ("COMMIT", "ROLLBACK; BEGIN", "COMMIT; BEGIN"):

        async def handle(connection: asyncpg.Connection, event: Event, statement: str = statement) -> None:
            await connection.execute(statement)

        async with asyncio.timeout(_DEADLINE):
            with pytest.raises(ProjectionFailed, match="ended the transaction") as failed:
                await store18.project(statement, handle)
        assert isinstance(failed.value.__cause__, StoreFailed)
        assert (await status(store18, statement)).position == 0, statement


async def test_a_deadlock_is_tried_again(store: EventStore, read: asyncpg.Connection) -> None:
    attempts = 0

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        nonlocal attempts
        attempts += 1
        await note(connection, event)
        if attempts < 3:
            await connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")

    await fill(store, 1)
    async with running(store.project("p", handle)) as task:
        await at(store, 1, task)
    assert attempts == 3
    assert await handled(read) == [1]


async def test_a_handler_that_always_loses_its_connection_shows_in_the_status(
    store18: EventStore,
) -> None:
    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async def told() -> bool:
        return any("connection was lost" in (known.last_error or "") for known in await store18.projections())

    await fill(store18, 1)
    async with running(store18.project("p", handle)) as task:
        await until(told, task)
        assert (await status(store18)).position == 0


async def test_what_a_handler_does_to_its_session_does_not_disturb_the_feed(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=len)
        assert event.data == {"n": event.stream_seq}
        await note(connection, event)

    await fill(store18, 6)
    async with running(store18.project("p", handle, batch=2)) as task:
        await at(store18, 6, task)
    assert await handled(read18) == [1, 2, 3, 4, 5, 6]


# -- pause, resume, reset, delete -----------------------------------------------------------------------------


async def test_pause_waits_for_the_batch_and_then_nothing_is_committed(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(connection: asyncpg.Connection, event: Event) -> None:
        await note(connection, event)
        entered.set()
        await leave.wait()

    await fill(store18, 3)
    async with running(store18.project("p", handle, batch=1)) as task:
        await entered.wait()
        pausing = asyncio.create_task(store18.pause_projection("p"))
        await until(lambda: _waits_for(read18, "transactionid"), task)
        assert not pausing.done()
        leave.set()
        await pausing
        paused = await status(store18)
        assert paused.paused
        assert await handled(read18) == list(range(1, paused.position + 1))
        await fill(store18, 3)
        await _looks(read18, task)
        assert (await status(store18)).position == paused.position
        await store18.resume_projection("p")
        await at(store18, 6, task)
    assert await handled(read18) == [1, 2, 3, 4, 5, 6]


async def _sleeps(read: asyncpg.Connection) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    return bool(await read.fetch(query))


async def _waits_for(read: asyncpg.Connection, lock: str) -> bool:
    return bool(await read.fetch("SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = $1", lock))


async def _looks(read: asyncpg.Connection, task: asyncio.Task[None]) -> None:
    """Wait until the projection has looked at its checkpoint, idle or paused as it is."""
    looks: set[object] = set()

    async def twice() -> bool:
        looks.add(
            await read.fetchval("SELECT query_start FROM pg_stat_activity WHERE application_name = $1", _PROJECTION)
        )
        return len(looks) > 2

    await until(twice, task)


async def test_a_paused_projection_stays_paused_when_started_again(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await fill(store18, 2)
    async with running(store18.project("p", note)) as task:
        await at(store18, 2, task)
    await store18.pause_projection("p")
    await fill(store18, 2)
    async with running(store18.project("p", note)) as task:
        await until(lambda: _connected(read18, _PROJECTION), task)
        await _looks(read18, task)
        assert (await status(store18)).lag == 2
        await store18.resume_projection("p")
        await at(store18, 4, task)
    assert await handled(read18) == [1, 2, 3, 4]


async def test_reset_clears_the_read_model_in_the_same_transaction(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    """While it runs and is busy: nothing of before is left over, nothing is handled twice."""

    async def clear(connection: asyncpg.Connection) -> None:
        await connection.execute("DELETE FROM handled")

    await fill(store18, 200)
    async with running(store18.project("p", note, batch=3)) as task:
        for _ in range(5):
            await until(lambda: _some(read18), task)
            await store18.reset_projection("p", clear=clear)
        await at(store18, 200, task)
        assert await handled(read18) == list(range(1, 201))
        await store18.reset_projection("p", to=190, clear=clear)  # idle by now
        await at(store18, 200, task)
        await until(lambda: _some(read18), task)
    assert await handled(read18) == list(range(191, 201))


async def _some(read: asyncpg.Connection) -> bool:
    return len(await handled(read)) > 5


async def test_a_reset_whose_clearing_fails_changes_nothing(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 2)
    async with running(store18.project("p", note)) as task:
        await at(store18, 2, task)
    with pytest.raises(ProjectionFailed, match="clearing"):
        await store18.reset_projection("p", clear=lambda connection: connection.execute("DELETE FROM nowhere"))
    assert (await status(store18)).position == 2


@pytest.mark.parametrize("to", [-1, 2**63])
async def test_a_position_that_makes_no_sense_is_refused(store18: EventStore, to: int) -> None:
    with pytest.raises(InvalidQuery):
        await store18.reset_projection("p", to=to)


async def test_a_projection_that_was_never_run_is_unknown(store18: EventStore) -> None:
    for action in (
        store18.pause_projection,
        store18.resume_projection,
        store18.reset_projection,
        store18.delete_projection,
    ):
        with pytest.raises(UnknownProjection, match="nobody's"):
            await action("nobody's")
    assert pickle.loads(pickle.dumps(UnknownProjection("x"))).name == "x"


async def test_deleting_ends_a_running_instance(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 2)
    projecting = asyncio.create_task(store18.project("p", note))
    await at(store18, 2, projecting)
    await store18.delete_projection("p")
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(ProjectionFailed, match="deleted"):
            await projecting
    assert await store18.projections() == []


async def test_arguments_that_make_no_sense_are_refused(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T")])
    with pytest.raises(InvalidQuery):
        await store18.project("", note)
    with pytest.raises(InvalidQuery):
        await store18.project("p", note, batch=0)
    with pytest.raises(InvalidQuery):
        await store18.project("p", note, stream="[a")
    with pytest.raises(InvalidQuery):
        await store18.project("p", note, where="$.a >")


async def test_a_store_made_before_projections_says_what_to_do(store: EventStore, sql: asyncpg.Connection) -> None:
    await sql.execute("DROP TABLE consumers CASCADE")
    with pytest.raises(SchemaMissing, match="esx init"):
        await store.project("p", note)
    with pytest.raises(SchemaMissing, match="esx init"):
        await store.projections()
    assert {"created table consumers", "created view projections"} <= set(await store.init())
    assert await store.projections() == []


# -- how far it is --------------------------------------------------------------------------------------------


async def test_what_the_filter_passes_over_moves_the_checkpoint(
    store18: EventStore, read18: asyncpg.Connection
) -> None:
    await store18.append("account-1", [NewEvent("T")])
    async with running(store18.project("p", note, stream="account-*")) as task:
        await at(store18, 1, task)
        for n in range(3):
            await fill(store18, 50, f"order-{n}")
        await at(store18, 151, task)
        await store18.append("account-1", [NewEvent("T")])
        await at(store18, 152, task)
    assert await handled(read18) == [1, 152]


async def test_an_idle_projection_writes_nothing(store18: EventStore, read18: asyncpg.Connection) -> None:
    await fill(store18, 1)
    async with running(store18.project("p", note)) as task:
        await at(store18, 1, task)
        before = await read18.fetchrow("SELECT xmin::text, updated_at FROM consumers")
        await _looks(read18, task)
        assert await read18.fetchrow("SELECT xmin::text, updated_at FROM consumers") == before


async def test_a_held_transaction_shows_as_lag_and_names_the_writer(
    store18: EventStore, read18: asyncpg.Connection, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 1)
    async with running(store18.project("p", note)) as task:
        await at(store18, 1, task)
        writer = sql18.transaction()
        await writer.start()
        await sql18.fetchval(_INSERT, "slow", 0)
        assert (await status(store18)).lag == 0  # nothing is visible that it has not handled
        await fill(store18, 3)
        stuck = await status(store18)
        assert (stuck.position, stuck.head, stuck.lag) == (1, 5, 3)
        assert stuck.lag_seconds is not None
        assert stuck.lag_seconds > 0
        assert stuck.active
        assert [holder.pid for holder in stuck.held_by] == [sql18.get_server_pid()]
        await writer.commit()
        await at(store18, 5, task)
        free = await status(store18)
        assert (free.lag, free.lag_seconds, free.held_by) == (0, 0, ())
    assert await handled(read18) == [1, 2, 3, 4, 5]


async def test_dead_numbers_at_the_end_are_no_lag(
    store18: EventStore, read18: asyncpg.Connection, sql18: asyncpg.Connection
) -> None:
    await fill(store18, 2)
    for _ in range(5):
        with pytest.raises(asyncpg.UniqueViolationError):
            await sql18.fetchval(_INSERT, "s", 0)
    async with running(store18.project("p", note)) as task:
        await at(store18, 2, task)
        caught_up = await status(store18)
        assert (caught_up.position, caught_up.head, caught_up.lag, caught_up.held_by) == (2, 7, 0, ())
        await fill(store18, 1)
        await at(store18, 8, task)
    assert await handled(read18) == [1, 2, 8]


async def test_a_long_lag_is_an_upper_bound(store18: EventStore) -> None:
    assert await store18.projections() == []
    projecting = asyncio.create_task(store18.project("p", note))
    await at(store18, 0, projecting)
    await store18.pause_projection("p")
    await fill(store18, 10_000)
    counted = await status(store18)
    assert (counted.lag, counted.lag_exact) == (10_000, True)
    await fill(store18, 500)
    guessed = await status(store18)
    assert (guessed.lag, guessed.lag_exact) == (10_500, False)
    projecting.cancel()


# -- the README's example -------------------------------------------------------------------------------------


async def test_the_example_keeps_balances(dsn18: str, store18: EventStore, sql18: asyncpg.Connection) -> None:
    await sql18.execute("CREATE TABLE balances (account text PRIMARY KEY, balance numeric NOT NULL)")
    await store18.append("account-7", [NewEvent("Opened"), NewEvent("Deposited", JsonText('{"amount": 100.10}'))])
    await store18.append("order-1", [NewEvent("Deposited", {"amount": 5})])
    process = await run_script(EXAMPLE.replace("postgresql://me@localhost/shop", dsn18))
    try:
        await at(store18, 3, name="balances")
        await store18.append("account-7", [NewEvent("Withdrawn", JsonText('{"amount": 0.20}'))])
        last = await store18.append("account-8", [NewEvent("Deposited", {"amount": 0.01})])
        await at(store18, last.global_seq, name="balances")
    finally:
        process.kill()
        await process.wait()
    rows = await sql18.fetch("SELECT account, balance::text FROM balances ORDER BY 1")
    assert [tuple(row) for row in rows] == [("account-7", "99.90"), ("account-8", "0.01")]


async def test_projections_in_two_schemas_of_one_database_do_not_meet(empty_dsn18: str) -> None:
    sql = await asyncpg.connect(empty_dsn18)
    async with contextlib.AsyncExitStack() as stack:
        stores = []
        for schema in ("one", "two"):
            await sql.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.handled (global_seq bigint)")
            store = await stack.enter_async_context(EventStore.connect(f"{empty_dsn18}&search_path={schema}"))
            await store.init()
            await fill(store, 2)
            stores.append(store)
        for store in stores:
            task = await stack.enter_async_context(running(store.project("p", note)))
            await at(store, 2, task)
        owners = [(await status(store)).owner for store in stores]
        assert all(owners)
        assert owners[0] != owners[1]
    await sql.close()


async def test_a_filter_that_fails_at_an_event_shows_in_the_status(store18: EventStore) -> None:
    await store18.append("s", [NewEvent("T", {"at": "2026-01-01"})])
    async with asyncio.timeout(_DEADLINE):
        with pytest.raises(StoreFailed):
            await store18.project("p", note, where='$.at.datetime() < "2020-01-01T00:00:00Z".datetime()')
    assert "StoreFailed: " in ((await status(store18)).last_error or "")
